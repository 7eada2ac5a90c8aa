"""JSON objects that carry a checksum of their own, so that a damaged one is never read as a sound one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import xxhash
from pydantic import BaseModel, ConfigDict, ValidationError

from phoropter.core.errors import PhoropterError, StoreError
from phoropter.core.files import read_json, write_json

MAX_JSON_BYTES = 200_000_000
CACHE_FORMAT = 1  # of the small JSON files in the cache


class CacheShape(BaseModel):
    """The shape of a small JSON file in the cache; a file of another shape or format is made again."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


CacheShapeT = TypeVar("CacheShapeT", bound=CacheShape)


def write_sealed_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON object atomically, with a checksum of all its other fields in `checksum`."""
    plain = json.loads(json.dumps(dict(value), ensure_ascii=False, allow_nan=False))
    write_json(path, {**plain, "checksum": _checksum_plain(plain)})


def read_sealed_json(path: Path, error: type[PhoropterError]) -> dict[str, Any]:
    """Reads a JSON object that `write_sealed_json` wrote, without its checksum.

    Raises `error` when it is missing, larger than MAX_JSON_BYTES, no JSON object, or not as it was written.
    """
    value, sealed = read_json_object(path, error)
    if not sealed:
        raise error(f"{path} is damaged: it has no checksum")
    return value


def read_json_object(path: Path, error: type[PhoropterError]) -> tuple[dict[str, Any], bool]:
    """As `read_sealed_json`, for an object that need not have a checksum; and whether it has one."""
    value = read_json(path, MAX_JSON_BYTES, error)
    if not isinstance(value, dict):
        raise error(f"{path} is damaged: it holds a JSON {type(value).__name__}, expected an object")
    recorded = value.pop("checksum", None)
    try:
        sound = recorded is None or recorded == _checksum_plain(value)
    except (RecursionError, ValueError):
        sound = False
    if not sound:
        raise error(f"{path} is damaged or was edited: its checksum is not the one it was written with")
    return value, recorded is not None


def write_cache_json(path: Path, value: CacheShape) -> None:
    """Writes a small JSON file in the cache, with its format."""
    write_sealed_json(path, {"format": CACHE_FORMAT, **value.model_dump()})


def read_cache_json(path: Path, shape: type[CacheShapeT]) -> CacheShapeT | None:
    """A small JSON file in the cache; None where there is none, or one that is damaged, so that it is made again."""
    try:
        value = read_sealed_json(path, StoreError)
        return shape.model_validate(value) if value.pop("format", None) == CACHE_FORMAT else None
    except (StoreError, ValidationError):
        return None


def _checksum_plain(value: Mapping[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())

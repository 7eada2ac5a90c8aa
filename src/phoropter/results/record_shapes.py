"""The shapes of the JSON files of a results folder, checked when they are read back: a file of another shape is a StoreError.

A file with phoropter's checksum is as it was written, so only the types of its fields are checked. One without it (written by
phoropter before the checksums, or by hand) must also have every field that reading uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from phoropter.core.errors import StoreError
from phoropter.core.storage.sealed_json import read_json_object, write_sealed_json

FORMAT_VERSION = 2
UNSEALED_FORMAT = 1  # of earlier versions, which wrote no checksums


class OtherFormatError(StoreError):
    """A file was written by a version of phoropter with another format."""


class _Shape(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class PlanRowShape(_Shape):
    key: str
    candidate: str = ""
    seed: int = 0
    repeat: int = 0
    fold: int = 0
    folds: int = 0
    split: str = ""
    n_train: int = 0
    n_test: int = 0
    settings: dict[str, Any] | None = None


class DatasetShape(_Shape):
    name: str = ""
    fingerprint: str = ""
    rows: int = 0
    classes: list[str] = []
    counts: list[int] = []
    positive: str | None = None
    groups: int | None = None
    sites: list[str] | None = None
    size: int | None = None
    notes: list[str] = []
    problems: list[str] = []
    exclusions: list[dict[str, Any]] | None = None


class StudyShape(_Shape):
    """study.json"""

    format: int
    plan: list[PlanRowShape]
    side_plan: list[PlanRowShape] = []
    learning_curve: dict[str, Any] | None = None
    name: str = ""
    study: dict[str, Any] = {}
    text: str | None = None
    dataset: DatasetShape = DatasetShape()
    audit: list[dict[str, Any]] | None = None
    scale: list[str] | None = None
    screening: list[dict[str, Any]] = []
    shift: list[dict[str, Any]] = []
    custom_metrics: list[dict[str, Any]] = []
    extensions: list[dict[str, Any]] = []
    versions: dict[str, str] = {}
    machine: dict[str, Any] = {}
    command: str = ""


class RunCandidateShape(_Shape):
    name: str
    description: str = ""


class SplitShape(_Shape):
    name: str = ""
    repeat: int = 0
    fold: int = 0
    folds: int = 0
    n_train: int = 0
    n_test: int = 0
    n_validation: int | None = None
    n_external: int | None = None


class RunShape(_Shape):
    """record.json"""

    format: int
    candidate: RunCandidateShape | None = None
    settings: dict[str, Any] | None = None
    seed: int = 0
    split: SplitShape = SplitShape()
    recipe: dict[str, Any] = {}
    classes: list[str] = []
    metrics: dict[str, float | None] = {}
    cost: dict[str, float | None] = {}
    choice: dict[str, Any] = {}
    digests: dict[str, Any] = {}
    versions: dict[str, str] = {}
    machine: dict[str, Any] = {}


class FailureShape(_Shape):
    """failed/KEY.json"""

    error: str
    candidate: str = ""
    split: str = ""
    seed: int = 0
    kind: str = ""
    trace: list[str] = []


class ProgressShape(_Shape):
    """work/KEY/now.json"""

    candidate: str
    split: str
    epoch: int
    epochs: int


_REQUIRED: dict[type[_Shape], tuple[str, ...]] = {
    StudyShape: ("name", "study", "dataset", "plan", "versions", "machine"),
    RunShape: ("candidate", "seed", "split", "recipe", "classes", "metrics", "cost", "digests"),
    FailureShape: ("error", "candidate", "split", "seed"),
}


def write_record_file(path: Path, value: Mapping[str, Any]) -> None:
    """Writes one of these files, with its format version and a checksum."""
    write_sealed_json(path, {"format": FORMAT_VERSION, **value})


def read_record_file(path: Path, shape: type[_Shape], way_out: str) -> dict[str, Any]:
    """One of these files. Raises StoreError, which ends with the way out, when it is damaged, of another format or shape."""
    try:
        value, sealed = read_json_object(path, StoreError)
    except StoreError as error:
        raise StoreError(f"{error}; {way_out}") from None
    version = value.get("format")
    if not isinstance(version, int) or isinstance(version, bool):
        raise StoreError(f"{path} is damaged: it names no format; {way_out}")
    if version not in (UNSEALED_FORMAT, FORMAT_VERSION):
        raise OtherFormatError(
            f"{path} has format {version}, and this phoropter reads {UNSEALED_FORMAT} and {FORMAT_VERSION}: use the version that "
            "wrote it"
        )
    missing = [name for name in _REQUIRED.get(shape, ()) if name not in value]
    if not sealed and (missing or version != UNSEALED_FORMAT):
        raise StoreError(f"{path} is damaged: it has no {missing[0] if missing else 'checksum'}; {way_out}")
    check_shape(value, shape, str(path), way_out)
    return value


def check_shape(value: Any, shape: type[_Shape], name: str, way_out: str) -> None:
    """Raises StoreError where a value does not have a shape. name: of the file, for the message"""
    try:
        shape.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "it"
        raise StoreError(f"{name} is damaged: {field}: {first['msg'][0].lower()}{first['msg'][1:]}; {way_out}") from None

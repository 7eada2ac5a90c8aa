"""A folder of weights to carry where there is no network: files, a JSON beside each, and a manifest (no torch).

`PHOROPTER_WEIGHTS` names the folder; what lies in it is used before the caches. `weights.json`, the manifest, holds for each file
its bytes, its SHA-256, where it came from, its licence and what it was pretrained on. Files named as timm names its weights
(`mobilenetv1_100.ra4_e3600_r224_in1k.safetensors`) are found without a manifest too; folder_files.py adds others to it.
"""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from phoropter.core.errors import WeightsError
from phoropter.core.files import file_lock, read_json, write_json

VARIABLE = "PHOROPTER_WEIGHTS"
MANIFEST = "weights.json"
MAX_MANIFEST_BYTES = 16 << 20


class ManifestEntry(BaseModel):
    """A file of the folder.

    file: its name · bytes, sha256: of its contents · repo, url: where it came from; both None: somebody put it there
    licence: as its authors state it; None: they state none · pretraining: the data that its name tells
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    bytes: int
    sha256: str
    repo: str | None
    url: str | None
    licence: str | None
    pretraining: str


class Manifest(BaseModel):
    """The manifest: name with tag → its file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    weights: dict[str, ManifestEntry] = {}


def named_folder() -> Path | None:
    """The folder that `PHOROPTER_WEIGHTS` names, if it does. Raises WeightsError where there is none of that name."""
    named = os.environ.get(VARIABLE, "").strip()
    if not named:
        return None
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise WeightsError(f"{VARIABLE} is {named}, and there is no such folder; make it by `phoropter weights get`, or unset it")
    return folder


def read_weights_manifest(folder: Path) -> Manifest:
    """The manifest of a folder, empty where there is none. Raises WeightsError for a damaged one."""
    file = folder / MANIFEST
    if not file.exists():
        return Manifest()
    try:
        return Manifest.model_validate(read_json(file, MAX_MANIFEST_BYTES, WeightsError))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise WeightsError(f"{file} is damaged at {where}; delete it, and `phoropter weights get` makes it again") from None


def add_to_manifest(folder: Path, name: str, entry: ManifestEntry) -> None:
    """Records a file that lies in the folder."""
    with file_lock(folder / f".{MANIFEST}.lock"):
        known = read_weights_manifest(folder)
        merged = known.model_copy(update={"weights": {**known.weights, name: entry}})
        write_json(folder / MANIFEST, merged.model_dump())


def find_in_folder(repo: str | None, url: str | None) -> Path | None:
    """The file in the folder that `PHOROPTER_WEIGHTS` names, for weights of the hub (`timm/resnet50.a1_in1k`) or of a URL."""
    folder = named_folder()
    if folder is None:
        return None
    for entry in read_weights_manifest(folder).weights.values():
        same = entry.repo == repo if repo else entry.url == url
        if same and (folder / entry.file).is_file():
            return folder / entry.file
    stem = str(repo).rpartition("/")[2] if repo else str(url).rpartition("/")[2].rpartition(".")[0]
    file = folder / f"{stem}.safetensors"
    return file if file.is_file() else None


@cache
def _hash_file(path: Path, changed_ns: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_weights(path: Path) -> str:
    """SHA-256 of a file's contents, computed once in a process while the file stays as it is."""
    state = path.stat()
    return _hash_file(path, state.st_mtime_ns, state.st_size)


def verify_folder(folder: Path) -> list[str]:
    """A line for each file of the manifest that is missing or not as it was saved; empty where all are sound.

    Every file is read.
    """
    problems = []
    for name, entry in read_weights_manifest(folder).weights.items():
        path = folder / entry.file
        if not path.is_file():
            problems.append(f"{name}: {entry.file} is missing")
        elif path.stat().st_size != entry.bytes:
            problems.append(f"{name}: {entry.file} has {path.stat().st_size:,} bytes, expected {entry.bytes:,}")
        elif digest_weights(path) != entry.sha256:
            problems.append(f"{name}: {entry.file} has another content than was recorded")
    return problems

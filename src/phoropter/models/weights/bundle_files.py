"""The files of a bundle, held against the checksums in its bundle.json (no torch). A damaged bundle is refused, never used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from phoropter.core.errors import WeightsError
from phoropter.core.storage.checksums import compare_files, describe_files, print_notice, set_aside
from phoropter.core.storage.sealed_json import read_json_object

BUNDLE_FORMAT = 2
AVERAGE_FORMAT = 3  # of several classifiers whose probabilities are averaged; readers of format 2 refuse it
WEIGHTED_FORMAT = 4  # of such an average by weights, which readers of format 3 would leave out
UNSEALED_BUNDLE_FORMAT = 1  # of earlier versions, which wrote no checksums

# What a reader may change, or other programs rewrite; phoropter reads none of it back.
_UNSEALED_FILES = ("README.md", "MLmodel")
EXAMPLES_FOLDER = "examples"
TRAINED_ON_FILE = "trained_on.npz"


def describe_bundle_files(folder: Path) -> dict[str, list[int | str]]:
    """Name → [bytes, checksum] of every file that phoropter reads in a bundle; those of examples/ by their path in it."""
    files = {name: entry for name, entry in describe_files(folder).items() if name not in _UNSEALED_FILES}
    examples = folder / EXAMPLES_FOLDER
    return files | {f"{EXAMPLES_FOLDER}/{n}": e for n, e in (describe_files(examples) if examples.is_dir() else {}).items()}


def _find_foreign_file(folder: Path, recorded: Any) -> str | None:
    """A file that phoropter would read and that the bundle does not list; None where there is none. Others are never opened."""
    read = [TRAINED_ON_FILE, *(f"{EXAMPLES_FOLDER}/{p.name}" for p in sorted((folder / EXAMPLES_FOLDER).glob("[!.]*")))]
    return next((f"{name} is not among its files" for name in read if (folder / name).exists() and name not in recorded), None)


def raise_on_bundle_damage(folder: Path) -> None:
    """Raises WeightsError where a file of the bundle is not as it was saved; nothing for a folder that is no bundle.

    All its files are read, once in a process. A bundle of format 1 has no checksums.
    """
    if not (folder / "bundle.json").exists():
        return
    way_out = "copy the complete folder again, or delete the folder of its run and run the study again"
    try:
        content, sealed = read_json_object(folder / "bundle.json", WeightsError)
    except WeightsError as error:
        raise WeightsError(f"{error}; {way_out}") from None
    if not sealed and content.get("format") == UNSEALED_BUNDLE_FORMAT:
        if (folder / EXAMPLES_FOLDER).exists():  # a server sends them; without checksums they may be links to any file
            raise WeightsError(f"bundle {folder} is of format 1, which has no {EXAMPLES_FOLDER}/; {way_out}")
        return
    files = content.get("files")
    damage = (compare_files(folder, files) or _find_foreign_file(folder, files)) if sealed else "bundle.json has no checksum"
    if damage:
        raise WeightsError(f"bundle {folder} is damaged: {damage}; {way_out}")


def set_aside_damaged_bundle(folder: Path) -> None:
    """Renames a damaged bundle of a run to `bundle.damaged` and says so, so that it is made again."""
    if not folder.is_dir():
        return
    try:
        raise_on_bundle_damage(folder)
        if (folder / "bundle.json").is_file():
            return
        damage = f"bundle {folder} is damaged: it has no bundle.json"
    except WeightsError as error:
        damage = str(error).partition(";")[0]
    print_notice(f"{damage}: it was renamed to {set_aside(folder).name} and is made again")

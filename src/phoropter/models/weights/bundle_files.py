"""The files of a bundle, held against the checksums in its bundle.json (no torch). A damaged bundle is refused, never used."""

from __future__ import annotations

from pathlib import Path

from phoropter.core.errors import WeightsError
from phoropter.core.storage.checksums import compare_files, print_notice, set_aside
from phoropter.core.storage.sealed_json import read_json_object

BUNDLE_FORMAT = 2
UNSEALED_BUNDLE_FORMAT = 1  # of earlier versions, which wrote no checksums


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
        return
    if damage := compare_files(folder, content.get("files")) if sealed else "bundle.json has no checksum":
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

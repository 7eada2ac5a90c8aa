"""Compares every checksum below a folder: results folders, their runs, bundles and checkpoints, and the cache beside them.

Each check reads the file or folder as the study itself does before it uses it; nothing is changed. Left out, because they hold no
checksum: the report, thumbnails of the audit, lock files, and what is still being written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from phoropter.core.errors import PhoropterError, StoreError, cut_message
from phoropter.core.files import cache_dir
from phoropter.core.storage.npz_files import read_own_npz
from phoropter.core.storage.sealed_json import read_sealed_json
from phoropter.data.images.cache_entry import PixelCacheEntry
from phoropter.models.weights.bundle_files import raise_on_bundle_damage
from phoropter.results.record_shapes import FailureShape, read_record_file
from phoropter.results.store import Store
from phoropter.training.array_cache import BLOCKS_FILE, load_sound_array

CACHE_FOLDERS = ("pixels", "features", "teacher-logits", "signal-windows", "duplicates", "row-features", "inner-answers")
_SHOWN = ("maps", "treatments")  # folders of a results folder of which the report shows pictures
_UNCHECKED = (*_SHOWN, "report", "damaged", "locks", "audit", "imports")  # its folders that are not walked through
_RUN_NAME = "[0-9a-f]" * 32
_NO_STUDY = "it is missing beside its runs; run the same study with the same -o again, which writes it anew and keeps them"
_NO_BUNDLE = "it has no bundle.json; copy the complete folder again, or run the study again, which makes it again"
_MAX_WORDS = 200


@dataclass(frozen=True)
class CheckedItem:
    """kind: in one word · damage: what is wrong, in words; None where everything is as it was written"""

    kind: str
    path: Path
    damage: str | None


def verify_results(folder: Path) -> Iterator[CheckedItem]:
    """Checks everything below `folder` that has a checksum, and the caches of the results folders in it.

    folder: a results folder, a folder that holds several, a bundle, or a cache. Raises StoreError where nothing can be checked.
    """
    caches, found = {folder: None}, False
    for item in _walk_results(folder):
        found = True
        if item.kind == "study":
            caches[cache_dir(item.path.parent)] = None
        yield item
    for cache in caches:
        for item in verify_cache(cache):
            found = True
            yield item
    if not found:
        raise StoreError(f"{folder} holds no results folder, bundle or cache: name the folder given to `run -o`, or a bundle")


def _walk_results(folder: Path) -> Iterator[CheckedItem]:
    for place, folders, files in os.walk(folder):
        here = Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not name.endswith(".damaged"))
        if "study.json" in files or ("runs" in folders and any((here / "runs").glob(_RUN_NAME))):
            folders[:] = [name for name in folders if name not in _UNCHECKED]
            yield from _check_results_folder(here)
        if "bundle.json" in files:
            yield CheckedItem("bundle", here, _find_error(raise_on_bundle_damage, here))
        elif here.name == "bundle" and (
            any(name.endswith(".safetensors") for name in files) or (here.parent / "record.json").is_file()
        ):
            yield CheckedItem("bundle", here, _NO_BUNDLE)


def _check_results_folder(folder: Path) -> Iterator[CheckedItem]:
    """Its study.json, and every run folder, note of a failure, checkpoint and picture; runs of earlier plans too."""
    store = Store(folder)
    study = folder / "study.json"
    yield CheckedItem("study", study, _find_error(lambda: store.study) if study.is_file() else _NO_STUDY)
    for run in sorted((folder / "runs").glob("[0-9a-f]*/")):
        yield CheckedItem("run", run, _find_error(store.find_run_damage, run.name))
    for answers in sorted((folder / "shift").glob("[0-9a-f]*.npz")):
        yield CheckedItem("answers", answers, _find_error(read_own_npz, answers))
    for name in _SHOWN:
        for file in sorted((folder / name).glob("[!.]*")):  # macOS leaves .DS_Store and ._NAME
            if file.suffix == ".json":
                yield CheckedItem("shown", file, _find_json_damage(file))
            elif file.suffix == ".npz":
                yield CheckedItem("shown", file, _find_error(read_own_npz, file))
    for note in sorted((folder / "failed").glob("*.json")):
        yield CheckedItem("failure", note, _find_error(read_record_file, note, FailureShape, "the run is tried again"))
    if checkpoints := sorted((folder / "work").glob("*/checkpoint*.pt")):
        from phoropter.training.loop.checkpoint import find_checkpoint_damage

        for file in checkpoints:
            yield CheckedItem("checkpoint", file, find_checkpoint_damage(file))


def verify_cache(cache: Path) -> Iterator[CheckedItem]:
    """Checks every complete entry of a cache folder, and its small files; what is being written is left out."""
    for entry in sorted((cache / "pixels").glob("[0-9a-f]*/")):
        if not entry.suffix:
            yield CheckedItem("pixels", entry, PixelCacheEntry.find_damage_of(entry))
    for name in CACHE_FOLDERS[1:]:
        for place, folders, files in os.walk(cache / name):
            here = Path(place)
            folders[:] = sorted(f for f in folders if not f.startswith(".") and not f.endswith((".part", ".damaged")))
            if BLOCKS_FILE in files:
                yield CheckedItem(name, here, _find_array_damage(here))
            for file in sorted(here / f for f in files if not f.startswith(".")):
                if file.suffix == ".npz":
                    yield CheckedItem(name, file, _find_error(read_own_npz, file))
                elif file.suffix == ".json":
                    yield CheckedItem(name, file, _find_json_damage(file))
    if (cache / "speed.json").exists():
        yield CheckedItem("speed", cache / "speed.json", _find_json_damage(cache / "speed.json"))


def _find_array_damage(entry: Path) -> str | None:
    arrays = sorted(entry.glob("*.npy"))
    if not arrays:
        return "its array is missing"
    damaged = [file.name for file in arrays if load_sound_array(entry, file.name) is None]
    return f"{damaged[0]} does not have the checksums it was written with" if damaged else None


def _find_json_damage(file: Path) -> str | None:
    return _find_error(read_sealed_json, file, StoreError)


def _find_error(check: Callable[..., object], *arguments: object) -> str | None:
    """What a check of `arguments` returns in words, or raises; None where it finds nothing."""
    try:
        found = check(*arguments)
    except (PhoropterError, OSError, ValueError) as error:
        return cut_message(error, most=_MAX_WORDS)
    return found if isinstance(found, str) else None

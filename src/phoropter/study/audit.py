"""The leakage audit of a plan: every dataset of a study with all the splits it is used with, before anything is trained.

Findings are plain data in study.json under `audit`; thumbnails of the pairs lie in DIR/audit/pictures.npz, in the format of a
run's thumbnails. The search for near-duplicates depends on the pixels alone, or on a network's cached features, and is done once:

    CACHE/duplicates/DIGEST.npz    pairs, score, relation, skipped

Features exist once a frozen candidate has been trained, so a study is audited again by its features when its runs are done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.files import atomic_write, digest, file_lock
from phoropter.core.storage.npz_files import read_own_npz
from phoropter.data.dataset import Dataset
from phoropter.data.images.pixels import Pixels
from phoropter.data.leakage.audit import Finding, audit_splits, find_duplicates_in_pixels, raise_on_leak
from phoropter.data.leakage.checks import PriorFit
from phoropter.data.leakage.feature_duplicates import VERSION as FEATURE_VERSION
from phoropter.data.leakage.feature_duplicates import find_feature_duplicates
from phoropter.data.leakage.near_duplicates import VERSION, DuplicatePairs
from phoropter.data.splits.protocol import Split
from phoropter.data.unit_names import name_units
from phoropter.results.store import write_image_archive
from phoropter.study.load import ImageSet
from phoropter.study.plan import Plan, PlannedRun
from phoropter.study.records.thumbnails import encode_thumbnail
from phoropter.training.array_cache import load_sound_array, read_entry_info
from phoropter.training.trained_on import initial_bundles, rows_of_trained_groups

_KINDS_WITH_IMAGES = ("exact_duplicates", "near_duplicates", "feature_duplicates", "label_conflicts", "windows")

RowIndices = NDArray[np.int64]
OpenPixels = Callable[[ImageSet], Pixels]


def check_leakage(planned: Plan, cache: Path, open_pixels: OpenPixels | None = None, out: Path | None = None) -> list[Finding]:
    """Findings about the splits of a plan, the most severe first; a finding common to several datasets appears once.

    open_pixels: opens the stored pixels of an image set; without it, near-duplicates are not looked for
    out:         the results folder, which gets thumbnails of the pairs
    Raises LeakageError when a finding is a reason to stop and the study does not allow it (`leakage: warn` or `allow`).
    A negative control has none: its rows are those of a study that was audited, and blank pictures all alike.
    """
    study = planned.study
    if study.data.control is not None:
        return []
    findings: list[Finding] = []
    thumbnails: dict[str, bytes] = {}
    for image_set, splits in _group_splits_by_dataset(planned):
        pixels = open_pixels(image_set) if open_pixels else None
        own = audit_splits(
            image_set.dataset,
            splits,
            None if pixels is None else load_or_find_near_duplicates(pixels, cache),
            allow_group_overlap=study.protocol.allow_group_overlap,
            by_site=study.protocol.split in ("held-out-sites", "leave-one-site-out"),
            feature_pairs=None if pixels is None else load_or_find_feature_duplicates(pixels, cache),
            fitted=find_prior_fits(planned, image_set),
            words=name_units(image_set.data, image_set.dataset),
        )
        findings += [f for f in own if f not in findings]
        if out is not None and pixels is not None:
            thumbnails |= _encode_example_images(own, image_set, pixels)
    if study.leakage == "stop":
        raise_on_leak(findings)
    else:
        findings = [replace(f, severity="warn") if f.severity == "stop" else f for f in findings]
    if thumbnails and out is not None:
        with atomic_write(out / "audit" / "pictures.npz") as aside:  # several processes may write it
            write_image_archive(aside, thumbnails)
    return findings


def find_prior_fits(planned: Plan, image_set: ImageSet) -> list[PriorFit]:
    """Components fitted before a run's own training, and on which rows: initial weights, teachers, grey scales, the screening.

    Heads, class weights and under-sampling are fitted on a split's training rows alone and need no check: they are given no other
    rows (training/batches).
    """
    dataset = image_set.dataset
    runs = [r for r in planned.compared if r.image_set.dataset.fingerprint == dataset.fingerprint]
    fits = []
    if getattr(dataset.pictures, "pools_grey_scale", False):
        all_rows = np.arange(len(dataset), dtype=np.int64)
        fits.append(PriorFit("the grey scale of each subject", lambda split: all_rows, uses="pictures"))
    initial = {pair: run.candidate.name for run in runs for pair in initial_bundles(run.candidate, planned.study.base)}
    for (weights, folder), name in initial.items():
        rows = rows_of_trained_groups(folder, dataset)
        if len(rows):
            fits.append(PriorFit(f"what '{name}' begins with, {weights},", partial(_constant_rows, rows), group_level=True))
    if len(planned.study.context.screening_rungs) > 1:  # the finalists were chosen on inner folds of all splits' training rows
        probed = [r.split.train for r in runs if r.candidate.recipe.l2_penalties]
        rows = np.unique(np.concatenate([_NO_ROWS, *probed]))
        fits.append(PriorFit("the screening's choice of candidates", partial(_constant_rows, rows), uses="choice"))
    return fits + _find_needed_runs(planned, runs, dataset)


def _find_needed_runs(planned: Plan, runs: list[PlannedRun], dataset: Dataset) -> list[PriorFit]:
    """Teachers and members trained on another split than the run that needs them."""
    rows_by_name: dict[str, dict[str, list[RowIndices]]] = {}
    for run in runs:
        for other in (planned.by_key[key] for key in run.needs):
            if other.split is not run.split:
                rows = np.flatnonzero(np.isin(dataset.hashed_ids, other.image_set.dataset.hashed_ids[other.seen_rows]))
                rows_by_name.setdefault(other.candidate.name, {}).setdefault(run.split.name, []).append(rows)
    return [
        PriorFit(f"'{name}', which others begin with or learn from,", partial(_rows_of_split, rows))
        for name, rows in rows_by_name.items()
    ]


def _constant_rows(rows: RowIndices, split: Split) -> RowIndices:
    return rows


def _rows_of_split(rows: dict[str, list[RowIndices]], split: Split) -> RowIndices:
    return np.unique(np.concatenate(rows.get(split.name, [_NO_ROWS])))


_NO_ROWS: RowIndices = np.empty(0, dtype=np.int64)


def findings_to_plain(findings: list[Finding]) -> list[dict[str, Any]]:
    """Findings as study.json records them."""
    return [finding.plain() for finding in findings]


def load_or_find_near_duplicates(pixels: Pixels, cache: Path) -> DuplicatePairs:
    """Near-duplicate pairs of these pixels, from the cache where they have been searched for before."""
    file = cache / "duplicates" / f"{digest(['near-duplicates', VERSION, pixels.identity, list(pixels.shape)])}.npz"
    return (
        _load_or_search(file, lambda: find_duplicates_in_pixels(pixels)) if pixels.stored else find_duplicates_in_pixels(pixels)
    )


def _load_or_search(file: Path, search: Callable[[], DuplicatePairs]) -> DuplicatePairs:
    """The pairs stored in a file; where there is none, searches and stores them."""
    if known := _read_duplicates(file):
        return known
    with file_lock(file.with_suffix(".lock")):
        if known := _read_duplicates(file):
            return known
        pairs = search()
        skipped = np.array(pairs.skipped, dtype=np.str_)
        with atomic_write(file) as aside, aside.open("wb") as stream:
            np.savez(stream, pairs=pairs.pairs, score=pairs.score, relation=pairs.relation, skipped=skipped)
    return pairs


def load_or_find_feature_duplicates(pixels: Pixels, cache: Path) -> DuplicatePairs | None:
    """Pairs of images that are duplicates by a network's cached features; None where no features are cached.

    One pretrained network is enough: the first whose features lie in the cache. Those of a random one tell nothing.
    """
    if (known := find_cached_features(pixels, cache)) is None:
        return None
    folder, name = known
    features = load_sound_array(folder, "features.npy")
    if features is None:
        return None
    file = cache / "duplicates" / f"{digest(['feature-duplicates', FEATURE_VERSION, folder.name])}.npz"
    return _load_or_search(file, lambda: find_feature_duplicates(features, name))


def count_datasets_with_features(planned: Plan, cache: Path, open_pixels: OpenPixels) -> int:
    """Number of a plan's datasets of which a trained network's features are in the cache."""
    image_sets = (image_set for image_set, _ in _group_splits_by_dataset(planned))
    return sum(find_cached_features(open_pixels(image_set), cache) is not None for image_set in image_sets)


def find_cached_features(pixels: Pixels, cache: Path) -> tuple[Path, str] | None:
    """Folder of a pretrained network's cached and sound features of these images, and the network's name."""
    for file in sorted((cache / "features").glob("*/about.json")):
        about = read_entry_info(file.parent)
        if about is None or about.pixels != pixels.identity or about.weights == "random":
            continue
        if load_sound_array(file.parent, "features.npy") is not None:
            return file.parent, about.backbone
    return None


def _read_duplicates(file: Path) -> DuplicatePairs | None:
    try:
        stored = read_own_npz(file)
        skipped = tuple(str(words) for words in stored["skipped"])
        return DuplicatePairs(stored["pairs"], stored["score"], stored["relation"], skipped)
    except (OSError, ValueError, KeyError):
        return None  # absent, or damaged by the CRC of its entries: it is searched again


def _group_splits_by_dataset(planned: Plan) -> list[tuple[ImageSet, list[Split]]]:
    """Each dataset with its distinct splits; image sets that differ in size alone count once, as their splits are equal."""
    image_sets: dict[str, ImageSet] = {}
    splits: dict[str, dict[str, Split]] = {}
    for run in planned.compared:
        name = run.image_set.dataset.fingerprint
        image_sets.setdefault(name, run.image_set)
        splits.setdefault(name, {}).setdefault(run.split.name, run.split)
    return [(image_set, list(splits[name].values())) for name, image_set in image_sets.items()]


def _encode_example_images(findings: list[Finding], image_set: ImageSet, pixels: Pixels) -> dict[str, bytes]:
    """Sample id → JPEG of the images named in the examples of findings about images."""
    row_of = {str(name): row for row, name in enumerate(image_set.dataset.ids)}
    shown = [f for f in findings if f.kind in _KINDS_WITH_IMAGES]
    names = dict.fromkeys(name for f in shown for example in f.examples for name in example[:2])
    return {name: encode_thumbnail(pixels.batch(np.array([row_of[name]], dtype=np.int64))[0]) for name in names}

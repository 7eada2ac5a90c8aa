"""The leakage audit of a plan: every dataset of a study with all the splits it is used with, before anything is trained.

What is found is plain data in study.json under `audit`; small pictures of the pairs lie in DIR/audit/pictures.npz, in the form of
a run's pictures. Near-identical pairs depend on the pixels alone, or on a network's stored features, and are searched for once:

    CACHE/likeness/DIGEST.npz      pairs, score, view, said

Features are there once a frozen candidate has been trained, so a first study is audited again when it ends.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.files import atomic_write, digest, file_lock
from phoropter.data.images.pixels import Pixels
from phoropter.data.leakage.audit import Finding, audit_splits, find_duplicates_in_pixels, raise_on_leak
from phoropter.data.leakage.checks import PriorFit
from phoropter.data.leakage.feature_duplicates import VERSION as NEIGHBOURS
from phoropter.data.leakage.feature_duplicates import find_feature_duplicates
from phoropter.data.leakage.near_duplicates import VERSION, DuplicatePairs
from phoropter.data.splits.protocol import Split
from phoropter.results.store import read_bounded_json
from phoropter.study.plan import ImageSet, Plan
from phoropter.training.trained_on import initial_bundles, rows_of_trained_groups

THUMBNAIL_SIZE = 112  # the largest side of the pictures kept of pairs
_KINDS_WITH_IMAGES = ("identical pictures", "near-identical pictures", "alike by features", "labels", "windows")

RowIndices = NDArray[np.int64]
PixelsLookup = Callable[[ImageSet], Pixels | None]


def check_leakage(planned: Plan, pixels_of: PixelsLookup, cache: Path, out: Path | None = None) -> list[Finding]:
    """What the splits of a plan let through, the gravest first; of several datasets each once.

    pixels_of: the stored pixels of a material, or None: then near-identical pictures are not looked for
    out:       the results folder, which gets small pictures of the pairs
    Raises LeakageError when there is reason to stop and the study does not say `leakage: warn` or `allow`.
    """
    study = planned.question.study
    found: list[Finding] = []
    pictures: dict[str, bytes] = {}
    for material, splits in _group_splits_by_dataset(planned):
        pixels = pixels_of(material)
        mine = audit_splits(
            material.dataset,
            splits,
            pixels,
            allow_group_overlap=study.protocol.allow_group_overlap,
            by_site=study.protocol.split == "sites",
            likeness=None if pixels is None else load_or_find_near_duplicates(pixels, cache),
            neighbours=None if pixels is None else load_or_find_feature_duplicates(pixels, cache),
            fitted=find_prior_fits(planned, material),
        )
        found += [f for f in mine if f not in found]
        if out is not None and pixels is not None:
            pictures |= _encode_example_images(mine, material, pixels)
    if study.leakage == "stop":
        raise_on_leak(found)
    else:
        found = [replace(f, severity="warn") if f.severity == "stop" else f for f in found]
    if pictures and out is not None:
        _write_image_archive(out / "audit" / "pictures.npz", pictures)
    return found


def find_prior_fits(planned: Plan, material: ImageSet) -> list[PriorFit]:
    """What the runs on a dataset begin with or are helped by that was fitted on rows, and which.

    Heads, class weights and under-sampling are fitted on a split's own training rows alone and need no look: the rows they are
    given end there (training/batches.py).
    """
    dataset, mine = material.dataset, [r for r in planned.runs if r.image_set.dataset.fingerprint == material.dataset.fingerprint]
    found = []
    if material.data.per_subject:
        everyone = np.arange(len(dataset), dtype=np.int64)
        found.append(PriorFit("the grey scale of each subject", lambda split: everyone, uses="pictures"))
    begun = {pair: run.candidate.name for run in mine for pair in initial_bundles(run.candidate, planned.question.base)}
    for (weights, folder), name in begun.items():
        rows = rows_of_trained_groups(folder, dataset)
        if len(rows):
            found.append(PriorFit(f"what '{name}' begins with, {weights},", partial(_constant_rows, rows), group_level=True))
    if len(planned.question.screening_rungs) > 1:  # who climbs a ladder was chosen on inner folds of all splits' training rows
        probes = [r.split.train for r in mine if r.candidate.recipe.l2_penalties]
        looked = np.unique(np.concatenate([_NO_ROWS, *probes]))
        found.append(PriorFit("the choice of what the ladder tries in full", partial(_constant_rows, looked), uses="choice"))
    helpers: dict[str, dict[str, list[RowIndices]]] = {}
    for run in mine:
        for other in (planned.by_key[key] for key in run.needs):
            if other.split is not run.split:
                rows = np.flatnonzero(np.isin(dataset.hashed_ids, other.image_set.dataset.hashed_ids[other.seen_rows]))
                helpers.setdefault(other.candidate.name, {}).setdefault(run.split.name, []).append(rows)
    found += [
        PriorFit(f"'{name}', which others begin with or learn from,", partial(_rows_of_split, by)) for name, by in helpers.items()
    ]
    return found


def _constant_rows(rows: RowIndices, split: Split) -> RowIndices:
    return rows


def _rows_of_split(rows: dict[str, list[RowIndices]], split: Split) -> RowIndices:
    return np.unique(np.concatenate(rows.get(split.name, [_NO_ROWS])))


_NO_ROWS: RowIndices = np.empty(0, dtype=np.int64)


def findings_to_plain(findings: list[Finding]) -> list[dict[str, Any]]:
    """For study.json."""
    return [finding.plain() for finding in findings]


def load_or_find_near_duplicates(pixels: Pixels, cache: Path) -> DuplicatePairs:
    """The near-identical pairs of these pixels, from the cache where they have been looked for before."""
    file = cache / "likeness" / f"{digest(['likeness', VERSION, pixels.identity, list(pixels.shape)])}.npz"
    return (
        _load_or_search(file, lambda: find_duplicates_in_pixels(pixels)) if pixels.stored else find_duplicates_in_pixels(pixels)
    )


def _load_or_search(file: Path, look: Callable[[], DuplicatePairs]) -> DuplicatePairs:
    """What lies in a file; looked for and kept there where it does not."""
    if known := _read_duplicates(file):
        return known
    with file_lock(file.with_suffix(".lock")):
        if known := _read_duplicates(file):
            return known
        found = look()
        with atomic_write(file) as aside, aside.open("wb") as stream:
            np.savez(
                stream, pairs=found.pairs, score=found.score, view=found.relation, said=np.array(found.skipped, dtype=np.str_)
            )
    return found


def load_or_find_feature_duplicates(pixels: Pixels, cache: Path) -> DuplicatePairs | None:
    """The pairs that a network takes for one picture, by the features that lie in the cache; None where there are none.

    The first trained network by name is asked: one pair of eyes is enough, and a network drawn at random has none.
    """
    if (known := find_cached_features(pixels, cache)) is None:
        return None
    folder, name = known
    file = cache / "likeness" / f"{digest(['neighbours', NEIGHBOURS, folder.name])}.npz"
    return _load_or_search(
        file, lambda: find_feature_duplicates(np.load(folder / "features.npy", mmap_mode="r", allow_pickle=False), name)
    )


def count_datasets_with_features(planned: Plan, pixels_of: PixelsLookup, cache: Path) -> int:
    """How many of a plan's datasets have a network's features in the cache."""
    every = (pixels_of(material) for material, _ in _group_splits_by_dataset(planned))
    return sum(pixels is not None and find_cached_features(pixels, cache) is not None for pixels in every)


def find_cached_features(pixels: Pixels, cache: Path) -> tuple[Path, str] | None:
    """The folder of a trained network's features of these pictures, and its name."""
    there = []
    for file in sorted((cache / "features").glob("*/about.json")):
        about = read_bounded_json(file)
        if about["pixels"] == pixels.identity and about["weights"] != "random":
            there.append((str(about["backbone"]), file.parent))
    return min((folder, name) for name, folder in there) if there else None


def _read_duplicates(file: Path) -> DuplicatePairs | None:
    try:
        with np.load(file, allow_pickle=False) as there:
            return DuplicatePairs(there["pairs"], there["score"], there["view"], tuple(str(words) for words in there["said"]))
    except (OSError, ValueError, KeyError, EOFError):
        return None


def _group_splits_by_dataset(planned: Plan) -> list[tuple[ImageSet, list[Split]]]:
    """Each dataset with the splits it is used with, each once; sizes of one dataset are one, for their splits are the same."""
    materials: dict[str, ImageSet] = {}
    splits: dict[str, dict[str, Split]] = {}
    for run in planned.runs:
        name = run.image_set.dataset.fingerprint
        materials.setdefault(name, run.image_set)
        splits.setdefault(name, {}).setdefault(run.split.name, run.split)
    return [(material, list(splits[name].values())) for name, material in materials.items()]


def _encode_example_images(findings: list[Finding], material: ImageSet, pixels: Pixels) -> dict[str, bytes]:
    """Sample id → JPEG of the pictures in the examples."""
    from PIL import Image

    place = {str(name): row for row, name in enumerate(material.dataset.ids)}
    shown = [f for f in findings if f.kind in _KINDS_WITH_IMAGES]
    names = dict.fromkeys(name for f in shown for example in f.examples for name in example[:2])
    made: dict[str, bytes] = {}
    for name in names:
        picture = pixels.batch(np.array([place[name]], dtype=np.int64))[0]
        image = Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))
        image.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=85)
        made[name] = buffer.getvalue()
    return made


def _write_image_archive(file: Path, jpegs: dict[str, bytes]) -> None:
    """As a run's pictures.npz (results/store.py), whole or not at all: several processes may write it."""
    with atomic_write(file) as aside, aside.open("wb") as stream:
        np.savez(
            stream,
            id=np.array(list(jpegs), dtype=np.str_),
            length=np.array([len(jpeg) for jpeg in jpegs.values()], dtype=np.int64),
            jpeg=np.frombuffer(b"".join(jpegs.values()), dtype=np.uint8),
        )

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

from phoropter.core.files import digest, lock, writing
from phoropter.data.crossings import Fitting
from phoropter.data.leakage import Finding, audit, likeness_of, refuse
from phoropter.data.likeness import VERSION, Likeness
from phoropter.data.neighbours import VERSION as NEIGHBOURS
from phoropter.data.neighbours import neighbours
from phoropter.data.pixels import Pixels
from phoropter.data.protocols import Split
from phoropter.results.store import read_json
from phoropter.study.plan import Material, Plan
from phoropter.training.lineage import bundles, groups_met

PICTURE = 112  # the largest side of the pictures kept of pairs
_SHOWN = ("identical pictures", "near-identical pictures", "alike by features", "labels", "windows")

Rows = NDArray[np.int64]
PixelsOf = Callable[[Material], Pixels | None]


def check_leakage(planned: Plan, pixels_of: PixelsOf, cache: Path, out: Path | None = None) -> list[Finding]:
    """What the splits of a plan let through, the gravest first; of several datasets each once.

    pixels_of: the stored pixels of a material, or None: then near-identical pictures are not looked for
    out:       the results folder, which gets small pictures of the pairs
    Raises LeakageError when there is reason to stop and the study does not say `leakage: warn` or `allow`.
    """
    study = planned.question.study
    found: list[Finding] = []
    pictures: dict[str, bytes] = {}
    for material, splits in _audited(planned):
        pixels = pixels_of(material)
        mine = audit(
            material.dataset,
            splits,
            pixels,
            allow_group_overlap=study.protocol.allow_group_overlap,
            by_site=study.protocol.split == "sites",
            likeness=None if pixels is None else remembered_likeness(pixels, cache),
            neighbours=None if pixels is None else remembered_neighbours(pixels, cache),
            fitted=fitted_beforehand(planned, material),
        )
        found += [f for f in mine if f not in found]
        if out is not None and pixels is not None:
            pictures |= _pictures(mine, material, pixels)
    if study.leakage == "stop":
        refuse(found)
    else:
        found = [replace(f, severity="warn") if f.severity == "stop" else f for f in found]
    if pictures and out is not None:
        _write_pictures(out / "audit" / "pictures.npz", pictures)
    return found


def fitted_beforehand(planned: Plan, material: Material) -> list[Fitting]:
    """What the runs on a dataset begin with or are helped by that was fitted on rows, and which.

    Heads, class weights and under-sampling are fitted on a split's own training rows alone and need no look: the rows they are
    given end there (training/batches.py).
    """
    dataset, mine = material.dataset, [r for r in planned.runs if r.material.dataset.fingerprint == material.dataset.fingerprint]
    found = []
    if material.data.per_subject:
        everyone = np.arange(len(dataset), dtype=np.int64)
        found.append(Fitting("the grey scale of each subject", lambda split: everyone, by="pictures"))
    begun = {pair: run.candidate.name for run in mine for pair in bundles(run.candidate, planned.question.base)}
    for (weights, folder), name in begun.items():
        rows = groups_met(folder, dataset)
        if len(rows):
            found.append(Fitting(f"what '{name}' begins with, {weights},", partial(_always, rows), groups=True))
    if len(planned.question.rungs) > 1:  # who climbs a ladder was chosen on inner folds of all splits' training rows
        probes = [r.split.train for r in mine if r.candidate.recipe.penalties]
        looked = np.unique(np.concatenate([_NO_ROWS, *probes]))
        found.append(Fitting("the choice of what the ladder tries in full", partial(_always, looked), by="choice"))
    helpers: dict[str, dict[str, list[Rows]]] = {}
    for run in mine:
        for other in (planned.by_key[key] for key in run.needs):
            if other.split is not run.split:
                rows = np.flatnonzero(np.isin(dataset.hashes, other.material.dataset.hashes[other.learned]))
                helpers.setdefault(other.candidate.name, {}).setdefault(run.split.name, []).append(rows)
    found += [Fitting(f"'{name}', which others begin with or learn from,", partial(_of, by)) for name, by in helpers.items()]
    return found


def _always(rows: Rows, split: Split) -> Rows:
    return rows


def _of(rows: dict[str, list[Rows]], split: Split) -> Rows:
    return np.unique(np.concatenate(rows.get(split.name, [_NO_ROWS])))


_NO_ROWS: Rows = np.empty(0, dtype=np.int64)


def plain(findings: list[Finding]) -> list[dict[str, Any]]:
    """For study.json."""
    return [finding.plain() for finding in findings]


def remembered_likeness(pixels: Pixels, cache: Path) -> Likeness:
    """The near-identical pairs of these pixels, from the cache where they have been looked for before."""
    file = cache / "likeness" / f"{digest(['likeness', VERSION, pixels.identity, list(pixels.shape)])}.npz"
    return _found(file, lambda: likeness_of(pixels)) if pixels.stored else likeness_of(pixels)


def _found(file: Path, look: Callable[[], Likeness]) -> Likeness:
    """What lies in a file; looked for and kept there where it does not."""
    if known := _read(file):
        return known
    with lock(file.with_suffix(".lock")):
        if known := _read(file):
            return known
        found = look()
        with writing(file) as aside, aside.open("wb") as stream:
            np.savez(stream, pairs=found.pairs, score=found.score, view=found.view, said=np.array(found.said, dtype=np.str_))
    return found


def remembered_neighbours(pixels: Pixels, cache: Path) -> Likeness | None:
    """The pairs that a network takes for one picture, by the features that lie in the cache; None where there are none.

    The first trained network by name is asked: one pair of eyes is enough, and a network drawn at random has none.
    """
    if (known := features_of(pixels, cache)) is None:
        return None
    folder, name = known
    file = cache / "likeness" / f"{digest(['neighbours', NEIGHBOURS, folder.name])}.npz"
    return _found(file, lambda: neighbours(np.load(folder / "features.npy", mmap_mode="r", allow_pickle=False), name))


def compared_by_features(planned: Plan, pixels_of: PixelsOf, cache: Path) -> int:
    """How many of a plan's datasets have a network's features in the cache."""
    every = (pixels_of(material) for material, _ in _audited(planned))
    return sum(pixels is not None and features_of(pixels, cache) is not None for pixels in every)


def features_of(pixels: Pixels, cache: Path) -> tuple[Path, str] | None:
    """The folder of a trained network's features of these pictures, and its name."""
    there = []
    for file in sorted((cache / "features").glob("*/about.json")):
        about = read_json(file)
        if about["pixels"] == pixels.identity and about["weights"] != "random":
            there.append((str(about["backbone"]), file.parent))
    return min((folder, name) for name, folder in there) if there else None


def _read(file: Path) -> Likeness | None:
    try:
        with np.load(file, allow_pickle=False) as there:
            return Likeness(there["pairs"], there["score"], there["view"], tuple(str(words) for words in there["said"]))
    except (OSError, ValueError, KeyError, EOFError):
        return None


def _audited(planned: Plan) -> list[tuple[Material, list[Split]]]:
    """Each dataset with the splits it is used with, each once; sizes of one dataset are one, for their splits are the same."""
    materials: dict[str, Material] = {}
    splits: dict[str, dict[str, Split]] = {}
    for run in planned.runs:
        name = run.material.dataset.fingerprint
        materials.setdefault(name, run.material)
        splits.setdefault(name, {}).setdefault(run.split.name, run.split)
    return [(material, list(splits[name].values())) for name, material in materials.items()]


def _pictures(findings: list[Finding], material: Material, pixels: Pixels) -> dict[str, bytes]:
    """Sample id → JPEG of the pictures in the examples."""
    from PIL import Image

    place = {str(name): row for row, name in enumerate(material.dataset.ids)}
    shown = [f for f in findings if f.kind in _SHOWN]
    names = dict.fromkeys(name for f in shown for example in f.examples for name in example[:2])
    made: dict[str, bytes] = {}
    for name in names:
        picture = pixels.batch(np.array([place[name]], dtype=np.int64))[0]
        image = Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))
        image.thumbnail((PICTURE, PICTURE))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=85)
        made[name] = buffer.getvalue()
    return made


def _write_pictures(file: Path, jpegs: dict[str, bytes]) -> None:
    """As a run's pictures.npz (results/store.py), whole or not at all: several processes may write it."""
    with writing(file) as aside, aside.open("wb") as stream:
        np.savez(
            stream,
            id=np.array(list(jpegs), dtype=np.str_),
            length=np.array([len(jpeg) for jpeg in jpegs.values()], dtype=np.int64),
            jpeg=np.frombuffer(b"".join(jpegs.values()), dtype=np.uint8),
        )

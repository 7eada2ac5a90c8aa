"""The leakage audit of a plan: every dataset of a study with all the splits it is used with, before anything is trained.

What is found is plain data in study.json under `audit`; small pictures of the pairs lie in DIR/audit/pictures.npz, in the form of
a run's pictures. Near-identical pairs depend on the pixels alone and are searched for once:

    CACHE/likeness/DIGEST.npz      pairs, score, view, said
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from phoropter.core.files import digest, lock, writing
from phoropter.data.leakage import Finding, audit, likeness_of, refuse
from phoropter.data.likeness import VERSION, Likeness
from phoropter.data.pixels import Pixels
from phoropter.data.protocols import Split
from phoropter.study.plan import Material, Plan

PICTURE = 112  # the largest side of the pictures kept of pairs

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


def plain(findings: list[Finding]) -> list[dict[str, Any]]:
    """For study.json."""
    return [finding.plain() for finding in findings]


def remembered_likeness(pixels: Pixels, cache: Path) -> Likeness:
    """The near-identical pairs of these pixels, from the cache where they have been looked for before."""
    file = cache / "likeness" / f"{digest(['likeness', VERSION, pixels.identity, list(pixels.shape)])}.npz"
    if known := _read(file):
        return known
    with lock(file.with_suffix(".lock")):
        if known := _read(file):
            return known
        found = likeness_of(pixels)
        if pixels.stored:
            with writing(file) as aside, aside.open("wb") as stream:
                np.savez(stream, pairs=found.pairs, score=found.score, view=found.view, said=np.array(found.said, dtype=np.str_))
    return found


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
    shown = [f for f in findings if f.kind in ("identical pictures", "near-identical pictures", "labels", "windows")]
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

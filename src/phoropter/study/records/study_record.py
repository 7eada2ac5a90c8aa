"""study.json: the study, its dataset, its plan, the extensions it uses, and the machine and versions behind the numbers."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phoropter.core.cpu_count import count_usable_cores, read_processor_name
from phoropter.data.dataset import Dataset, count_classes
from phoropter.data.positive_class import find_positive
from phoropter.data.shift.shifted_rows import resolve_corruptions
from phoropter.data.unit_names import name_units
from phoropter.results.exclusions import ExclusionStep, make_step
from phoropter.study.plan import Plan
from phoropter.study.records.learning_curve_record import describe_learning_curve
from phoropter.study.records.other_study import study_to_plain


def describe_study(planned: Plan, device: torch.device) -> dict[str, Any]:
    """The content of study.json, but for the audit."""
    study, image_set = planned.study, planned.image_sets[0]
    dataset, context = image_set.dataset, study.context
    used = find_used_rows(planned)
    contrasts = planned.contrasts + planned.exploratory
    return {
        "name": study.name,
        "study": study_to_plain(study),
        "text": context.text,
        "scale": list(context.smoke_changes) or None,
        "dataset": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "rows": len(dataset),
            "classes": list(dataset.classes),
            "counts": count_classes(dataset.labels[used], len(dataset.classes)).tolist(),
            **({"task": "multi-label"} if dataset.is_multi_label else {}),
            "positive": find_positive(dataset, image_set.data.positive),
            "groups": dataset.n_groups,
            "sites": None if dataset.sites is None else np.unique(dataset.sites).tolist(),
            **dict(zip(("group_word", "site_word"), (w.written for w in name_units(image_set.data, dataset)), strict=True)),
            "size": image_set.image_size,
            "notes": list(dataset.notes),
            "problems": [str(p) for p in dataset.problems],
            "exclusions": [step.plain() for step in list_exclusions(dataset, used)],
        },
        "plan": [run.to_plan_row() for run in planned.compared],
        **({"side_plan": [run.to_plan_row() for run in side]} if (side := planned.side_runs) else {}),
        **describe_learning_curve(planned),
        **({"contrasts": [c.to_plain() for c in contrasts]} if contrasts else {}),
        **_describe_shift(planned),
        **({"screening": list(context.screening_rungs)} if context.screening_rungs else {}),
        "versions": collect_versions(),
        "machine": describe_machine(device),
        "command": shlex.join(Path(a).name if i == 0 else a for i, a in enumerate(sys.argv)),
    }


def _describe_shift(planned: Plan) -> dict[str, Any]:
    """The corruptions that are asked for, of all image sets: dropouts may depend on a swept length of windows."""
    if (spec := planned.study.shift) is None:
        return {}
    found = {c.key: asdict(c) for images in planned.image_sets for c in resolve_corruptions(spec, images.dataset)}
    return {"shift": list(found.values())}


def find_used_rows(planned: Plan) -> NDArray[np.bool_]:
    """(N,) whether a row of the first dataset is in a part of some split: those of no official part or fold are not."""
    image_set = planned.image_sets[0]
    used, labelled = np.zeros(len(image_set.dataset), bool), image_set.dataset.labelled
    for split in {id(run.split): run.split for run in planned.compared if run.image_set is image_set}.values():
        for rows in (split.train, split.test, split.val, split.external):
            used[[] if rows is None else rows] = True
        if used[labelled].all():
            break
    return used


def list_exclusions(dataset: Dataset, used: NDArray[np.bool_]) -> tuple[ExclusionStep, ...]:
    """The steps from the source to the rows that are used; none where all that was found is. used: (N,), of labelled rows"""
    steps = dataset.exclusions
    before = steps[-1].kept if steps else len(dataset)
    lost = {
        "left out by the data object": max(0, before - len(dataset)),
        "without a label": int((~dataset.labelled).sum()),
        "in no part of any split": int((dataset.labelled & ~used).sum()),
    }
    if not any(lost.values()):
        return steps
    groups = None if dataset.groups is None else len(np.unique(dataset.groups[used]))
    return (*steps, make_step(dataset.row_unit, int(used.sum()), lost, groups))


def find_relative_base(base: Path | None, folder: Path) -> dict[str, str]:
    """For study.json, `base`: the folder that relative paths of the study start from, as seen from its results folder.

    By it refit finds the data again. Empty where there is no such path (another drive of Windows).
    """
    try:
        return {"base": Path(os.path.relpath(base or Path(), folder)).as_posix()}
    except ValueError:
        return {}


def read_base(content: Mapping[str, Any], folder: Path) -> Path | None:
    """The folder that relative paths of the study in a results folder start from; None where study.json has none.

    content: of study.json
    """
    base = content.get("base")
    return (folder / str(base)).resolve() if base else None


def collect_versions() -> dict[str, str]:
    """Versions of Python and of the packages the numbers depend on."""
    return dict(_read_versions())


@cache  # every record holds them, and reading them takes longer than many a run
def _read_versions() -> dict[str, str]:
    packages = ("phoropter", "torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn", "pillow")
    return {"python": platform.python_version(), **{p: metadata.version(p) for p in packages}}


def describe_machine(device: torch.device) -> dict[str, Any]:
    """The machine a run is computed on."""
    import psutil

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "processor": read_processor_name(),
        "cores": count_usable_cores(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "device": name,
        "system": f"{platform.system()} {platform.machine()}",
    }

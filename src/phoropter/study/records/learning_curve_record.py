"""What study.json says of a learning curve: what its shares are of, and how much each of them is. No torch here."""

from __future__ import annotations

from typing import Any

import numpy as np

from phoropter.study.plan import Plan, PlannedRun
from phoropter.study.variants.shares import resolve_share_unit


def describe_learning_curve(planned: Plan) -> dict[str, Any]:
    """`learning_curve` of study.json: `of`, and share → mean rows and groups that a split trains on; empty without a curve.

    Rows of the validation part count as trained on; groups are None where rows have none.
    """
    name = next((run.candidate.name for run in planned.side_runs if run.role == "learning-curve"), None)
    runs = [run for run in planned.runs if run.candidate.name == name and run.role != "trial"]
    if not runs:
        return {}
    sizes = {f"{share:g}": _measure_sizes([r for r in runs if r.share == share]) for share in sorted({r.share for r in runs})}
    of = resolve_share_unit(planned.study, runs[0].image_set.dataset, [run.split for run in runs if run.share == 1])
    return {"learning_curve": {"of": of, "sizes": sizes}}


def _measure_sizes(runs: list[PlannedRun]) -> list[float | None]:
    rows, groups = [], []
    for run in runs:
        split, names = run.split, run.image_set.dataset.groups
        trained = split.train if split.val is None else np.concatenate([split.train, split.val])
        rows.append(len(trained))
        groups += [] if names is None else [len(np.unique(names[trained]))]
    return [float(np.mean(rows)), float(np.mean(groups)) if groups else None]

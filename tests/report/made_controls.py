"""A made study with made negative controls: permuted labels that leak, a site that is told, blank pictures at guessing."""

from __future__ import annotations

from pathlib import Path

from made_study import Made, make_study

from phoropter.results.control_folder import CONTROLS_FOLDER
from phoropter.results.store import Store

KINDS = ("labels-permuted", "predict-site", "blank-pictures", "time-shuffled", "predict-group")
CLASSES = ("a", "b", "c", "d")
SKILLS = {"labels-permuted": 0.6, "predict-site": 0.9, "blank-pictures": 0.12, "time-shuffled": 0.5}


def make_controlled_study(folder: Path) -> Store:
    """The study and its first four controls; predict-group was not run, and of time-shuffled two runs are missing."""
    keys = {"controls": {"kinds": list(KINDS)}, "metrics": ["accuracy"]}
    made = Made({"net": 0.9, "other": 0.7}, CLASSES, rows=300, groups=30, sites=("x", "y"), seeds=(0,), folds=3, pictures=0)
    store = make_study(folder, Made(**{**vars(made), "study_keys": keys}))
    for kind, accuracy in SKILLS.items():
        classes = ("x", "y") if kind == "predict-site" else CLASSES
        missing = 2 if kind == "time-shuffled" else 0
        changes = {"accuracies": {"net": accuracy}, "classes": classes, "name": kind, "missing": missing, "sites": ()}
        make_study(folder / CONTROLS_FOLDER / kind, Made(**{**vars(made), **changes}))
    return store

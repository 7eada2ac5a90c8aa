"""The negative controls by name, and what is fixed for all of them."""

from __future__ import annotations

from typing import Literal

ControlName = Literal["labels-permuted", "predict-site", "predict-group", "blank-pictures", "time-shuffled"]

CONTROL_FOLDS = 5  # of predict-site and predict-group, at most
MAX_GROUPS = 50  # told apart by predict-group; of more, so many are drawn by their names
NEW_PICTURES: tuple[ControlName, ...] = ("blank-pictures", "time-shuffled")  # which are not those of the study
SHORTCUTS: tuple[ControlName, ...] = ("predict-site", "predict-group")  # whose classes are not those of the study

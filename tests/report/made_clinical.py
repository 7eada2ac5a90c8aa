"""A study of births with several windows each, reported, and its numbers computed again from the files in plain lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from made_study import Made

BIRTHS = Made(
    accuracies={"resnet18": 0.8, "vit_tiny": 0.7},
    classes=("acidosis", "healthy"),
    rows=400,
    groups=60,
    one_class=True,
    seeds=(0, 1),
    folds=4,
    spans=True,
    pictures=0,
    metrics=("roc_auc", "average_precision"),
    positive="acidosis",
    study_keys={"clinical": {"prevalence": 0.02, "false_alarms": 0.2}},
    unit_words={"group_word": "birth/births"},
    sites=("north", "south", "east"),
    name="births",
)


def read_births(folder: Path, candidate: str, level: str = "group", rule: str = "mean") -> dict[str, np.ndarray[Any, Any]]:
    """truth (1: acidosis), p, name, unit, seed, fold of each answer of a candidate at a level, from the stored logits."""
    found: dict[str, list[Any]] = {key: [] for key in ("truth", "p", "name", "unit", "seed", "fold")}
    for item in json.loads((folder / "study.json").read_text())["plan"]:
        if item["candidate"] != candidate:
            continue
        with np.load(folder / "runs" / item["key"] / "predictions.npz") as file:
            z = file["logits"].astype(np.float64)
            p = 1 / (1 + np.exp(z[:, 1] - z[:, 0]))  # of the first class, which is acidosis
            owner = file["group"] if level == "group" else file["id"]
            for name in np.unique(owner):
                mine = owner == name
                votes = (p[mine] > 0.5).mean()
                votes += 1e-9 * np.sign(p[mine].mean() - 0.5) if votes == 0.5 else 0  # of a tie, the higher mean is ahead
                value = {"mean": p[mine].mean(), "vote": votes, "max": p[mine].max()}[rule]
                found["truth"].append(int(file["label"][mine][0] == 0))
                found["p"].append(value)
                found["name"].append(name)
                found["unit"].append(file["group"][mine][0])
                found["seed"].append(item["seed"])
                found["fold"].append(item["fold"])
    return {key: np.array(values) for key, values in found.items()}


def alarm_births(answers: dict[str, np.ndarray[Any, Any]], specificity: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which answers are alarms, each fold by the threshold of the other folds of its seed."""
    alarms = np.zeros(len(answers["p"]), dtype=bool)
    for seed in np.unique(answers["seed"]):
        for fold in np.unique(answers["fold"]):
            tested = (answers["seed"] == seed) & (answers["fold"] == fold)
            others = (answers["seed"] == seed) & (answers["fold"] != fold)
            healthy = answers["p"][others & (answers["truth"] == 0)]
            fits = [t for t in np.unique(answers["p"][others]) if (healthy >= t).mean() <= 1 - specificity + 1e-12]
            alarms[tested] = answers["p"][tested] >= min(fits)
    return alarms

"""Sites no model was trained on: the single models, their average, and the average on each site, beside the internal figure."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from made_reports import report
from made_study import Made
from sklearn.metrics import roc_auc_score

HOSPITALS = Made(
    accuracies={"one": 0.8, "other": 0.7},
    classes=("normal", "high-risk"),
    rows=160,
    sites=("north", "south"),
    seeds=(0, 1),
    folds=3,
    external=90,
    pictures=0,
    epochs=1,
    metrics=("roc_auc",),
    split="held-out-sites",
)


def test_every_number_of_the_external_test_is_recomputed_from_predictions(tmp_path: Path) -> None:
    made = report(tmp_path / "out", HOSPITALS)
    with (made.page.parent / "tables" / "external-test.csv").open(newline="", encoding="utf-8") as file:
        header, *lines = list(csv.reader(file))
    header = [word.replace("\u00a0", " ") for word in header]
    said = {line[0]: dict(zip(header, line, strict=True)) for line in lines}
    plan = json.loads((made.folder / "study.json").read_text())["plan"]
    assert set(said) == {"one", "other"}
    for name, row in said.items():
        inside, outside = [], []
        for item in plan:
            if item["candidate"] == name:
                for part, into in (("predictions", inside), ("external", outside)):
                    with np.load(made.folder / "runs" / item["key"] / f"{part}.npz") as kept:
                        into.append(dict(kept))
        score = [np.exp(p["logits"][:, 1]) / np.exp(p["logits"]).sum(1) for p in outside]
        together, labels, sites = np.mean(score, axis=0), outside[0]["label"], outside[0]["site"]
        singles = [roc_auc_score(labels, s) for s in score]
        insides = [roc_auc_score(p["label"], p["logits"][:, 1] - p["logits"][:, 0]) for p in inside]
        numbers = {
            "ROC-AUC, held out mean": np.mean(insides),
            "ROC-AUC, held out std": np.std(insides, ddof=1),
            "External sites, single models mean": np.mean(singles),
            "External sites, single models std": np.std(singles, ddof=1),
            "External sites, ensemble": roc_auc_score(labels, together),
            **{site: roc_auc_score(labels[sites == site], together[sites == site]) for site in ("north", "south")},
        }
        for column, expected in numbers.items():
            assert abs(float(row[column]) - expected) < 1e-9, (name, column)
        assert float(row["95 % interval low"]) < numbers["External sites, ensemble"] < float(row["95 % interval high"])

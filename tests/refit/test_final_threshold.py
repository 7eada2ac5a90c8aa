"""The threshold of a bundle: from all held-out predictions, at the level that `predict` can form, after the temperature."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from phoropter.refit.evidence import choose_final_threshold
from phoropter.report.summary.collect import collect_summary
from phoropter.results.positive_class import open_results
from phoropter.results.store import Predictions, Store


def make_births(folder: Path, spans: bool, positive: str | None, **study: Any) -> None:
    """30 births with 4 windows each in 3 folds; the class that is looked for is the first."""
    store, draw = Store(folder), np.random.default_rng(4)
    ill = np.arange(30) % 3 == 0
    plan = [{"key": f"{fold}" * 32, "candidate": "net", "fold": fold, "n_test": 40, "n_train": 80} for fold in range(3)]
    dataset = {"name": "births", "classes": ["ill", "well"], "counts": [40, 80], "rows": 120, "groups": 30, "positive": positive}
    content = {"name": "births", "study": {"name": "births", **study}, "dataset": dataset, "plan": plan}
    store.write_study({**content, "versions": {}, "machine": {}})
    for fold, item in enumerate(plan):
        births = np.repeat(np.flatnonzero(np.arange(30) // 10 == fold), 4)
        z = draw.normal(size=40) + 1.5 * ill[births]
        logits = np.stack([z, -z], axis=1).astype(np.float32)
        names = np.array([f"b{b}" for b in births])
        ids = np.array([f"{fold}-{i}" for i in range(40)])
        found = Predictions(ids, 1 - ill[births].astype(np.int64), logits, names, None, np.zeros((40, 2)) if spans else None)
        split = {"repeat": 0, "fold": fold, "folds": 3, "n_train": 80, "n_test": 40}
        with store.hold_lease(str(item["key"])), store.create_run(str(item["key"])) as run:
            run.write_predictions(found)
            run.write_history([])
            record = {"candidate": {"name": "net"}, "seed": 0, "split": split, "recipe": {}, "classes": ["ill", "well"]}
            run.write_record({**record, "metrics": {}, "cost": {}, "digests": {}})


def choose(folder: Path, temperature: float = 1.0) -> dict[str, Any]:
    store = open_results(folder)
    summary = collect_summary(store)
    study: Any = SimpleNamespace(store=store, summary=summary)
    return choose_final_threshold(study, summary.candidates[0], temperature)


def read_scores(folder: Path, temperature: float, by_birth: bool) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    truth, scores = [], []
    for fold in range(3):
        with np.load(folder / "runs" / (f"{fold}" * 32) / "predictions.npz") as file:
            z = file["logits"].astype(float) / temperature
            p = 1 / (1 + np.exp(z[:, 1] - z[:, 0]))
            owners = file["group"] if by_birth else file["id"]
            for name in np.unique(owners):
                truth.append(file["label"][owners == name][0] == 0)
                scores.append(p[owners == name].mean())
    return np.array(truth), np.array(scores)


@pytest.mark.parametrize(("spans", "level"), [(True, "group"), (False, "row")])  # pictures come to `predict` without births
def test_it_is_that_of_the_roc_curve_of_all_answers(tmp_path: Path, spans: bool, level: str) -> None:
    make_births(tmp_path, spans, "ill", clinical={"false_alarms": 0.2})
    found = choose(tmp_path, 1.7)
    truth, scores = read_scores(tmp_path, 1.7, by_birth=spans)
    false, _, thresholds = roc_curve(truth, scores, drop_intermediate=False)
    assert found["threshold"] == pytest.approx(thresholds[false <= 0.2][-1], rel=1e-6)
    assert (found["threshold_level"], found["threshold_rows"]) == (level, 30 if spans else 120)
    assert (found["positive_class"], found["threshold_goal"], found["aggregation"]) == ("ill", "80 % specificity", "mean")


def test_a_study_that_names_no_class_has_no_threshold(tmp_path: Path) -> None:
    make_births(tmp_path, True, None, aggregate="vote")
    assert choose(tmp_path) == {"aggregation": "vote", "positive_class": "well"}

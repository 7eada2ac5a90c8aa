"""A results folder read with the positive class last: every column is exchanged, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from phoropter.results.metrics.registry import compute_metrics
from phoropter.results.positive_class import open_results
from phoropter.results.store import Predictions, Store

KEY = "0" * 32


def make_folder(folder: Path, classes: list[str], positive: str | None) -> Predictions:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, len(classes), 60)
    logits = draw.normal(size=(60, len(classes))).astype(np.float32) + np.eye(len(classes), dtype=np.float32)[labels]
    made = Predictions(np.array([f"r{i}" for i in range(60)]), labels, logits)
    store = Store(folder)
    dataset = {"classes": classes, "counts": [10, 20, 30][: len(classes)], "positive": positive}
    plan = [{"key": KEY, "candidate": "a"}]
    store.write_study({"name": "s", "study": {}, "dataset": dataset, "plan": plan, "versions": {}, "machine": {}})
    record = {"candidate": {"name": "a"}, "seed": 0, "split": {}, "recipe": {}, "classes": classes}
    with store.hold_lease(KEY), store.create_run(KEY) as run:
        run.write_predictions(made)
        run.write_record({**record, "metrics": {}, "cost": {}, "digests": {}})
    return made


@pytest.mark.parametrize(("stated", "exchanged"), [("ill", True), ("well", False), (None, False)])
def test_metrics_are_those_of_the_stated_class(tmp_path: Path, stated: str | None, exchanged: bool) -> None:
    made = make_folder(tmp_path, ["ill", "well"], stated)
    store = open_results(tmp_path)
    run = next(iter(store.runs()))
    found = run.load_predictions()
    assert found is not None and run.find_damage() is None
    column = 0 if exchanged else 1
    assert run.record["classes"] == (["well", "ill"] if exchanged else ["ill", "well"])
    assert store.study["dataset"]["counts"] == ([20, 10] if exchanged else [10, 20])
    values = compute_metrics(("average_precision", "roc_auc", "accuracy"), found.labels, found.probabilities)
    truth, score = made.labels == column, made.probabilities[:, column]
    assert values["average_precision"] == pytest.approx(average_precision_score(truth, score))
    assert values["roc_auc"] == pytest.approx(roc_auc_score(truth, score))
    assert values["accuracy"] == pytest.approx((made.logits.argmax(1) == made.labels).mean())


def test_another_reader_may_name_the_class(tmp_path: Path) -> None:
    make_folder(tmp_path, ["ill", "well"], "well")
    run = next(iter(open_results(tmp_path, "ill").runs()))
    assert run.record["classes"] == ["well", "ill"] and Store(tmp_path).run(KEY).record["classes"] == ["ill", "well"]


def test_more_classes_keep_their_order(tmp_path: Path) -> None:
    made = make_folder(tmp_path, ["ill", "well", "dead"], "ill")
    found = next(iter(open_results(tmp_path).runs())).load_predictions()
    assert found is not None and (found.logits == made.logits).all()


def test_classes_are_read_in_a_stated_order(tmp_path: Path) -> None:
    made = make_folder(tmp_path, ["ill", "well", "dead"], None)
    store = open_results(tmp_path, classes=["dead", "ill", "well"])
    run = next(iter(store.runs()))
    found = run.load_predictions()
    assert found is not None and run.record["classes"] == ["dead", "ill", "well"]
    assert store.study["dataset"]["classes"] == ["dead", "ill", "well"] and store.study["dataset"]["counts"] == [30, 10, 20]
    names = np.array(["ill", "well", "dead"])
    assert (np.array(["dead", "ill", "well"])[found.labels] == names[made.labels]).all()
    for place, name in enumerate(("dead", "ill", "well")):
        assert (found.logits[:, place] == made.logits[:, list(names).index(name)]).all()


def test_a_stated_order_of_other_classes_changes_nothing(tmp_path: Path) -> None:
    make_folder(tmp_path, ["ill", "well"], None)
    assert open_results(tmp_path, classes=["well", "dead"]).study["dataset"]["classes"] == ["ill", "well"]

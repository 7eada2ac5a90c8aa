"""Inputs that runs share: a file is parsed once for all runs of its candidate, and each gets the fold of its own split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from phoropter.data.images.cache import prepare_pixels
from phoropter.study.inputs import table_inputs
from phoropter.study.inputs.table_inputs import TableInputs
from phoropter.study.plan import Plan, plan_study
from phoropter.study.spec import read_study
from phoropter.training.tables.prediction_file import read_fold_predictions

STUDY = """\
name: tables
data: {digits: true, size: 16, max_samples: 60}
protocol: {split: stratified-k-fold, folds: 3, repeats: 2, seeds: [0]}
candidates:
  - {predictions: theirs.csv, name: theirs}
  - {baseline: mean-image}
"""


@pytest.fixture
def planned(tmp_path: Path) -> Plan:
    """Predictions whose first class has the number of the fold as its logit."""
    (tmp_path / "study.yaml").write_text(STUDY)
    study = read_study(tmp_path / "study.yaml")[0]
    plan = plan_study(study.with_changes(candidates=study.candidates[1:]))
    classes = plan.image_sets[0].dataset.classes
    lines = ["id,repeat,fold," + ",".join(f"logit_{c}" for c in classes)]
    for number, split in enumerate(plan.splits):
        names = plan.image_sets[0].dataset.ids[split.test]
        lines += [f"{name},{split.repeat},{split.fold},{number}{',0' * (len(classes) - 1)}" for name in names]
    (tmp_path / "theirs.csv").write_text("\n".join(lines) + "\n")
    return plan_study(study)


def test_each_run_gets_its_fold_of_a_file_that_is_matched_once(planned: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    read = read_fold_predictions

    def count_calls(table, dataset, splits, base):  # type: ignore[no-untyped-def]
        calls.append(len(splits))
        return read(table, dataset, splits, base)

    monkeypatch.setattr(table_inputs, "read_fold_predictions", count_calls)
    inputs = TableInputs(planned, Path(), lambda event: None)
    runs = [run for run in planned.runs if run.candidate.name == "theirs"]
    for number, run in enumerate(runs):
        fold = inputs.load_fold(run)
        np.testing.assert_array_equal(np.sort(fold.rows), np.sort(run.split.test))
        assert (fold.logits[:, 0] == number).all()
    assert len(runs) == 6 and calls == [6]


def test_features_are_computed_once_and_nobody_may_change_them(
    planned: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = next(run for run in planned.runs if run.candidate.name == "mean-image")
    dataset, cache = run.image_set.dataset, tmp_path / "cache"
    _, pixels = prepare_pixels(dataset, 16, resize="center-crop", interpolation="bicubic", cache=cache)
    inputs = TableInputs(planned, cache, lambda event: None)
    features = inputs.load_features(run, pixels)
    monkeypatch.setattr(table_inputs, "compute_row_features", None)
    assert inputs.load_features(run, pixels) is features and len(features.values) == len(dataset)
    with pytest.raises(ValueError, match="read-only"):
        features.values[0] = 0

"""Figures of negative controls against a few lines of NumPy, and what of them is better than guessing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_controls import KINDS, make_controlled_study
from made_study import Made, make_study

from phoropter.report.summary.collect import collect_summary
from phoropter.report.summary.controls.control_results import ControlResult, collect_controls
from phoropter.results.control_folder import CONTROLS_FOLDER
from phoropter.results.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_controlled_study(tmp_path_factory.mktemp("controlled") / "out")


@pytest.fixture(scope="module")
def found(store: Store) -> dict[str, ControlResult]:
    return {control.kind: control for control in collect_controls(store, collect_summary(store))}


def test_figures_are_those_of_the_controls_own_predictions(store: Store, found: dict[str, ControlResult]) -> None:
    for kind in ("labels-permuted", "predict-site", "blank-pictures"):
        runs = [run.load_predictions() for run in Store(store.folder / CONTROLS_FOLDER / kind).runs()]
        right = np.concatenate([p.logits.argmax(1) == p.labels for p in runs if p is not None])
        labels = np.concatenate([p.labels for p in runs if p is not None])
        result = found[kind]
        assert result.metric is not None and result.metric.name == "accuracy" and result.interval is not None
        assert result.interval.estimate == pytest.approx(right.mean(), abs=0.01)  # folds of unequal size
        assert result.interval.low < right.mean() < result.interval.high
        assert result.guessing == pytest.approx(np.bincount(labels).max() / len(labels), abs=0.03)
        assert (result.n_classes, result.n_runs, result.candidate) == (len(np.unique(labels)), 3, "net")


def test_what_is_better_than_guessing_is_above(found: dict[str, ControlResult]) -> None:
    assert list(found) == list(KINDS)
    assert found["labels-permuted"].is_above and found["predict-site"].is_above and not found["blank-pictures"].is_above


def test_the_studys_own_value_stands_beside_the_same_question(store: Store, found: dict[str, ControlResult]) -> None:
    net = next(c for c in collect_summary(store).candidates if c.name == "net")
    assert found["labels-permuted"].own_value == net.values["accuracy"]
    assert found["predict-site"].own_value is None


def test_what_is_missing_is_said(found: dict[str, ControlResult]) -> None:
    assert (
        found["predict-group"].problem == "it has not been run: run the study again" and found["predict-group"].interval is None
    )
    assert (found["time-shuffled"].problem, found["time-shuffled"].n_runs) == ("runs are missing", 1)


def test_a_member_does_not_stand_for_the_candidate_that_is_controlled(tmp_path: Path) -> None:
    """The candidate is planned last; its member, which is better, is listed first."""
    keys = {"controls": {"kinds": ["blank-pictures"]}, "metrics": ["accuracy"]}
    made = Made({"member": 0.9, "net": 0.5}, ("a", "b"), rows=60, groups=30, seeds=(0,), folds=3, pictures=0, study_keys=keys)
    study = make_study(tmp_path / "out", made)
    make_study(tmp_path / "out" / CONTROLS_FOLDER / "blank-pictures", replace(made, missing=2))
    (control,) = collect_controls(study, collect_summary(study))
    assert (control.candidate, control.problem) == ("net", "runs are missing")


def test_a_study_without_controls_has_none(store: Store, tmp_path: Path) -> None:
    control = Store(store.folder / CONTROLS_FOLDER / "predict-site")
    assert collect_controls(control, collect_summary(control)) == ()

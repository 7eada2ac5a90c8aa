"""From a results folder to the summary: what is kept, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_study import Made, make_study
from sklearn.metrics import roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from phoropter.core.errors import StoreError
from phoropter.core.files import digest_array
from phoropter.report.sections.candidates.leaderboard import leaderboard_table
from phoropter.report.sections.candidates.sweeps import draw_sweep, sweep_table
from phoropter.report.summary.candidate_reader import FEWER_RESAMPLES, MANY_UNITS, SharedBootstrap
from phoropter.report.summary.collect import collect_summary
from phoropter.report.summary.column_cache import ColumnCache
from phoropter.report.summary.curves import compute_roc_curves, fit_temperature_scaling
from phoropter.results.stats.held_out_rows import HeldOutRows
from phoropter.results.store import Store

TWO = Made(
    accuracies={"a": 0.9, "b": 0.7}, classes=("x", "y"), rows=80, folds=2, seeds=(0, 1), pictures=0, epochs=2, validation=30
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_study(tmp_path_factory.mktemp("two"), TWO)


def test_the_first_metric_of_the_study_ranks(tmp_path: Path) -> None:
    summary = collect_summary(make_study(tmp_path, replace(TWO, metrics=("roc_auc", "accuracy"))))
    assert summary.metrics[:2] == ("roc_auc", "accuracy")
    assert [e.metric_mean("roc_auc") for e in summary.candidates] == sorted(
        (e.metric_mean("roc_auc") for e in summary.candidates), reverse=True
    )
    assert summary.candidates[0].replicates is not None
    assert summary.candidates[0].replicates.estimate == pytest.approx(summary.candidates[0].metric_mean("roc_auc"))


def test_runs_on_the_same_rows_have_equal_digests(store: Store) -> None:
    a, b = collect_summary(store).candidates
    assert [line.test_rows_digest for line in a.runs] == [line.test_rows_digest for line in b.runs]
    assert len({line.test_rows_digest for line in a.runs}) == 4


def test_a_roc_curve_passes_through_counted_rates(store: Store) -> None:
    summary = collect_summary(store)
    curves = compute_roc_curves(store, summary.candidates[0], summary.estimands["roc_auc"])
    said = store.run(summary.candidates[0].runs[0].key).load_predictions()
    assert said is not None and curves.shape == (4, 101)
    scores = said.probabilities[:, 1]
    for place in (5, 20, 70):
        alarms = place / 100
        negatives = np.sort(scores[said.labels == 0])[::-1]
        below, above = int(np.floor(alarms * len(negatives))), int(np.ceil(alarms * len(negatives)))
        least = np.mean(scores[said.labels == 1] > (negatives[below - 1] if below else 1.0))
        most = np.mean(scores[said.labels == 1] >= (negatives[above] if above < len(negatives) else 0.0))
        assert least - 1e-9 <= curves[0, place] <= most + 1e-9


def test_temperature_scaling_needs_validation_rows(store: Store) -> None:
    summary = collect_summary(store)
    found = fit_temperature_scaling(store, summary.candidates[0])
    assert found is not None and 0.01 <= found.temperature <= 100 and 0 <= found.calibration.debiased < 0.5
    assert found.positive is not None and found.positive.bins[:, 0].sum() == 160
    (store.run(summary.candidates[1].runs[2].key).folder / "validation.npz").unlink()
    assert fit_temperature_scaling(store, summary.candidates[1]) is None


def test_the_column_cache_computes_each_column_once() -> None:
    known = ColumnCache()
    first, again = np.array(["b", "a", "b"]), np.array(["b", "a", "b"])
    assert known.number_units(first).tolist() == [0, 1, 0] and known.number_units(again) is known.number_units(first)
    assert known.number_units(np.array(["c", "a"])).tolist() == [2, 1] and known.seen == {"b": 0, "a": 1, "c": 2}
    names, member = known.find_unique(first)
    assert names == ["a", "b"] and member.tolist() == [1, 0, 1]
    assert known.digest(first) == digest_array(first) == known.digest(again) != known.digest(first[:2])


def test_resamples_are_shared_by_candidates_on_the_same_rows_and_are_those_of_the_estimand(store: Store) -> None:
    summary, shared = collect_summary(store), SharedBootstrap()
    a, b = (HeldOutRows.from_runs(store.run(line.key) for line in c.runs) for c in summary.candidates)
    fewer = HeldOutRows.from_runs([store.run(summary.candidates[0].runs[0].key)])
    estimand = summary.estimands["accuracy"]
    first = shared.find_or_make(estimand, a, len(a.units))
    assert shared.find_or_make(estimand, b, len(b.units)) is first
    other = shared.find_or_make(estimand, fewer, len(fewer.units))
    for found, rows in ((first, b), (other, fewer)):
        plain = estimand.make_bootstrap(rows).compute_replicates("accuracy", rows.probabilities)
        np.testing.assert_array_equal(found.compute_replicates("accuracy", rows.probabilities).values, plain.values)
    many = SharedBootstrap().find_or_make(estimand, a, MANY_UNITS + 1).compute_replicates("accuracy", a.probabilities)
    assert len(many.values) == FEWER_RESAMPLES


def test_an_unreadable_predictions_file_is_named(tmp_path: Path) -> None:
    store = make_study(tmp_path, TWO)
    folder = next(store.runs()).folder
    (folder / "predictions.npz").write_bytes(b"nothing")
    with pytest.raises(StoreError, match=folder.name):
        collect_summary(store)


def test_a_missing_predictions_file_is_named(tmp_path: Path) -> None:
    store = make_study(tmp_path, TWO)
    folder = next(store.runs()).folder
    (folder / "predictions.npz").unlink()
    with pytest.raises(StoreError, match="is missing or has not 2 classes"):
        collect_summary(store)


def test_a_candidate_without_runs_is_missing_from_the_candidates(tmp_path: Path) -> None:
    made = replace(TWO, folds=1, seeds=(0,), missing=1)
    summary = collect_summary(make_study(tmp_path, made))
    assert [e.name for e in summary.candidates] == ["a"] and summary.missing_candidates == ["b"]


def test_a_metric_that_some_splits_cannot_carry_is_pooled_and_has_no_spread(tmp_path: Path) -> None:
    store = make_study(tmp_path, replace(TWO, rows=12, folds=6, seeds=(0,)))
    summary = collect_summary(store)
    first = summary.candidates[0]
    assert np.isnan(first.metric_values("roc_auc")).any(), "with two rows a fold some folds have one class"
    said = [p for r in store.runs() if r.candidate_name == first.name and (p := r.load_predictions()) is not None]
    area = roc_auc_score(np.concatenate([p.labels for p in said]), np.concatenate([p.probabilities[:, 1] for p in said]))
    assert summary.estimands["roc_auc"].kind == "pooled" and first.metric_mean("roc_auc") == pytest.approx(area)
    assert np.isnan(first.spreads["roc_auc"]) and first.within_splits["roc_auc"][1:] == (0, 6)


def test_settings_of_a_sweep_become_curves(tmp_path: Path) -> None:
    names = {f"net · lowpass {k}": 0.7 + k / 100 for k in (0, 10, 20)}
    made = replace(TWO, accuracies=names, settings={n: {"data.lowpass": int(n.split()[-1])} for n in names}, validation=0)
    store = make_study(tmp_path, made)
    summary = collect_summary(store)
    assert {e.base_name for e in summary.candidates} == {"net"}
    drawing = draw_sweep(summary, "data.lowpass")
    means = {e.settings["data.lowpass"]: e.metric_mean("accuracy") for e in summary.candidates}
    assert f"net from {means[0] * 100:.1f} % to {means[20] * 100:.1f} %" in drawing.alt_text
    assert "against lowpass" in drawing.caption
    table = sweep_table(summary, "data.lowpass")
    assert [row.values[1] for row in table.rows] == ["0", "10", "20"]
    assert [row.values[2].mean for row in table.rows] == pytest.approx(list(dict(sorted(means.items())).values()))


def test_the_leaderboard_ends_with_the_majority_class_baseline(tmp_path: Path) -> None:
    summary = collect_summary(make_study(tmp_path, replace(TWO, rows=81, folds=1, seeds=(0,), classes=("x", "y", "z"))))
    board = leaderboard_table(summary)
    assert board.rows[-1].role == "baseline" and board.rows[-1].values[1].mean == pytest.approx(27 / 81)


def test_two_groups_have_no_interval_and_the_page_says_so(tmp_path: Path) -> None:
    summary = collect_summary(make_study(tmp_path, replace(TWO, groups=2, folds=2)))
    board = leaderboard_table(summary)
    assert "Interval: no interval: 2 independent units, at least 3 are needed." in board.note
    assert all(np.isnan(row.values[2]).all() for row in board.rows[:-1])


def test_one_test_set_of_independent_rows_has_wilsons_interval(tmp_path: Path) -> None:
    summary = collect_summary(make_study(tmp_path, replace(TWO, folds=1, seeds=(0,))))
    board, n = leaderboard_table(summary), summary.n_units
    assert f"Interval: Wilson's interval of {n} independent rows." in board.note
    for row, candidate in zip(board.rows, summary.candidates, strict=False):
        right = round(candidate.metric_mean("accuracy") * n)
        assert row.values[2] == pytest.approx(proportion_confint(right, n, method="wilson"))

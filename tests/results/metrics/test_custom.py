"""Metrics of the user's own: values, resamples and influences equal those of the built-in metric they imitate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score, log_loss

from phoropter.core.errors import DataError, SpecError
from phoropter.core.extensions import Extension, trust_code
from phoropter.results.intervals import bootstrap
from phoropter.results.intervals.bootstrap import Bootstrap, UnitRows
from phoropter.results.metrics import custom, registry
from phoropter.results.metrics.custom import Metric, make_stored_record
from phoropter.results.metrics.probabilities import softmax
from phoropter.results.metrics.sufficient_sums import LabelledProbabilities
from phoropter.results.stats.compare import CandidateScores, Design, compare_pair
from phoropter.results.stats.permutation import unit_swap_test
from phoropter.results.store import Predictions


def accuracy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    return float((probabilities.argmax(axis=1) == labels).mean())


def macro_f1(labels: np.ndarray, probabilities: np.ndarray) -> float:
    return float(f1_score(labels, probabilities.argmax(axis=1), average="macro", zero_division=0))


def mean_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    return float(-np.log(probabilities[np.arange(len(labels)), labels]).mean())


ACCURACY = Metric("my-accuracy", compute=accuracy, range=(0, 1), percent=True)
MACRO_F1 = Metric("my-f1", compute=macro_f1, range=(0, 1))
LOSS = Metric("my-loss", compute=mean_loss, greater_is_better=False, range=(0, np.inf), mean_over_rows=True)


@pytest.fixture(autouse=True)
def only_built_in_metrics() -> Iterator[None]:
    yield
    for name in set(registry.METRICS) - set(registry._BUILT_IN):
        registry.METRICS.pop(name)
        registry._REGISTERED.pop(name, None)


def some_rows(rows: int = 120, classes: int = 3, groups: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, rows)
    probabilities = softmax(random.normal(size=(rows, classes)) + np.eye(classes)[labels])
    return labels, probabilities, np.array([f"g{i % groups:02d}" for i in range(rows)])


def test_values_are_those_of_the_function() -> None:
    labels, p, _ = some_rows()
    found = registry.compute_metrics(["accuracy", ACCURACY, MACRO_F1, LOSS], labels, p)
    assert found["my-accuracy"] == found["accuracy"] and list(found) == ["accuracy", "my-accuracy", "my-f1", "my-loss"]
    assert found["my-f1"] == macro_f1(labels, p)
    assert found["my-loss"] == pytest.approx(log_loss(labels, p))


@pytest.mark.parametrize(("mine", "built_in"), [(ACCURACY, "accuracy"), (LOSS, "log_loss")])
def test_exact_resamples_are_those_of_the_built_in_metric(mine: Metric, built_in: str) -> None:
    """Same draws, so the same replicates."""
    labels, p, groups = some_rows()
    draws = Bootstrap(labels, groups, resamples=60)
    registry.register_metric(mine)
    one, two = draws.compute_replicates(mine.name, p), draws.compute_replicates(built_in, p)
    assert one.method == two.method == "bootstrap of 20 units"
    np.testing.assert_allclose(one.values, two.values, rtol=1e-12)


def test_resamples_of_any_function_are_its_values_on_the_rows_drawn() -> None:
    labels, p, groups = some_rows()
    draws = Bootstrap(labels, groups, resamples=25)
    registry.register_metric(MACRO_F1)
    values = draws.compute_replicates("my-f1", p).values
    units = np.unique(groups, return_inverse=True)[1]
    times = np.concatenate(list(draws.draws.weight_blocks("simple", 25)), axis=1).astype(int)
    for column, value in zip(times.T, values, strict=True):
        rows = np.repeat(np.arange(len(labels)), column[units])
        assert value == pytest.approx(macro_f1(labels[rows], p[rows]), abs=1e-12)


@pytest.mark.parametrize(("mine", "built_in"), [(ACCURACY, "accuracy"), (LOSS, "log_loss")])
def test_influences_over_splits_are_those_of_the_built_in_metric(mine: Metric, built_in: str) -> None:
    """Units of unequal size, so that the jackknife of a mean differs from its derivative only by being centred."""
    labels, p, _ = some_rows()
    groups = np.array([f"g{min(i // 3, i % 20):02d}" for i in range(120)])
    splits = np.arange(120) % 4
    registry.register_metric(mine)
    (one, slopes), (two, expected) = (UnitRows(labels, groups, splits).compute_influences(m, p) for m in (mine.name, built_in))
    assert one == pytest.approx(two)
    np.testing.assert_allclose(slopes, expected, atol=2e-3)
    assert np.corrcoef(slopes, expected)[0, 1] > 0.999


def test_influences_of_rows_are_the_derivatives() -> None:
    labels, p, _ = some_rows()
    registry.register_metric(ACCURACY)
    _, slopes = UnitRows(labels).compute_influences("my-accuracy", p)
    _, expected = UnitRows(labels).compute_influences("accuracy", p)
    np.testing.assert_allclose(slopes, expected, atol=1e-9)


def test_influences_of_a_nonlinear_metric_are_near_its_derivatives() -> None:
    labels, p, groups = some_rows(600, groups=60)
    registry.register_metric(MACRO_F1)
    (_, slopes), (_, expected) = (UnitRows(labels, groups).compute_influences(m, p) for m in ("my-f1", "macro_f1"))
    assert np.square(slopes).sum() == pytest.approx(np.square(expected).sum(), rel=0.05)
    assert np.corrcoef(slopes, expected)[0, 1] > 0.99


def test_many_units_are_left_out_in_blocks_that_keep_the_variance(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(labels: np.ndarray, probabilities: np.ndarray) -> float:
        calls.append(len(labels))
        return accuracy(labels, probabilities)

    labels, p, _ = some_rows(3000)
    registry.register_metric(Metric("counted", compute=counted))
    monkeypatch.setattr(custom, "MAX_DELETIONS", 300)
    _, slopes = UnitRows(labels).compute_influences("counted", p)
    _, expected = UnitRows(labels).compute_influences("accuracy", p)
    assert len(calls) < 310
    assert np.square(slopes).sum() == pytest.approx(np.square(expected).sum(), rel=0.25)


def test_above_the_limit_of_rows_nothing_is_resampled(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, p, groups = some_rows()
    monkeypatch.setattr(custom, "MAX_EXACT_ROWS", 100)
    registry.register_metric(Metric("many", compute=accuracy))
    assert Bootstrap(labels, groups).compute_replicates("many", p).method == "first-order bootstrap of 20 units"


def test_a_resample_on_which_the_function_fails_is_undefined() -> None:
    def needs_both(labels: np.ndarray, probabilities: np.ndarray) -> float:
        if len(np.unique(labels)) < 2:
            raise ValueError("only one class")
        return accuracy(labels, probabilities)

    labels, p = np.array([0, 0, 0, 1]), np.tile([0.6, 0.4], (4, 1))
    registry.register_metric(Metric("both", compute=needs_both))
    values = Bootstrap(labels, resamples=200).compute_replicates("both", p).values
    assert 0 < np.isnan(values).mean() < 0.5
    _, slopes = UnitRows(labels).compute_influences("both", p)
    assert np.isnan(slopes).any()
    with pytest.raises(DataError, match="the metric 'both' failed on 3 rows: ValueError: only one class"):
        registry.compute_metrics(["both"], labels[:3], p[:3])


def test_pairs_are_compared_as_by_the_built_in_metric() -> None:
    labels, p, groups = some_rows(200, classes=2)
    q = softmax(np.log(p) + np.random.default_rng(1).normal(size=p.shape))
    ids = np.array([f"r{i:03d}" for i in range(200)])
    each = [Predictions(ids, labels, np.log(x).astype(np.float32), groups) for x in (p, q)]
    registry.register_metric(ACCURACY)
    sides = [
        CandidateScores(name, {("t", 0): accuracy(labels, x.probabilities)}, {("t", 0): x})
        for name, x in zip("ab", each, strict=True)
    ]
    design = Design("one test set")
    mine, theirs = (compare_pair(*sides, name, design) for name in ("my-accuracy", "accuracy"))
    assert repr(replace(mine, metric="")) == repr(replace(theirs, metric=""))  # NaN is in it
    assert mine.rows.result.test == "unit-swap permutation"
    one, two = (unit_swap_test(name, labels, p, q, groups) for name in ("my-accuracy", "accuracy"))
    assert (one.difference, one.p) == (pytest.approx(two.difference), two.p)


def test_a_metric_whose_better_values_are_lower_is_read_that_way() -> None:
    registry.register_metric(LOSS)
    values = {(f"fold{i}", 0): 0.5 + 0.01 * i for i in range(6)}
    worse = {key: value + 0.3 + 0.001 * i for i, (key, value) in enumerate(values.items())}
    found = compare_pair(CandidateScores("a", values), CandidateScores("b", worse), "my-loss", Design("folds", 0.2))
    assert found.verdict == "ahead"


@pytest.mark.parametrize(
    ("compute", "options", "message"),
    [
        (lambda y, p: "many", {}, "failed on 120 rows: ValueError"),
        (lambda y, p: 1 / 0, {}, "failed on 120 rows: ZeroDivisionError"),
        (lambda y, p: 1.5, {"range": (0, 1)}, "is 1.5, outside its range 0 to 1"),
        (macro_f1, {"mean_over_rows": True}, "the mean over its rows is .*: set mean_over_rows=False"),
    ],
)
def test_mistakes_of_the_function_are_named(compute: Any, options: dict[str, Any], message: str) -> None:
    labels, p, _ = some_rows()
    metric = registry.register_metric(Metric("bad", compute=compute, **options))
    with pytest.raises(DataError, match=f"the metric 'bad' .*{message}"):
        metric.compute_sums(LabelledProbabilities(labels, p))
        metric.compute_value(LabelledProbabilities(labels, p))
    with pytest.raises(DataError, match="the metric 'bad'"):
        registry.check_metrics(["accuracy", Metric("bad", compute=compute, **options)], 3)


def test_what_cannot_be_a_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a function"):
        Metric("none", compute=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="smallest, largest"):
        Metric("none", compute=accuracy, range=(1, 0))
    with pytest.raises(SpecError, match="'accuracy' is a metric of phoropter: give yours another name"):
        registry.register_metric(Metric("accuracy", compute=accuracy))


def test_chance_is_a_number_or_a_function_of_the_labels() -> None:
    labels = np.array([0, 0, 1])
    assert Metric("half", compute=accuracy, value_without_information=0.5).to_record().chance_value(labels) == 0.5
    commonest = Metric("most", compute=accuracy, value_without_information=lambda y: np.bincount(y).max() / len(y))
    assert commonest.to_record().chance_value(labels) == pytest.approx(2 / 3)
    assert ACCURACY.to_record().chance_value(labels) is None


def test_a_stored_metric_is_itself_where_its_code_is_unchanged() -> None:
    described = ACCURACY.describe()
    registry.register_metric(ACCURACY)
    assert not registry.register_stored_metric(described).unavailable
    changed = Metric("my-accuracy", compute=macro_f1, range=(0, 1), percent=True)
    registry.register_metric(changed)
    assert registry.register_stored_metric(described).unavailable.endswith("has changed since the runs")


def test_a_stored_metric_without_code_shows_and_does_not_compute() -> None:
    record = registry.register_stored_metric(LOSS.describe())
    assert (record.title, record.higher_is_better, record.value_range) == ("my-loss", False, (0.0, np.inf))
    assert record.unavailable == "the code of the metric 'my-loss' (version 1) is not at hand"
    labels, p, _ = some_rows()
    assert np.isnan(registry.compute_metrics(["my-loss"], labels, p)["my-loss"])
    assert make_stored_record(LOSS.describe(), "gone").undefined_reason(LabelledProbabilities(labels, p)) == "gone"


def test_a_stored_metric_is_imported_where_code_is_trusted(tmp_path: Path) -> None:
    source = "import phoropter as ph\nMINE = ph.Metric('theirs', compute=lambda y, p: float((p.argmax(1) == y).mean()))\n"
    (tmp_path / "their_metric.py").write_text(source)
    with trust_code(tmp_path):
        metric = Metric.parse_value("their_metric:MINE")
        assert isinstance(metric, Extension) and metric.describe()["reference"] == "their_metric:MINE"
        assert not registry.register_stored_metric(metric.describe()).unavailable
    registry._REGISTERED.clear()
    assert registry.register_stored_metric(metric.describe()).unavailable.endswith("is not at hand")


def test_names_of_metrics_in_every_form() -> None:
    assert registry.metric_names(["accuracy", LOSS, {"name": "x", "version": "2"}]) == ["accuracy", "my-loss", "x"]


def test_the_limit_of_exact_units_holds_for_any_function(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, p, groups = some_rows()
    monkeypatch.setattr(bootstrap, "MAX_EXACT_UNITS", 10)
    registry.register_metric(ACCURACY)
    mine, theirs = (Bootstrap(labels, groups).compute_replicates(name, p) for name in ("my-accuracy", "accuracy"))
    assert mine.method == theirs.method == "first-order bootstrap of 20 units"
    assert np.std(mine.values) == pytest.approx(np.std(theirs.values), rel=0.02)


METRIC_MODULE = """
import numpy as np
import phoropter as ph

def root_mean_probability(labels, probabilities):
    return float(np.sqrt(probabilities[np.arange(len(labels)), labels].mean()))

ROOT = ph.Metric("root", compute=root_mean_probability, range=(0, 1), value_without_information=0.3)
"""


def test_a_study_by_a_metric_of_ones_own_is_run_ranked_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named by module:NAME; reported with its code, and without it from what the runs recorded."""
    from phoropter.report.conclusion import write_conclusion
    from phoropter.report.summary.collect import collect_summary
    from phoropter.report.summary.compare import compare_candidates
    from phoropter.study.executors import execute_study
    from phoropter.study.spec import read_study
    from phoropter.study.worker import ComputeOptions

    (tmp_path / "root_metric.py").write_text(METRIC_MODULE)
    (tmp_path / "study.yaml").write_text(
        "name: own\ndata: {digits: true, size: 32, max_samples: 120}\nprotocol: {split: stratified-k-fold, folds: 3}\n"
        "recipe: {preset: probe, epochs: 2}\ncandidates:\n"
        + "".join(f"  - {{name: {n}, backbone: test_{n}, weights: random, frozen: true}}\n" for n in ("resnet", "vit"))
        + "metrics: ['root_metric:ROOT', accuracy]\n"
    )
    with trust_code(tmp_path):
        (study,) = read_study(tmp_path / "study.yaml")
        store = execute_study(study, tmp_path / "out", lambda event: None, 1, ComputeOptions("cpu", threads=1))
        summary = collect_summary(store)
        assert summary.metrics[:2] == ("root", "accuracy") and summary.ranking_metric.title == "root"
        for candidate in summary.candidates:
            for line in candidate.runs:
                held_out = store.run(line.key).load_predictions()
                assert held_out is not None
                rows = np.arange(len(held_out.labels))
                expected = np.sqrt(held_out.probabilities[rows, held_out.labels].mean())
                assert line.metrics["root"] == store.run(line.key).record["metrics"]["root"] == pytest.approx(expected)
            assert candidate.replicates is not None
            assert candidate.replicates.confidence_interval().low < candidate.metric_mean("root")
    means = {c.name: pytest.approx(c.metric_values("root").mean()) for c in summary.candidates}  # of what the runs recorded
    registry._REGISTERED.clear()
    without = collect_summary(store)
    assert {c.name: c.metric_mean("root") for c in without.candidates} == means
    assert all(c.replicates is None for c in without.candidates)
    small_print = write_conclusion(without, compare_candidates(store, without))[1]
    assert small_print[-1].startswith(
        "root has the values that the runs recorded, without intervals: the code of the metric 'root'"
    )

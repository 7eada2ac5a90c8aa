"""Bootstrap and closed-form intervals: worked figures, a slow literal bootstrap, invariances, and coverage by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score, roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from phoropter.core.errors import DataError, SpecError
from phoropter.results.intervals.bootstrap import Bootstrap, UnitRows
from phoropter.results.intervals.bootstrap_intervals import bootstrap_interval
from phoropter.results.intervals.interval_rules import normal_quantile, wilson_bounds
from phoropter.results.metrics import registry
from phoropter.results.metrics.probabilities import softmax


def sheet(right: np.ndarray, labels: np.ndarray, confidence: float = 0.9) -> np.ndarray:
    """(N, 2) probabilities that answer rightly where `right`."""
    said = np.where(right, labels, 1 - labels)
    return np.where(np.arange(2) == said[:, None], confidence, 1 - confidence)


@pytest.fixture
def forty_sixty():
    """40 positives and 60 negatives, 10 errors among each."""
    labels = np.r_[np.ones(40, dtype=int), np.zeros(60, dtype=int)]
    right = np.r_[np.arange(40) >= 10, np.arange(60) >= 10]
    return labels, sheet(right, labels)


def some_case(rows: int = 240, classes: int = 3, groups: int = 30, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    lift = rng.normal(1.0, 0.8, groups)[np.arange(rows) % groups]
    p = softmax(rng.normal(size=(rows, classes)) + lift[:, None] * np.eye(classes)[labels])
    return labels, p, np.array([f"s{g:02d}" for g in np.arange(rows) % groups])


def test_worked_example(forty_sixty):
    labels, p = forty_sixty
    found = bootstrap_interval("accuracy", labels, p)
    assert (found.estimate, found.n_units, found.level) == (0.80, 100, 0.95)
    assert (found.low, found.high) == (pytest.approx(0.72, abs=0.011), pytest.approx(0.87, abs=0.011))
    assert bootstrap_interval("macro_f1", labels, p).estimate == pytest.approx(0.791667, abs=1e-6)


def test_resamples_of_accuracy_are_those_of_scipys_percentile_bootstrap(forty_sixty):
    labels, p = forty_sixty
    ours = np.quantile(Bootstrap(labels, resamples=20_000).compute_replicates("accuracy", p).values, [0.025, 0.975])
    right = (p.argmax(1) == labels).astype(float)
    theirs = stats.bootstrap((right,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(0))
    assert list(ours) == pytest.approx(list(theirs.confidence_interval), abs=0.011)


def test_every_resample_is_the_metric_of_the_rows_drawn():
    """The fast sums against scikit-learn on repeated rows, draw by draw."""
    labels, p, groups = some_case()
    draws = Bootstrap(labels, groups, resamples=40)
    for name, kind in (("macro_f1", "all-classes"), ("accuracy", "simple")):
        values = draws.compute_replicates(name, p).values
        counts = np.concatenate(list(draws.draws.weight_blocks(kind, 7)), axis=1)
        for b in range(40):
            rows = np.repeat(np.arange(len(labels)), counts[draws.rows.units, b].astype(int))
            literal = (
                f1_score(labels[rows], p[rows].argmax(1), average="macro")
                if name == "macro_f1"
                else (p[rows].argmax(1) == labels[rows]).mean()
            )
            assert values[b] == pytest.approx(literal, abs=1e-12)


def test_every_auc_resample_is_scikit_learns_and_keeps_the_classes_apart():
    rng = np.random.default_rng(1)
    labels = np.r_[np.zeros(30, dtype=int), np.ones(20, dtype=int)]
    p = softmax(np.round(rng.normal(size=(50, 2)) + np.eye(2)[labels], 1))
    draws = Bootstrap(labels, resamples=30)
    replicates = draws.compute_replicates("roc_auc", p)
    counts = np.concatenate(list(draws.draws.weight_blocks("stratified", 30)), axis=1)
    assert (counts[:30].sum(axis=0) == 30).all()
    assert (counts[30:].sum(axis=0) == 20).all()
    literal = [roc_auc_score(labels, p[:, 1], sample_weight=counts[:, b]) for b in range(30)]
    np.testing.assert_allclose(replicates.values, literal)
    assert replicates.method.endswith("within classes")


def test_equal_units_give_no_width():
    labels, p = np.tile([0, 1], 20), np.tile([[0.7, 0.3], [0.4, 0.6]], (20, 1))
    found = bootstrap_interval("log_loss", labels, p, np.repeat(np.arange(20), 2))
    assert found.low == pytest.approx(found.estimate) == pytest.approx(found.high)


def test_same_seed_same_interval_whatever_the_order_of_rows():
    labels, p, groups = some_case()
    shuffled = np.random.default_rng(5).permutation(len(labels))
    one = bootstrap_interval("macro_f1", labels, p, groups, seed=3)
    assert one == bootstrap_interval("macro_f1", labels[shuffled], p[shuffled], groups[shuffled], seed=3)
    assert one != bootstrap_interval("macro_f1", labels, p, groups, seed=4)
    assert bootstrap_interval("accuracy", labels, p, groups, seed=3) == bootstrap_interval("accuracy", labels, p, groups, seed=4)


@pytest.mark.parametrize("name", ["accuracy", "roc_auc", "macro_f1", "log_loss"])
def test_a_unit_is_drawn_with_all_its_repeats(name):
    """Three identical repeats of every sample say no more than one."""
    labels, p, _ = some_case(100, groups=100)
    ids = np.arange(100)
    draws = Bootstrap(labels, ids, splits=np.zeros(100))
    once = draws.compute_replicates(name, p).confidence_interval()
    repeated = Bootstrap(np.tile(labels, 3), np.tile(ids, 3), splits=np.repeat(np.arange(3), 100))
    thrice = repeated.compute_replicates(name, np.tile(p, (3, 1))).confidence_interval()
    assert (thrice.low, thrice.high, thrice.n_units) == (pytest.approx(once.low), pytest.approx(once.high), 100)


def test_resamples_without_a_class_are_drawn_again_and_counted():
    labels = np.r_[np.zeros(28, dtype=int), 1, 1]
    p = sheet(np.arange(30) % 3 > 0, labels)
    found = bootstrap_interval("balanced_accuracy", labels, p, resamples=1000)
    # P(neither of two units among 30 draws) = (28/30)^30 = 0.126, of all those drawn
    assert found.n_redrawn / (1000 + found.n_redrawn) == pytest.approx(0.126, abs=0.03)
    assert bootstrap_interval("accuracy", labels, p).n_redrawn == 0


def test_many_rare_classes_are_not_drawn_for_ever():
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(200) % 100)
    p = softmax(rng.normal(size=(200, 100)) + 4 * np.eye(100)[labels])
    found = bootstrap_interval("macro_f1", labels, p, resamples=200)
    assert found.n_redrawn == 0
    assert found.low < found.high


@pytest.mark.parametrize(("units", "says"), [(1, "1 independent units"), (2, "2 independent units")])
def test_too_few_units_have_no_interval_and_say_so(units, says):
    labels, p, _ = some_case(60)
    found = bootstrap_interval("accuracy", labels, p, np.arange(60) % units)
    assert np.isnan([found.low, found.high]).all()
    assert says in found.method
    assert found.estimate == pytest.approx((p.argmax(1) == labels).mean())


def test_area_has_no_interval_where_one_unit_has_all_positives():
    labels = np.r_[np.zeros(60, dtype=int), np.ones(2, dtype=int)]
    groups = np.r_[np.arange(60) % 3, [3, 3]]  # a single unit has the positives and others none
    p = softmax(np.random.default_rng(0).normal(size=(62, 2)))
    for found in (bootstrap_interval("roc_auc", labels, p, groups), bootstrap_interval("average_precision", labels, p, groups)):
        assert found.method == "no interval: one class is in a single unit"
        assert np.isnan([found.low, found.high]).all() and 0 < found.estimate < 1
    two = bootstrap_interval("roc_auc", labels, p, np.r_[np.arange(60) % 3, [3, 4]])
    assert two.low < two.estimate < two.high
    none = bootstrap_interval("roc_auc", np.zeros(62, dtype=int), p, groups)
    assert np.isnan([none.estimate, none.low]).all()


@pytest.mark.parametrize("name", [m for m in registry.list_metrics() if m not in ("ece", "top5_accuracy")])
def test_first_order_resamples_agree_with_exact_ones(name, monkeypatch):
    labels, p, _ = some_case(900, groups=900)
    exact = Bootstrap(labels).compute_replicates(name, p)
    monkeypatch.setattr("phoropter.results.intervals.bootstrap.MAX_EXACT_UNITS", 0)
    first_order = Bootstrap(labels).compute_replicates(name, p)
    assert (first_order.method.split()[0], exact.method.split()[0]) == ("first-order", "bootstrap")
    assert first_order.estimate == exact.estimate
    assert first_order.values.std() == pytest.approx(exact.values.std(), rel=0.08)
    assert first_order.values.mean() == pytest.approx(exact.estimate, abs=0.1 * exact.values.std())


@pytest.mark.parametrize("name", [m for m in registry.list_metrics() if m != "ece"])
def test_influences_are_the_derivatives_by_the_weights(name):
    """Against a small change of one unit's weight, put into the metric itself."""
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 7, 80)
    p = np.round(softmax(rng.normal(size=(80, 7)) + 2 * np.eye(7)[labels]), 2)  # ties
    p[:, 0] = 1 - p[:, 1:].sum(axis=1)
    groups = np.arange(80) % 13
    _, slopes = UnitRows(labels, groups).compute_influences(name, p)
    m = registry.get_metric(name)
    added = m.compute_sums(registry.LabelledProbabilities.from_arrays(labels, p))
    matrix = added.unit_matrix(groups, 13)
    for unit in range(13):
        step = 1e-5 * (np.arange(13) == unit)[:, None]
        up, down = (m.value_from_sums(np.asarray(matrix @ (1 + sign * step)), added.layout)[0] for sign in (1, -1))
        assert slopes[unit] == pytest.approx((up - down) / 2e-5, abs=1e-6)


def test_within_splits_the_estimate_is_the_mean_of_splits():
    labels, p, groups = some_case()
    splits = np.arange(len(labels)) // 80
    each = [registry.compute_metrics(["macro_f1"], labels[splits == s], p[splits == s])["macro_f1"] for s in range(3)]
    found = Bootstrap(labels, groups, splits).compute_replicates("macro_f1", p)
    assert found.estimate == pytest.approx(np.mean(each))
    assert found.confidence_interval().low < found.estimate < found.confidence_interval().high


def test_leaving_one_group_out_draws_the_mean_over_groups():
    labels, p, groups = some_case()
    names = np.unique(groups)
    each = np.array([registry.compute_metrics(["macro_f1"], labels[groups == g], p[groups == g])["macro_f1"] for g in names])
    draws = Bootstrap(labels, groups, splits=groups, resamples=50)
    values = draws.compute_replicates("macro_f1", p).values
    counts = np.concatenate(list(draws.draws.weight_blocks("simple", 50)), axis=1)
    np.testing.assert_allclose(values, each @ counts / len(names), atol=1e-8)


def test_splits_where_the_metric_is_undefined_are_left_out():
    labels = np.r_[np.zeros(20, dtype=int), np.tile([0, 1], 20)]
    p = softmax(np.random.default_rng(0).normal(size=(60, 2)))
    splits = np.r_[np.zeros(20), np.ones(40)]
    found = Bootstrap(labels, np.arange(60), splits).compute_replicates("roc_auc", p)
    assert found.estimate == pytest.approx(roc_auc_score(labels[20:], p[20:, 1]))


def test_two_candidates_meet_the_same_draws():
    """A candidate against itself has no difference in any resample."""
    labels, p, groups = some_case()
    draws = Bootstrap(labels, groups)
    same = draws.compute_replicates("macro_f1", p).paired_values(draws.compute_replicates("macro_f1", p.copy()))
    assert len(same) == 2000 and not same.any()


def test_replicates_of_different_units_are_not_paired():
    labels, p, groups = some_case()
    with pytest.raises(DataError, match="not from one bootstrap"):
        Bootstrap(labels, groups).compute_replicates("accuracy", p).paired_values(
            Bootstrap(labels).compute_replicates("accuracy", p)
        )


def test_columns_of_wrong_length_are_refused():
    labels, p, groups = some_case()
    with pytest.raises(DataError, match="groups has 5 entries for 240"):
        bootstrap_interval("accuracy", labels, p, groups[:5])
    with pytest.raises(SpecError, match="did you mean 'accuracy'"):
        bootstrap_interval("acuracy", labels, p)


def test_bounds_stay_within_the_metric():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 3000)
    p = softmax(rng.normal(size=(3000, 2)) * 0.3 + 2 * np.eye(2)[labels])
    found = bootstrap_interval("roc_auc", labels, p)
    assert found.estimate > 0.999
    assert found.high <= 1


@pytest.mark.parametrize(("successes", "trials"), [(80, 100), (0, 7), (7, 7), (1, 3), (499, 500)])
def test_wilson_equals_statsmodels(successes, trials):
    found = wilson_bounds(successes / trials, trials, normal_quantile(0.95))
    assert found == pytest.approx(proportion_confint(successes, trials, method="wilson"), abs=1e-12)


def test_wilson_worked_example():
    found = wilson_bounds(0.8, 100, normal_quantile(0.95))
    assert found == (pytest.approx(0.7112, abs=5e-5), pytest.approx(0.8666, abs=5e-5))


def clustered_study(rng: np.random.Generator, groups: int, rows: int):
    """Accuracies differ between subjects (Beta(4, 1), mean 0.8): windows of one subject are alike."""
    p = np.repeat(rng.beta(4, 1, groups), rows)
    labels = rng.integers(0, 2, groups * rows)
    return labels, sheet(rng.random(groups * rows) < p, labels), np.repeat(np.arange(groups), rows)


def test_clustered_intervals_cover_at_their_level_and_window_wise_ones_do_not():
    rng = np.random.default_rng(0)
    covered = {"group": 0, "window": 0}
    for _ in range(400):
        labels, p, groups = clustered_study(rng, 40, 20)
        for unit, column in (("group", groups), ("window", None)):
            found = bootstrap_interval("accuracy", labels, p, column, resamples=300)
            covered[unit] += found.low <= 0.8 <= found.high
    assert 0.91 <= covered["group"] / 400 <= 0.98
    assert covered["window"] / 400 < 0.75


def test_auc_and_macro_f1_intervals_cover_at_about_their_level():
    """Gaussian scores of unit variance a distance of 1 apart: AUC = Φ(1/√2); macro-F1 of the midpoint rule is Φ(1/2)."""
    rng = np.random.default_rng(1)
    labels = np.tile([0, 1], 60)
    covered = {"roc_auc": 0, "macro_f1": 0}
    truth = {"roc_auc": stats.norm.cdf(1 / np.sqrt(2)), "macro_f1": stats.norm.cdf(0.5)}
    for _ in range(400):
        score = rng.normal(size=120) + labels - 0.5
        p = softmax(np.stack([np.zeros(120), score], axis=1))
        for name in covered:
            found = bootstrap_interval(name, labels, p, resamples=300)
            covered[name] += found.low <= truth[name] <= found.high
    assert all(0.91 <= c / 400 <= 0.98 for c in covered.values()), covered

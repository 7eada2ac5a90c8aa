"""Which test where, what is concluded, and two simulations: false alarms over folds, and verdicts on noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from phoropter.core.errors import SpecError
from phoropter.results.intervals.bootstrap import Bootstrap
from phoropter.results.metrics import registry
from phoropter.results.stats.compare import (
    CandidateScores,
    Design,
    compare_all_pairs,
    compare_pair,
    correct_for_family,
    ensemble_predictions,
)
from phoropter.results.stats.paired_tests import (
    adjust_holm,
    corrected_resampled_ttest,
    delong_test,
    mcnemar_test,
    minimum_detectable_effect,
    wilcoxon_signed_rank,
)
from phoropter.results.stats.permutation import unit_swap_test
from phoropter.results.store import Predictions

A = np.array([0.02, 0.01, 0.03, -0.01, 0.02, 0, 0.04, 0.01, 0.02, 0.02])
FOLDS = Design("folds", test_to_train=1 / 9)
HELD_OUT = Design("one test set")


def over_splits(name: str, scores, seed: int = 0) -> CandidateScores:
    return CandidateScores(name, {(f"fold {i}", seed): float(s) for i, s in enumerate(scores)})


def on_test_set(
    name: str, metric: str, quality: float, *, rows: int = 120, seeds: int = 1, groups: int = 0, classes: int = 2, salt: int = 0
) -> CandidateScores:
    """A candidate that answers the same rows in every seed; a higher quality is right more often."""
    labels = np.arange(rows) % classes
    rng = np.random.default_rng([salt, int(quality * 100)])
    owner = np.array([f"g{i // (rows // groups)}" for i in range(rows)]) if groups else None
    each = {}
    for seed in range(seeds):
        logits = rng.normal(size=(rows, classes)) + quality * np.eye(classes)[labels]
        each["test", seed] = Predictions(np.array([f"i{i:04d}" for i in range(rows)]), labels, logits.astype(np.float32), owner)
    scores = {k: registry.compute_metrics([metric], p.labels, p.probabilities)[metric] for k, p in each.items()}
    return CandidateScores(name, scores, each)


def only(tested: CandidateScores) -> Predictions:
    return next(iter(tested.predictions.values()))


def test_folds_get_the_corrected_t():
    found = compare_pair(over_splits("a", 0.8 + A), over_splits("b", np.full(10, 0.8)), "accuracy", FOLDS)
    expected = corrected_resampled_ttest(A, 1 / 9)
    assert (found.test, found.p, found.n_units) == (expected.test, pytest.approx(expected.p), 10)
    assert (found.difference, found.low, found.high) == (
        pytest.approx(0.016),
        pytest.approx(expected.low),
        pytest.approx(expected.high),
    )
    assert found.verdict == "ahead"
    assert found.detectable == pytest.approx(minimum_detectable_effect(expected.se, 9))


def test_an_interval_holds_no_difference_that_there_cannot_be():
    """Of two folds Student's t has one degree of freedom; a loss has no bound."""
    a, b = over_splits("a", [1.0, 0.6]), over_splits("b", [0.1, 0.4])
    plain = corrected_resampled_ttest([0.9, 0.2], 1 / 9)
    assert plain.low < -1 and plain.high > 1
    found, turned = compare_pair(a, b, "accuracy", FOLDS), compare_pair(b, a, "roc_auc", FOLDS)
    assert (found.low, found.high, found.p) == (-1.0, 1.0, plain.p) and (turned.low, turned.high) == (-1.0, 1.0)
    loss = compare_pair(a, b, "log_loss", FOLDS)
    assert (loss.low, loss.high) == pytest.approx((plain.low, plain.high))


def test_turned_round_it_is_behind():
    assert compare_pair(over_splits("b", np.full(10, 0.8)), over_splits("a", 0.8 + A), "accuracy", FOLDS).verdict == "behind"


def test_less_of_a_loss_is_ahead():
    assert compare_pair(over_splits("a", 0.5 - A), over_splits("b", np.full(10, 0.5)), "log_loss", FOLDS).verdict == "ahead"


def test_a_small_difference_cannot_be_told():
    assert (
        compare_pair(over_splits("a", 0.8 + A - 0.01), over_splits("b", np.full(10, 0.8)), "accuracy", FOLDS).verdict
        == "cannot tell"
    )


def test_within_a_margin_named_beforehand_they_are_practically_the_same():
    a, b = over_splits("a", 0.8 + A), over_splits("b", np.full(10, 0.8))
    wide = Design("folds", test_to_train=1 / 9, margin=0.05)
    narrow = Design("folds", test_to_train=1 / 9, margin=0.02)
    assert compare_pair(a, b, "accuracy", wide).verdict == "practically the same"
    assert compare_pair(a, b, "accuracy", narrow).verdict == "ahead"


def test_only_pairs_both_have_are_compared_and_the_rest_counted():
    a, b = over_splits("a", 0.8 + A), over_splits("b", np.full(8, 0.8))
    b = CandidateScores("b", {**b.scores, ("fold 8", 0): float("nan"), ("fold 99", 0): 0.1})
    found = compare_pair(a, b, "accuracy", FOLDS)
    assert (found.n_units, found.n_left_out) == (8, 3)  # folds 8 and 9 of a, 99 of b
    assert found.p == pytest.approx(corrected_resampled_ttest(A[:8], 1 / 9).p)


def test_seeds_of_one_split_are_averaged_before_they_are_tested():
    """Two seeds of a fold are one difference, not two."""
    twice = [over_splits("a", 0.8 + A + e, seed) for seed, e in ((0, 0.01), (1, -0.01))]
    base = [over_splits("b", np.full(10, 0.8), seed) for seed in (0, 1)]
    a, b = (CandidateScores(name, {**two[0].scores, **two[1].scores}) for name, two in (("a", twice), ("b", base)))
    found = compare_pair(a, b, "accuracy", FOLDS)
    assert (found.n_units, found.p) == (10, pytest.approx(corrected_resampled_ttest(A, 1 / 9).p))


def test_the_same_difference_in_few_splits_is_not_believed():
    few = compare_pair(over_splits("a", [0.9, 0.9]), over_splits("b", [0.8, 0.8]), "accuracy", Design("folds", 1.0))
    assert (few.verdict, np.isnan(few.p)) == ("cannot tell", True)
    assert "no spread" in few.note
    many = compare_pair(over_splits("a", [0.9] * 5), over_splits("b", [0.8] * 5), "accuracy", Design("folds", 0.25))
    assert many.verdict == "ahead"


def test_equal_scores_alone_are_not_called_identical():
    found = compare_pair(over_splits("a", 0.8 + A), over_splits("b", 0.8 + A), "accuracy", FOLDS)
    assert (found.difference, found.p, found.verdict) == (0, 1, "cannot tell")


@pytest.mark.parametrize("design", [FOLDS, HELD_OUT])
def test_identical_answers_are_called_identical(design):
    one = on_folds("a", 1.0) if design is FOLDS else on_test_set("a", "accuracy", 1.0)
    same = CandidateScores("b", one.scores, one.predictions, one.rounds)
    assert compare_pair(one, same, "accuracy", design).verdict == "identical"
    assert compare_pair(one, same, "log_loss", design).difference == 0
    other = on_folds("c", 1.1, salt=1) if design is FOLDS else on_test_set("c", "accuracy", 1.1)
    assert compare_pair(one, other, "accuracy", design).verdict != "identical"


def on_folds(name: str, quality: float, *, rows: int = 200, folds: int = 5, salt: int = 0) -> CandidateScores:
    """A candidate over one round of folds, with predictions."""
    labels, rng = np.arange(rows) % 2, np.random.default_rng([salt, 5])
    fold_of, sheets = np.random.default_rng(0).permutation(np.arange(rows) % folds), {}
    for k in range(folds):
        test = np.flatnonzero(fold_of == k)
        logits = rng.normal(size=(len(test), 2)) + quality * np.eye(2)[labels[test]]
        sheets[f"fold {k}", 0] = Predictions(np.array([f"i{i:04d}" for i in test]), labels[test], logits.astype(np.float32))
    scores = {k: registry.compute_metrics(["accuracy"], p.labels, p.probabilities)["accuracy"] for k, p in sheets.items()}
    return CandidateScores(name, scores, sheets, dict.fromkeys(sheets, 0))


def test_the_360_pictures_whose_seventeen_points_could_not_be_told():
    """326 against 266 of 360 right in 5 folds (90.6 and 73.9 %): ahead on these rows. The corrected t alone had p 0.038, 0.229
    after its correction for six pairs."""
    rows, labels = np.random.default_rng(4).permutation(360), np.arange(360) % 2
    right = {"V1": np.ones(360, bool), "V1+V2": np.ones(360, bool)}
    right["V1"][rows[:34]] = False
    right["V1+V2"][rows[np.r_[10:104]]] = False  # 94 wrong, of which 24 are wrong for both
    contenders = []
    for name, hits in right.items():
        answer = np.where(hits, labels, 1 - labels)
        sheets = {
            (f"fold {k}", 0): Predictions(
                np.array([f"{i:03d}" for i in range(k, 360, 5)]), labels[k::5], 3 * np.eye(2, dtype=np.float32)[answer[k::5]]
            )
            for k in range(5)
        }
        scores = {k: float((s.logits.argmax(1) == s.labels).mean()) for k, s in sheets.items()}
        contenders.append(CandidateScores(name, scores, sheets, dict.fromkeys(sheets, 0)))
    found = compare_pair(*contenders, "accuracy", Design("folds", 1 / 4))
    assert found.difference == pytest.approx(60 / 360) and found.rows.verdict == "ahead"
    only = np.array([10, 70])  # rows that one alone gets right: V1+V2, V1
    se = np.sqrt((only.sum() / 360 - (60 / 360) ** 2) / 359)
    assert found.rows.result.se == pytest.approx(se)
    assert 0.11 < found.rows.result.low < 0.13 and 0.20 < found.rows.result.high < 0.22
    assert mcnemar_test(right["V1"], right["V1+V2"]).p < 1e-8
    assert found.rows.result.p < 1e-8


def test_that_training_would_repeat_it_is_not_said_where_rows_cannot_tell():
    """Predictions of few rows, and splits that happen to agree to the digit."""
    a, b = on_folds("a", 0.8, rows=40), on_folds("b", 0.7, rows=40, salt=3)
    found = compare_pair(a, b, "accuracy", FOLDS)
    assert found.rows.verdict == "cannot tell" and found.training.verdict == "cannot tell"
    assert found.training.result.p >= found.rows.result.p * 0.5


def test_a_family_has_its_own_correction_for_each_question():
    family = [on_folds(f"c{i}", q, salt=i) for i, q in enumerate((2.5, 1.2, 0.9, 0.0))]
    found = compare_all_pairs(family, "accuracy", Design("folds", 1 / 4))
    for question in ("rows", "training"):
        answers = [getattr(c, question) for c in found]
        np.testing.assert_allclose([a.p_adjusted for a in answers], adjust_holm([a.result.p for a in answers]))
        assert all(a.family_size == 6 for a in answers)
    leader = [c for c in found if c.a == "c0"]
    assert all(c.rows.verdict == "ahead" for c in leader)


def test_a_part_of_a_family_is_corrected_for_all_of_it():
    family = [on_test_set(f"c{i}", "accuracy", q) for i, q in enumerate((2.0, 0.9, 0.7))]
    chosen = compare_all_pairs(family, "accuracy", HELD_OUT, [("c0", "c1"), ("c0", "c2")])
    found = correct_for_family(chosen, 3, HELD_OUT)
    assert [c.p_adjusted for c in found] == [pytest.approx(min(1, 3 * c.p)) for c in found]
    assert {c.rows.family_size for c in found} == {3}


def test_one_training_part_cannot_say_what_another_would_do():
    found = compare_pair(on_test_set("a", "accuracy", 2.0), on_test_set("b", "accuracy", 0.7), "accuracy", HELD_OUT)
    assert (found.rows.verdict, found.training.verdict) == ("ahead", "cannot tell")
    assert "one training part" in found.training.result.note


def test_left_out_groups_get_wilcoxon_and_a_bootstrap_of_the_groups():
    d = np.random.default_rng(0).normal(0.03, 0.03, 15)
    found = compare_pair(over_splits("a", 0.7 + d), over_splits("b", np.full(15, 0.7)), "accuracy", Design("groups"))
    assert (found.test, found.p, found.n_units) == ("Wilcoxon signed-rank", pytest.approx(wilcoxon_signed_rank(d).p), 15)
    theirs = stats.bootstrap((d,), np.mean, method="percentile", n_resamples=9999, rng=np.random.default_rng(1))
    assert [found.low, found.high] == pytest.approx(list(theirs.confidence_interval), abs=0.002)


def test_five_subjects_are_too_few_to_tell():
    """Five of five in favour is p = 1/16 both ways, whatever the interval."""
    found = compare_pair(
        over_splits("a", np.linspace(0.8, 0.9, 5)), over_splits("b", np.full(5, 0.5)), "accuracy", Design("groups")
    )
    assert (found.low > 0, found.p, found.verdict) == (True, pytest.approx(1 / 16), "cannot tell")
    assert not found.rows.level_reachable and np.isnan(found.detectable)
    assert found.training.verdict == "cannot tell"


def test_one_test_set_of_samples_gets_mcnemar_for_accuracy():
    a, b = on_test_set("a", "accuracy", 2.0), on_test_set("b", "accuracy", 0.7)
    right = [only(t).probabilities.argmax(1) == only(t).labels for t in (a, b)]
    found, expected = compare_pair(a, b, "accuracy", HELD_OUT), mcnemar_test(*right)
    assert (found.test, found.p, found.low) == (expected.test, expected.p, expected.low)
    assert found.verdict == "ahead"


def test_one_test_set_of_samples_gets_delong_for_auc():
    a, b = on_test_set("a", "roc_auc", 2.0), on_test_set("b", "roc_auc", 0.7)
    expected = delong_test(only(a).labels, only(a).probabilities[:, 1], only(b).probabilities[:, 1])
    found = compare_pair(a, b, "roc_auc", HELD_OUT)
    assert (found.test, found.p, found.difference) == ("DeLong", pytest.approx(expected.p), pytest.approx(expected.difference))


@pytest.mark.parametrize("metric", ["accuracy", "roc_auc", "macro_f1"])
def test_one_test_set_with_groups_swaps_whole_groups(metric):
    a, b = on_test_set("a", metric, 2.0, groups=12), on_test_set("b", metric, 0.7, groups=12)
    found = compare_pair(a, b, metric, HELD_OUT)
    expected = unit_swap_test(metric, only(a).labels, only(a).probabilities, only(b).probabilities, only(a).groups)
    assert (found.test, found.n_units, found.p) == ("unit-swap permutation", 12, expected.p)
    assert found.low < found.difference < found.high


def test_several_seeds_on_one_test_set_do_not_multiply_the_samples():
    a, b = on_test_set("a", "accuracy", 2.0, seeds=3), on_test_set("b", "accuracy", 0.7, seeds=3)
    found = compare_pair(a, b, "accuracy", HELD_OUT)
    assert (found.test, found.n_units) == ("unit-swap permutation", 120)
    assert found.difference == pytest.approx(np.mean(list(a.scores.values())) - np.mean(list(b.scores.values())))


def test_many_samples_get_the_paired_z():
    a = on_test_set("a", "macro_f1", 1.1, rows=1200, classes=3)
    b = on_test_set("b", "macro_f1", 0.9, rows=1200, classes=3)
    found = compare_pair(a, b, "macro_f1", HELD_OUT)
    assert (found.test, found.n_units) == ("paired z", 1200)
    draws = Bootstrap(only(a).labels)
    ours, theirs = (draws.compute_replicates("macro_f1", only(c).probabilities) for c in (a, b))
    low, high = np.quantile(ours.paired_values(theirs), [0.025, 0.975])
    assert (found.low, found.high) == (pytest.approx(low, abs=0.005), pytest.approx(high, abs=0.005))


def test_a_single_fold_left_in_common_is_one_test_set():
    a, b = on_test_set("a", "accuracy", 2.0), on_test_set("b", "accuracy", 0.7)
    assert compare_pair(a, b, "accuracy", FOLDS).test == "McNemar exact"


def test_rows_are_paired_by_id_whatever_their_order():
    a, b = on_test_set("a", "accuracy", 2.0), on_test_set("b", "accuracy", 0.7)
    said, turned = only(b), np.random.default_rng(0).permutation(120)[:100]
    fewer = Predictions(said.ids[turned], said.labels[turned], said.logits[turned])
    found = compare_pair(a, CandidateScores("b", b.scores, {("test", 0): fewer}), "accuracy", HELD_OUT)
    kept = np.sort(turned)
    right = [only(t).probabilities[kept].argmax(1) == only(t).labels[kept] for t in (a, b)]
    assert (found.n_units, found.p) == (100, mcnemar_test(*right).p)


def test_nothing_in_common_cannot_be_told():
    found = compare_pair(over_splits("a", [0.8]), over_splits("b", [0.7], seed=1), "accuracy", FOLDS)
    assert (found.verdict, found.n_left_out, np.isnan(found.p)) == ("cannot tell", 2, True)
    assert "nothing to test" in found.note


def test_one_score_each_and_no_predictions_still_say_the_difference():
    found = compare_pair(over_splits("a", [0.8]), over_splits("b", [0.7]), "accuracy", FOLDS)
    assert (found.difference, found.verdict) == (pytest.approx(0.1), "cannot tell")


def test_a_family_is_adjusted_by_holm():
    rng = np.random.default_rng(0)
    family = [over_splits(name, 0.8 + k + rng.normal(0, 0.01, 10)) for name, k in (("a", 0.03), ("b", 0.0), ("c", 0.012))]
    found = compare_all_pairs(family, "accuracy", FOLDS)
    assert [(c.a, c.b) for c in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    np.testing.assert_allclose([c.p_adjusted for c in found], adjust_holm([c.p for c in found]))
    assert all((c.verdict != "cannot tell") == (c.p_adjusted <= 0.05) for c in found)


def test_named_pairs_only():
    family = [over_splits(name, 0.8 + A) for name in "abc"]
    assert [(c.a, c.b) for c in compare_all_pairs(family, "accuracy", FOLDS, [("c", "a")])] == [("c", "a")]


def test_unknown_names_are_refused():
    a = over_splits("resnet", 0.8 + A)
    with pytest.raises(SpecError, match="did you mean 'resnet'"):
        compare_all_pairs([a], "accuracy", FOLDS, [("resnet", "resnt")])
    with pytest.raises(SpecError, match="did you mean 'accuracy'"):
        compare_pair(a, a, "acuracy", FOLDS)
    with pytest.raises(SpecError, match="share 1 names"):
        compare_all_pairs([a, a], "accuracy", FOLDS)


def test_ensemble_is_the_mean_probability_of_the_rows_all_have():
    a = on_test_set("a", "accuracy", 2.0, seeds=3, classes=3, groups=4)
    members = list(a.predictions.values())
    keep = np.arange(120)[::-1][:100]
    cut = Predictions(members[2].ids[keep], members[2].labels[keep], members[2].logits[keep], members[2].groups[keep])
    found = ensemble_predictions([*members[:2], cut])
    rows = np.arange(20, 120)
    np.testing.assert_array_equal(found.ids, members[0].ids[rows])
    np.testing.assert_array_equal(found.labels, members[0].labels[rows])
    np.testing.assert_array_equal(found.groups, members[0].groups[rows])
    np.testing.assert_allclose(found.probabilities, np.mean([p.probabilities[rows] for p in members], axis=0), atol=1e-6)


def fold_differences(studies: int, repeats: int, folds: int = 10, rows: int = 100, features: int = 8) -> np.ndarray:
    """(studies, repeats·folds) accuracy differences of two equally good classifiers under real cross-validation.

    Each is a nearest-centroid rule on its own features, all equally informative: by symmetry neither is better, but both learn
    from, and are tested on, the same 100 rows again and again.
    """
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % 2
    x = rng.normal(size=(2, studies, rows, features)) + 0.5 * (labels - 0.5)[:, None]
    columns = []
    for _ in range(repeats):
        fold = rng.permuted(np.tile(np.arange(rows) % folds, (studies, 1)), axis=1)
        for f in range(folds):
            test = fold == f
            right = []
            for own in x:
                centres = []
                for c in (0, 1):
                    used = (~test & (labels == c)).astype(float)
                    centres.append(np.einsum("sn,snd->sd", used, own) / used.sum(1, keepdims=True))
                direction = centres[1] - centres[0]
                offset = ((centres[1] ** 2).sum(1) - (centres[0] ** 2).sum(1)) / 2
                said = np.einsum("snd,sd->sn", own, direction) > offset[:, None]
                right.append((said == labels) & test)
            columns.append((right[0].sum(1) - right[1].sum(1)) / test.sum(1))
    return np.stack(columns, axis=1)


@pytest.fixture(scope="module")
def null_differences() -> np.ndarray:
    return fold_differences(studies=1000, repeats=5)


@pytest.mark.parametrize("repeats", [1, 5])
def test_corrected_t_keeps_its_false_positive_rate(null_differences, repeats):
    """At α = 5 %, over 10 folds and over 5 × 10 folds of the same rows."""
    assert np.mean([corrected_resampled_ttest(row, 1 / 9).p <= 0.05 for row in null_differences[:, : 10 * repeats]]) < 0.07


def test_a_plain_t_over_the_same_folds_does_not(null_differences):
    """It finds a difference that is not there in more than one of four studies: the reason for all of the above."""
    assert np.mean(stats.ttest_1samp(null_differences, 0, axis=1).pvalue <= 0.05) > 0.25


def test_corrected_t_finds_a_real_difference(null_differences):
    assert np.mean([corrected_resampled_ttest(row, 1 / 9).p <= 0.05 for row in null_differences + 0.18]) > 0.7


def test_candidates_that_are_all_noise_are_not_told_apart():
    """Four equally good candidates, six pairs a study, 200 studies: some verdict in at most about one of twenty."""
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(200):
        split = rng.normal(0, 0.02, 10)  # folds are harder or easier for all
        # a run's own noise, of which the shared training rows make a part common to all folds: ρ = n_test / (n_test + n_train)
        own = rng.normal(0, 0.01, (4, 10)) * np.sqrt(0.9) + rng.normal(0, 0.01, (4, 1)) * np.sqrt(0.1)
        family = [over_splits(f"c{i}", 0.8 + split + own[i]) for i in range(4)]
        wrong += any(c.verdict != "cannot tell" for c in compare_all_pairs(family, "accuracy", FOLDS))
    assert wrong / 200 <= 0.08

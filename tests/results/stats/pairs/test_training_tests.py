"""Would training again repeat it: the components from predictions against plain loops, and the tests of the other protocols."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from phoropter.results.stats.compare import CandidateScores, Design, compare_pair
from phoropter.results.stats.paired_tests import corrected_resampled_ttest, wilcoxon_signed_rank
from phoropter.results.stats.pairs.training_tests import group_t_test, score_t_test, split_components, untested_training
from phoropter.results.stats.pairs.unit_contributions import ContributionReader
from phoropter.results.store import Predictions

FOLDS, ROUNDS, ROWS = 5, 3, 100


def right_wrong(groups: int = 0):
    """(2, ROUNDS, ROWS) right or wrong, (ROUNDS, ROWS) fold of each row, and the group of each row."""
    draw = np.random.default_rng(11)
    owner = np.arange(ROWS) % groups if groups else np.arange(ROWS)
    ease = draw.normal(size=owner.max() + 1)[owner]
    right = draw.normal(size=(2, ROUNDS, ROWS)) + ease < np.array([1.0, 0.7])[:, None, None]
    fold_of = np.stack([draw.permutation(np.arange(owner.max() + 1) % FOLDS)[owner] for _ in range(ROUNDS)])
    return right, fold_of, owner


def scores_of(right, fold_of, owner, groups: bool) -> list[CandidateScores]:
    names, labels = np.array([f"r{i:03d}" for i in range(ROWS)]), np.arange(ROWS) % 2
    found = []
    for c, candidate in enumerate("ab"):
        sheets, rounds = {}, {}
        for r in range(ROUNDS):
            for k in range(FOLDS):
                rows = np.flatnonzero(fold_of[r] == k)
                answer = np.where(right[c, r, rows], labels[rows], 1 - labels[rows])
                group = np.array([f"g{owner[i]:03d}" for i in rows]) if groups else None
                sheets[f"{r}-{k}", r] = Predictions(names[rows], labels[rows], 4 * np.eye(2, dtype=np.float32)[answer], group)
                rounds[f"{r}-{k}", r] = r
        scores = {key: float((s.logits.argmax(1) == s.labels).mean()) for key, s in sheets.items()}
        found.append(CandidateScores(candidate, scores, sheets, rounds))
    return found


@pytest.mark.parametrize("groups", [0, 20])
def test_components_are_those_of_plain_loops(groups):
    right, fold_of, owner = right_wrong(groups)
    a, b = scores_of(right, fold_of, owner, bool(groups))
    found = compare_pair(a, b, "accuracy", Design("folds", 1 / 4))
    d = right[0].astype(float) - right[1]  # (ROUNDS, ROWS)
    units = np.unique(owner)
    means = np.array([[d[r, fold_of[r] == k].mean() for k in range(FOLDS)] for r in range(ROUNDS)])
    spread = np.mean(means.var(axis=1, ddof=1))
    row_part, influence = [], np.zeros(len(units))
    for r in range(ROUNDS):
        for k in range(FOLDS):
            inside = fold_of[r] == k
            parts = {u: (d[r, inside & (owner == u)] - means[r, k]).sum() / inside.sum() for u in np.unique(owner[inside])}
            row_part.append(sum(v**2 for v in parts.values()) * len(parts) / (len(parts) - 1))
            for u, v in parts.items():
                influence[u] += (v + (means[r, k] - means.mean()) / len(parts)) / (FOLDS * ROUNDS)
    rows = (influence**2).sum() * len(units) / (len(units) - 1)
    c = 1 / (FOLDS * ROUNDS) + 1 / 4
    kurtosis = len(units) * (influence**4).sum() / (influence**2).sum() ** 2
    df = min(2 * len(units) / (kurtosis - 1), len(units) - 1)
    of_rows, of_spread = stats.t.ppf(0.975, df), stats.t.ppf(0.975, ROUNDS * (FOLDS - 1))
    square = max(of_rows**2 * rows, of_rows**2 * (rows - c * np.mean(row_part)) + of_spread**2 * c * spread)
    again = found.training.result
    assert found.difference == pytest.approx(means.mean())
    assert (again.test, again.n_units, found.n_rounds) == ("two-component t", 15, 3)
    assert again.high - found.difference == pytest.approx(np.sqrt(square), rel=1e-9)
    on_rows = found.rows.result
    assert on_rows.se == pytest.approx(np.sqrt(rows)) and on_rows.df == pytest.approx(df)
    assert on_rows.p == pytest.approx(2 * stats.t.sf(abs(means.mean()) / np.sqrt(rows), df))
    assert (on_rows.test, on_rows.n_units) == ("paired t over units", len(units))


def test_what_splits_with_common_rows_share_is_left_out_of_their_spread():
    """Ten hold-outs of a quarter of the rows, answers that depend on the row alone: training adds nothing, on average."""
    labels, names = np.arange(200) % 2, np.array([f"r{i:03d}" for i in range(200)])
    excess = []
    for study in range(60):
        draw = np.random.default_rng(study)
        right = draw.random((2, 200)) < 0.7
        sheets = [{}, {}]
        for hold_out in range(10):
            rows = draw.choice(200, 50, replace=False)
            for c in (0, 1):
                answer = np.where(right[c, rows], labels[rows], 1 - labels[rows])
                sheets[c][f"h{hold_out}", hold_out] = Predictions(names[rows], labels[rows], np.eye(2, dtype=np.float32)[answer])
        each = {key: key[1] for key in sheets[0]}
        a, b = (ContributionReader("accuracy").read_candidate(s, each) for s in sheets)
        parts = split_components(a.subtract_other(b), 1 / 3)
        assert parts.spread_df == 9 and parts.factor == pytest.approx(1 / 10 + 1 / 3)
        excess.append((parts.spread - parts.rows_in_spread) / parts.rows_in_spread)
    assert abs(np.mean(excess)) < 0.15  # without the shared part 0.25 too little: the test parts overlap in a quarter


def test_scores_alone_get_the_corrected_t():
    d = np.array([0.02, 0.01, 0.03, -0.01, 0.02])
    assert score_t_test(d, 1 / 4, 0.95) == corrected_resampled_ttest(d, 1 / 4)
    few = score_t_test(np.array([0.1, 0.1]), 1.0, 0.95)
    assert np.isnan(few.p) and "no spread" in few.note


def test_over_left_out_groups_it_is_never_surer_than_the_groups():
    d = np.array([0.30, 0.31, 0.32, 0.33, 0.34])
    ranks = wilcoxon_signed_rank(d)
    found = group_t_test(d, ranks, 0.95)
    alone = corrected_resampled_ttest(d, 1 / 4)
    assert alone.p < 0.001 and found.p == ranks.p == pytest.approx(1 / 16) and found.least_p == pytest.approx(1 / 16)
    assert (found.low, found.high) == (alone.low, alone.high)
    many = np.random.default_rng(0).normal(0.02, 0.05, 30)
    assert group_t_test(many, wilcoxon_signed_rank(many), 0.95).p == pytest.approx(corrected_resampled_ttest(many, 1 / 29).p)


def test_one_training_part_says_nothing_about_another():
    found = untested_training(0.1, 0.95)
    assert np.isnan(found.p) and "one training part" in found.note

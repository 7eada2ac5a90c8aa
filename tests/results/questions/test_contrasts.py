"""Answers to contrasts: against plain computations, and on made studies with a known truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from phoropter.results.questions.contrasts import ContrastAnswer, answer_contrasts, combine_contributions
from phoropter.results.questions.planned import Contrast, ContrastUnit
from phoropter.results.stats.compare import CandidateScores, Design, compare_all_pairs
from phoropter.results.stats.paired_tests import adjust_holm
from phoropter.results.stats.pairs.unit_contributions import ContributionReader, UnitContributions
from phoropter.results.store import Predictions

NETWORKS, LEVELS, FOLDS = 8, 5, 5


def made_answers(seed: int, rows: int, effect: float, base: float = 0.85, networks: int = NETWORKS) -> dict[str, np.ndarray]:
    """`net n · augment k` → (rows,) right or wrong. Rows differ in difficulty, networks in skill; level 1 helps all by `effect`.

    A network's answers under two augmentations share most of their causes, as those of one network trained twice do.
    """
    draw, found = np.random.default_rng(seed), {}
    difficulty = draw.normal(size=rows)
    for n in range(networks):
        skill = np.clip(base + draw.normal(0, 0.02), 0.6, 0.97)
        own = draw.normal(size=rows)
        for k in range(LEVELS):
            hidden = np.sqrt(0.5) * difficulty + np.sqrt(0.35) * own + np.sqrt(0.15) * draw.normal(size=rows)
            found[f"net {n} · augment {k}"] = hidden < stats.norm.ppf(skill + effect * (k == 1))
    return found


def scores_of(right: Mapping[str, np.ndarray], folds: int = FOLDS) -> list[CandidateScores]:
    """As 5 folds of the rows, in order; labels alternate."""
    found = []
    for name, hits in right.items():
        labels = np.arange(len(hits)) % 2
        answer = np.where(hits, labels, 1 - labels)
        logits = np.stack([1.0 - answer, answer], axis=1).astype(np.float32) * 4
        ids = np.array([f"{i:05d}" for i in range(len(hits))])
        parts = np.array_split(np.arange(len(hits)), folds)
        sheets = {(f"fold {j}", 0): Predictions(ids[rows], labels[rows], logits[rows]) for j, rows in enumerate(parts)}
        found.append(CandidateScores(name, {(f"fold {j}", 0): float(hits[rows].mean()) for j, rows in enumerate(parts)}, sheets))
    return found


def read_all(scores: list[CandidateScores], metric: str = "accuracy") -> dict[str, UnitContributions]:
    reader = ContributionReader(metric)
    found = {s.name: reader.read_candidate(s.predictions) for s in scores}
    return {name: one for name, one in found.items() if one is not None}


def level_contrast(level: int, against: int = 0, role: str = "primary", networks: int = NETWORKS) -> Contrast:
    units = tuple(
        ContrastUnit(f"net {n}", (f"net {n} · augment {level}",), (f"net {n} · augment {against}",)) for n in range(networks)
    )
    return Contrast(role, "accuracy", "recipe.augment", str(level), str(against), units)  # type: ignore[arg-type]


FOLDS_OF_FIVE = {"accuracy": Design("folds", 1 / 4)}


def answered(
    right: Mapping[str, np.ndarray], *contrasts: Contrast, design: Mapping[str, Design] = FOLDS_OF_FIVE
) -> list[ContrastAnswer]:
    return answer_contrasts(contrasts, {"accuracy": read_all(scores_of(right))}, design)


def test_the_difference_and_the_wins_are_plain_means() -> None:
    right = made_answers(0, 500, 0.02)
    (found,) = answered(right, level_contrast(1))
    by_network = [right[f"net {n} · augment 1"].mean() - right[f"net {n} · augment 0"].mean() for n in range(NETWORKS)]
    np.testing.assert_allclose(found.of_units, by_network, atol=1e-12)
    assert found.difference == pytest.approx(np.mean(by_network)) and found.n_wins == sum(d > 0 for d in by_network)
    by_row = np.mean([right[f"net {n} · augment 1"] * 1.0 - right[f"net {n} · augment 0"] for n in range(NETWORKS)], axis=0)
    np.testing.assert_allclose(found.of_splits, by_row.reshape(FOLDS, 100).mean(axis=1), atol=1e-12)


def test_the_test_of_the_rows_is_students_t_of_the_rows_mean_differences() -> None:
    """Of equal folds: the variance within folds, with their degrees of freedom; by NumPy alone."""
    right = made_answers(1, 500, 0.02)
    (found,) = answered(right, level_contrast(1))
    by_row = np.mean([right[f"net {n} · augment 1"] * 1.0 - right[f"net {n} · augment 0"] for n in range(NETWORKS)], axis=0)
    centred = by_row - by_row.mean()
    variance = (centred**2).sum() / (500 * 499)
    assert found.rows.result.se == pytest.approx(np.sqrt(variance), rel=1e-9)
    low = by_row.mean() - stats.t.ppf(0.975, found.rows.result.df) * np.sqrt(variance)
    assert found.rows.result.low == pytest.approx(low, rel=1e-9)


def test_a_contrast_of_two_candidates_is_their_pair() -> None:
    right = {name: hits for name, hits in made_answers(2, 400, 0.0).items() if name in ("net 0 · augment 0", "net 1 · augment 0")}
    pair = compare_all_pairs(scores_of(right), "accuracy", FOLDS_OF_FIVE["accuracy"])[0]
    unit = ContrastUnit("x", ("net 0 · augment 0",), ("net 1 · augment 0",))
    (found,) = answered(right, Contrast("primary", "accuracy", "candidate", "a", "b", (unit,)))
    for ours, theirs in ((found.rows, pair.rows), (found.training, pair.training)):
        assert (ours.result.difference, ours.result.p, ours.result.low) == pytest.approx(
            (theirs.result.difference, theirs.result.p, theirs.result.low)
        )


def test_planned_contrasts_are_one_family_and_exploratory_ones_have_no_verdict() -> None:
    right = made_answers(3, 2000, 0.05)
    asked = [level_contrast(1), level_contrast(2, role="secondary"), level_contrast(3, role="secondary")]
    found = answered(right, *asked, level_contrast(1, 4, role="exploratory"))
    for question in ("rows", "training"):
        p = [getattr(a, question).result.p for a in found[:3]]
        np.testing.assert_allclose([getattr(a, question).p_adjusted for a in found[:3]], adjust_holm(p))
    assert found[0].verdict == "ahead" and found[0].rows.p_adjusted > found[0].rows.result.p
    assert found[3].verdict == "cannot tell" and np.isnan(found[3].rows.p_adjusted) and found[3].rows.result.low > 0


def test_names_of_candidates_change_nothing() -> None:
    right = made_answers(4, 300, 0.02)
    renamed = {name.replace("net", "network"): hits for name, hits in reversed(right.items())}
    units = tuple(
        ContrastUnit(
            u.title, tuple(s.replace("net", "network") for s in u.side), tuple(s.replace("net", "network") for s in u.against)
        )
        for u in reversed(level_contrast(1).units)
    )
    (first,), (second,) = answered(right, level_contrast(1)), answered(renamed, replace(level_contrast(1), units=units))
    assert second.rows.result.p == pytest.approx(first.rows.result.p) and second.difference == pytest.approx(first.difference)


def test_a_missing_candidate_is_named_and_missing_splits_are_left_out() -> None:
    right = made_answers(5, 300, 0.02)
    without = {name: hits for name, hits in right.items() if name != "net 3 · augment 1"}
    (found,) = answered(without, level_contrast(1))
    assert found.note == "there are no scores of net 3 · augment 1" and np.isnan(found.difference) and not found.rows.is_tested
    scores = scores_of(right)
    cut = [
        replace(s, predictions={k: p for k, p in s.predictions.items() if k[0] != "fold 2"})
        if s.name == "net 3 · augment 1"
        else s
        for s in scores
    ]
    (found,) = answer_contrasts([level_contrast(1)], {"accuracy": read_all(cut)}, FOLDS_OF_FIVE)
    assert len(found.of_splits) == FOLDS - 1 and found.difference == pytest.approx(np.mean(found.of_splits))
    assert np.mean(found.of_units) == pytest.approx(found.difference)


def test_combining_is_linear() -> None:
    known = read_all(scores_of(made_answers(6, 200, 0.0, networks=2)))
    a, b = known["net 0 · augment 0"], known["net 1 · augment 0"]
    mixed = combine_contributions([(0.25, a), (0.75, b)])
    np.testing.assert_allclose(mixed.values, 0.25 * a.values + 0.75 * b.values)
    np.testing.assert_allclose(mixed.mean_influences, 0.25 * a.mean_influences + 0.75 * b.mean_influences)


def test_on_one_test_set_only_the_rows_are_asked() -> None:
    right = made_answers(7, 600, 0.03)
    contributions = read_all(scores_of(right, folds=1))
    (found,) = answer_contrasts([level_contrast(1)], {"accuracy": contributions}, {"accuracy": Design("one test set")})
    assert not found.training.is_tested and found.strongest is found.rows and found.verdict == found.rows.verdict == "ahead"


def test_780_pairs_find_nothing_where_the_planned_contrast_finds_a_point() -> None:
    """8 networks × 5 augmentations, one of which helps every network by 1.15 points (2,400 rows, 5 folds)."""
    right = made_answers(0, 2400, 0.0115)
    scores = scores_of(right)
    pairs = compare_all_pairs(scores, "accuracy", FOLDS_OF_FIVE["accuracy"])
    helped = [c for c in pairs if {c.a[-1], c.b[-1]} == {"0", "1"} and c.a[:5] == c.b[:5]]
    assert len(pairs) == len(list(combinations(right, 2))) == 780 and len(helped) == NETWORKS
    assert not any(c.rows.verdict in ("ahead", "behind") or c.training.verdict in ("ahead", "behind") for c in helped)
    (found,) = answer_contrasts([level_contrast(1)], {"accuracy": read_all(scores)}, FOLDS_OF_FIVE)
    assert found.verdict == found.rows.verdict == found.training.verdict == "ahead" and found.n_wins == NETWORKS
    assert found.difference == pytest.approx(0.0115, abs=1e-3)
    assert (found.training.result.low, found.training.result.high) == pytest.approx((0.0029, 0.0200), abs=2e-3)


def test_a_planned_contrast_finds_a_real_point_and_seldom_a_false_one() -> None:
    """A small version of benchmarks/planned_contrasts.py: 20 studies of 2,400 rows, two questions."""
    asked = level_contrast(1), level_contrast(2, role="secondary")
    found = [answered(made_answers(100 + seed, 2400, 0.01), *asked) for seed in range(20)]
    assert sum(a[0].rows.verdict == "ahead" for a in found) >= 18
    assert sum(a[0].training.verdict == "ahead" for a in found) >= 8  # one round of 5 folds says less about training again
    assert sum(a[1].rows.verdict in ("ahead", "behind") for a in found) <= 2
    assert sum(a[1].training.verdict in ("ahead", "behind") for a in found) <= 1

"""Subgroups: each value and interval as of those rows alone; the interaction test keeps its level, and finds what is there."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from phoropter.results.clinical import subgroups
from phoropter.results.clinical.subgroups import interaction_p, measure_subgroups
from phoropter.results.intervals.bootstrap_intervals import bootstrap_interval
from phoropter.results.stats.held_out_rows import HeldOutRows


def make_rows(
    seed: int, people: int = 60, each: int = 3, effect: float = 0.0, rarer: float = 0.0
) -> tuple[HeldOutRows, np.ndarray]:  # type: ignore[type-arg]
    """Half are men, whose scores separate less by `effect`, and of whom fewer are ill by `rarer`."""
    draw = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), each)
    man = np.arange(people) % 2 == 0
    ill = draw.random(people) < np.where(man, 0.5 - rarer, 0.5)
    shared = draw.normal(size=people)
    z = (1.5 - effect * man[person]) * (ill[person] - 0.5) + 0.7 * shared[person] + 0.7 * draw.normal(size=len(person))
    p = 1 / (1 + np.exp(-z))
    zeros = np.zeros(len(person), dtype=np.int64)
    rows = HeldOutRows(ill[person].astype(np.int64), np.stack([1 - p, p], 1), person, zeros, zeros)
    return rows, np.where(man, "m", "f")[person]


def test_each_subgroup_is_measured_by_its_rows_alone() -> None:
    rows, sex = make_rows(0)
    found = measure_subgroups("roc_auc", rows, sex)
    for name, result in found.results.items():
        here = sex == name
        alone = bootstrap_interval("roc_auc", rows.labels[here], rows.probabilities[here], rows.unit_names[here])
        assert result.interval.estimate == pytest.approx(roc_auc_score(rows.labels[here], rows.probabilities[here, 1]))
        assert (result.interval.low, result.interval.high) == pytest.approx((alone.low, alone.high))
        assert (result.n_rows, result.n_units) == (90, 30) and result.supports == tuple(np.bincount(rows.labels[here]))
    assert list(found.results) == ["f", "m"]


@pytest.mark.parametrize(
    "names", [["under 30", "30 to under 100", "100 and over", "not given"], ["2", "10", "inf", "not given", "under treatment"]]
)
def test_ranges_and_numbers_are_in_their_order(names: list[str]) -> None:
    rows, _ = make_rows(0)
    members = np.array(names)[rows.unit_names.astype(int) % len(names)]
    assert list(measure_subgroups("accuracy", rows, members).results) == names


def test_p_is_that_of_plain_exchanges(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, sex = make_rows(3, effect=1.0)
    draw, people = np.random.default_rng(0), np.arange(60)
    of = {person: sex[rows.unit_names == person][0] for person in people}
    ill = {person: rows.labels[rows.unit_names == person][0] for person in people}

    def spread(member: dict[int, str]) -> float:
        names = np.array([member[u] for u in rows.unit_names])
        values = [(n := (names == s)).sum() and roc_auc_score(rows.labels[n], rows.probabilities[n, 1]) for s in ("f", "m")]
        return float(np.average((np.array(values) - np.mean(values)) ** 2))

    observed, count = spread(of), 0
    for _ in range(400):
        shuffled = dict(of)
        for label in (0, 1):
            some = [p for p in people if ill[p] == label]
            shuffled |= dict(zip(some, draw.permutation([of[p] for p in some]).tolist(), strict=True))
        count += spread(shuffled) >= observed
    assert interaction_p("roc_auc", rows, sex) == pytest.approx((1 + count) / 401, abs=0.06)


def test_the_interaction_test_keeps_its_level_where_only_the_prevalence_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subgroups, "PERMUTATIONS", 59)
    false = [interaction_p("accuracy", *make_rows(seed, people=40, rarer=0.3)) <= 0.05 for seed in range(120)]
    assert np.mean(false) <= 0.11  # 5 % expected, ± 2
    found = [interaction_p("roc_auc", *make_rows(seed, people=120, effect=1.5)) <= 0.05 for seed in range(20)]
    assert np.mean(found) >= 0.6


def test_people_in_several_subgroups_are_not_exchanged() -> None:
    rows, _ = make_rows(0)
    by_row = np.array(["x", "y"])[np.arange(180) % 2]
    found = measure_subgroups("accuracy", rows, by_row)
    assert np.isnan(found.p) and set(found.results) == {"x", "y"}
    assert np.isnan(interaction_p("accuracy", rows, np.full(180, "one")))

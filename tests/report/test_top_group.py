"""The top group: who is in it, who is behind it, and what separates equals; on made answers with known verdicts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from phoropter.report import top_group
from phoropter.report.render.table import IntervalBounds
from phoropter.report.summary.compare import CandidateComparisons
from phoropter.report.summary.model import CandidateResults
from phoropter.report.top_group import (
    all_are_ahead,
    describe_cost,
    describe_disjoint_intervals,
    describe_not_converged,
    describe_other_leads,
    find_top_group,
    is_ahead_together,
    shorten_names,
)
from phoropter.results.stats.compare import Design
from phoropter.results.stats.paired_tests import PairedTest
from phoropter.results.stats.pairs.answers import Answer, Comparison, Verdict


@dataclass
class Named:
    """Stands for a candidate's results."""

    name: str
    costs: dict[str, float] = field(default_factory=dict)
    not_converged: str | None = None

    def median_cost(self, cost: str) -> float:
        return self.costs.get(cost, float("nan"))


@dataclass
class Summed:
    """Stands for a summary."""

    candidates: list[Any]


def pair(a: str, b: str, verdict: Verdict, p: float = 0.2) -> Comparison:
    test = PairedTest("paired t over units", 0.01, p, -0.01, 0.03, n_units=100)
    answer = Answer("rows", test, "cannot tell" if verdict == "identical" else verdict, p)
    return Comparison(a, b, "accuracy", 0.01, answer, Answer("training", test), 5, identical=verdict == "identical")


def compared(*pairs: Comparison) -> CandidateComparisons:
    return CandidateComparisons(pairs, tuple(c for c in pairs if c.a == "V1"), Design("folds", 0.25), len(pairs))


FOUR: Any = Summed([Named("V1"), Named("V2"), Named("V1 + V2"), Named("R")])
TOLD = compared(
    *(pair("V1", other, "cannot tell") for other in ("V2", "V1 + V2")),
    *(pair(one, "R", "ahead") for one in ("V1", "V2", "V1 + V2")),
    pair("V2", "V1 + V2", "cannot tell"),
)


def test_the_top_group_is_whom_the_leader_is_not_ahead_of() -> None:
    group = find_top_group(FOUR, TOLD)
    assert group.members == ("V1", "V2", "V1 + V2") and group.behind == ("R",) and all_are_ahead(group, TOLD)


def test_a_member_that_is_not_ahead_of_all_is_noticed() -> None:
    pairs = [pair("V2", "R", "cannot tell") if (c.a, c.b) == ("V2", "R") else c for c in TOLD.pairs]
    assert not all_are_ahead(find_top_group(FOUR, compared(*pairs)), compared(*pairs))


def test_verdicts_have_their_places() -> None:
    verdicts: tuple[Verdict, ...] = ("identical", "practically the same", "behind", "ahead", "cannot tell")
    group = find_top_group(
        Summed([Named("V1"), *map(Named, "abcde")]), compared(*(pair("V1", n, v) for n, v in zip("abcde", verdicts, strict=True)))
    )  # type: ignore[arg-type]
    assert (group.identical, group.same, group.better, group.behind, group.undecided) == (("a",), ("b",), ("c",), ("d",), ("e",))
    assert group.members == ("V1", "a", "b", "e")


def test_who_was_not_trained_to_the_end_is_left_out_and_named() -> None:
    rising = "its accuracy was still rising"
    summary: Any = Summed([Named("V1", not_converged=rising), Named("V2"), Named("V1 + V2"), Named("R", not_converged=rising)])
    group = find_top_group(summary, TOLD)
    assert group.leader.name == "V2" and group.members == ("V2", "V1 + V2") and not group.behind
    assert describe_not_converged(group) == f"Not trained to the end, and so left out of these sentences: V1 and R ({rising})."
    planned = describe_not_converged(group, {"V2", "R"})
    assert planned.startswith(
        "Not trained to the end, and so left out of the exploratory sentences, not of the planned questions: V1"
    )
    nobody: Any = Summed([Named(c.name, not_converged=rising) for c in FOUR.candidates])
    assert find_top_group(nobody, TOLD).leader.name == "V1"
    assert describe_not_converged(find_top_group(nobody, TOLD)).startswith("No candidate was trained to the end: V1, V2, ")


OF = "Of those that cannot be told apart, "


@pytest.mark.parametrize(
    ("seconds", "macs", "expected"),
    [
        ((8.0, 0.2, 8.5), (1e9, 1e9, 2e9), OF + "V2 is 40 times cheaper to train than V1 (200 ms against 8.0 s a run)"),
        ((8.0, 0.2, 8.5), (3e9, 1e9, 2e9), "a run) and 3.0 times cheaper to use (multiply-adds)."),
        ((8.0, 7.9, 8.5), (1e9, 1.1e9, 1.2e9), ""),
        ((1.0, 1.1, 30.0), (1e9, 1e9, 1e9), OF + "V1 is 30 times cheaper to train than V1 + V2 (1.0 s against 30 s a run)."),
        ((8.0, float("nan"), 8.5), (1e9, 1e9, 1e9), ""),
    ],
)  # fmt: skip
def test_cost_among_equals(seconds: tuple[float, ...], macs: tuple[float, ...], expected: str) -> None:
    names = ("V1", "V2", "V1 + V2")
    costs = [{"train_seconds": s, "macs": m} for s, m in zip(seconds, macs, strict=True)]
    summary: Any = Summed(
        [*(Named(n, c) for n, c in zip(names, costs, strict=True)), Named("R", {"train_seconds": 0.001, "macs": 1.0})]
    )
    said = describe_cost(find_top_group(summary, TOLD), summary)
    assert expected in said if expected else said == ""


def test_disjoint_intervals_are_named_however_many_are_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = {"V1": (0.88, 0.93), "V2": (0.86, 0.92), "V1 + V2": (0.69, 0.78), "R": (0.5, 0.6)}
    monkeypatch.setattr(top_group, "primary_metric_interval", lambda c: IntervalBounds(*bounds[c.name]))
    group = find_top_group(FOUR, TOLD)
    said = describe_disjoint_intervals(group, FOUR, 6)
    assert said == (
        "The interval of V1 and that of V1 + V2 do not touch, but a difference is not shown after the correction for 6 pairs "
        "(p 0.2)."
    )
    bounds["V1 + V2"] = (0.85, 0.9)
    assert describe_disjoint_intervals(group, FOUR, 6) == ""


def test_long_lists_are_shortened() -> None:
    assert shorten_names(list("abcd")) == "a, b, c and d" and shorten_names(list("abcdef")) == "a, b, c and 3 more"


def test_candidates_of_a_summary_have_what_the_group_reads() -> None:
    assert np.isnan(CandidateResults("x", 1, {}).median_cost("train_seconds"))


def test_members_of_whom_one_leads_another_are_not_ahead_as_one() -> None:
    """V2 and V1 + V2 err alike, so that their small difference is told, and V1's with either is not."""
    found = compared(*(c for c in TOLD.pairs if (c.a, c.b) != ("V2", "V1 + V2")), pair("V2", "V1 + V2", "ahead"))
    assert is_ahead_together(find_top_group(FOUR, TOLD), TOLD)
    assert not is_ahead_together(find_top_group(FOUR, found), found)
    assert describe_other_leads(find_top_group(FOUR, found), found) == ""  # V1 is ahead of R: the sentence names that


def test_who_leads_where_the_first_leads_nobody_is_named() -> None:
    undecided = [pair("V1", other, "cannot tell") for other in ("V2", "V1 + V2", "R")]
    rest = [pair("V2", "V1 + V2", "cannot tell"), pair("V2", "R", "ahead"), pair("V1 + V2", "R", "cannot tell")]
    found = compared(*undecided, *rest)
    assert describe_other_leads(find_top_group(FOUR, found), found) == "Of the others, V2 is ahead of R."
    more = compared(*undecided, *rest[:2], pair("V1 + V2", "R", "ahead"))
    said = describe_other_leads(find_top_group(FOUR, more), more)
    assert said == "Of the others, 2 pairs are told apart, V2 and R among them."
    assert describe_other_leads(find_top_group(FOUR, compared(*undecided)), compared(*undecided)) == ""

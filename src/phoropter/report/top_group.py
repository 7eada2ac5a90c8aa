"""The candidates that cannot be told from the best, those they are ahead of, and what separates the former: their cost.

All rests on the answers about these models on new rows; what is said of training again follows in a sentence of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from phoropter.core.durations import format_duration
from phoropter.report.render.wording import list_names
from phoropter.report.sections.candidate_values import primary_metric_interval
from phoropter.report.sections.candidates.pair_words import describe_reach
from phoropter.report.summary.compare import CandidateComparisons
from phoropter.report.summary.model import CandidateResults, StudySummary
from phoropter.results.stats.pairs.answers import Comparison

MIN_COST_RATIO = 1.5  # a difference in cost that is worth a sentence


@dataclass(frozen=True)
class TopGroup:
    """leader: the best candidate that was trained to the end · pairs: it with each other such candidate, in their order

    undecided: cannot be told from the leader · same: practically the same · identical: with the same answers
    behind:    the leader is ahead of them · better: ahead of the leader, because not all of their runs are finished
    not_converged: name → why it was left out, of those that were not trained to the end
    """

    leader: CandidateResults
    pairs: tuple[Comparison, ...]
    undecided: tuple[str, ...]
    same: tuple[str, ...]
    identical: tuple[str, ...]
    behind: tuple[str, ...]
    better: tuple[str, ...]
    not_converged: dict[str, str]

    @property
    def members(self) -> tuple[str, ...]:
        """The leader and all that it is not shown to be ahead of, in the order of the leaderboard."""
        return (self.leader.name, *(c.b for c in self.pairs if c.b in {*self.undecided, *self.same, *self.identical}))

    def pair_with(self, name: str) -> Comparison:
        return next(c for c in self.pairs if c.b == name)


def find_top_group(summary: StudySummary, comparisons: CandidateComparisons) -> TopGroup:
    """Where no candidate was trained to the end, all are compared, and all are named as such."""
    reasons = {c.name: reason for c in summary.candidates if (reason := _why_not_converged(c))}
    ended = [c for c in summary.candidates if c.name not in reasons] or summary.candidates
    names = {c.name for c in ended}
    leader = ended[0]
    pairs = tuple(c for c in comparisons.pairs if c.a == leader.name and c.b in names)

    def with_verdict(*verdicts: str) -> tuple[str, ...]:
        return tuple(c.b for c in pairs if c.verdict in verdicts)

    return TopGroup(
        leader,
        pairs,
        with_verdict("cannot tell"),
        with_verdict("practically the same"),
        with_verdict("identical"),
        with_verdict("ahead"),
        with_verdict("behind"),
        reasons,
    )


def _why_not_converged(candidate: CandidateResults) -> str:
    """Why its runs count as not trained to the end; empty where they do not, or where it was not recorded."""
    return str(getattr(candidate, "not_converged", None) or "")


def is_ahead_together(group: TopGroup, comparisons: CandidateComparisons) -> bool:
    """Whether the members may be said to be ahead as one: none of them ahead of another, each ahead of each candidate behind."""
    told_apart = {frozenset(pair) for pair in _find_leads(comparisons)}
    alike = not any(frozenset(pair) in told_apart for pair in combinations(group.members, 2))
    undecided = bool(group.undecided) and not (group.same or group.better)
    return undecided and alike and all_are_ahead(group, comparisons)


def describe_other_leads(group: TopGroup, comparisons: CandidateComparisons) -> str:
    """`B is ahead of D.`: who leads somebody where the first candidate leads nobody; else empty."""
    compared = {c.b for c in group.pairs}
    leads = [pair for pair in _find_leads(comparisons) if {*pair} <= compared]
    if group.behind or not leads:
        return ""
    if len(leads) == 1:
        return f"Of the others, {leads[0][0]} is ahead of {leads[0][1]}."
    return f"Of the others, {len(leads):,} pairs are told apart, {leads[0][0]} and {leads[0][1]} among them."


def _find_leads(comparisons: CandidateComparisons, question: str = "") -> list[tuple[str, str]]:
    """(who is ahead, of whom) of every pair, by the answer that leads or by that to one question."""
    verdicts = [(c, getattr(c, question).verdict if question else c.verdict) for c in comparisons.pairs]
    return [(c.a, c.b) if v == "ahead" else (c.b, c.a) for c, v in verdicts if v in ("ahead", "behind")]


def all_are_ahead(group: TopGroup, comparisons: CandidateComparisons, question: str = "") -> bool:
    """Whether each member, not only the leader, is ahead of each candidate behind; question: `training` or `rows` (default: the
    answer that leads)."""
    ahead = set(_find_leads(comparisons, question))
    return all((member, other) in ahead for member in group.members for other in group.behind)


def describe_disjoint_intervals(group: TopGroup, summary: StudySummary, family_size: int) -> str:
    """Names every undecided candidate whose interval does not touch the leader's, and says why it is undecided; else empty."""
    bounds = {c.name: primary_metric_interval(c) for c in summary.candidates}
    low, high = bounds[group.leader.name]
    apart = [name for name in group.undecided if bounds[name].high < low or bounds[name].low > high]
    if not apart:
        return ""
    whose = f"The interval of {group.leader.name} and {'those' if len(apart) > 1 else 'that'} of {list_names(apart, len(apart))}"
    surest = min((group.pair_with(name).leading for name in apart), key=lambda answer: answer.p_adjusted)
    if reach := describe_reach(surest, summary):
        return f"{whose} do not touch, but {reach}."
    shown = f" (p {'at least ' if len(apart) > 1 else ''}{surest.p_adjusted:.2g})" if surest.is_tested else ""
    reason = f"after the correction for {family_size:,} pairs" if family_size > 1 else "by the test of the pair"
    return f"{whose} do not touch, but a difference is not shown {reason}{shown}."


def describe_cost(group: TopGroup, summary: StudySummary) -> str:
    """Of candidates that cannot be told apart, the cheapest to train and to use; empty where they cost about the same.

    They are compared with the leader, or where that is the cheapest, with the dearest.
    """
    members = [c for c in summary.candidates if c.name in group.members]
    training = _find_cheapest(members, "train_seconds")
    use = _find_cheapest(members, "macs")
    clauses = []
    if training is not None:
        ratio, least, most = training
        seconds = [format_duration(c.median_cost("train_seconds")) for c in (least, most)]
        against = f" ({seconds[0]} against {seconds[1]} a run)"
        clauses.append(f"{least.name} is {ratio} times cheaper to train than {most.name}{against}")
    if use is not None:
        ratio, least, most = use
        same = training is not None and training[1:] == use[1:]
        words = f"{ratio} times cheaper to use" if same else f"{least.name} is {ratio} times cheaper to use than {most.name}"
        clauses.append(f"{words} (multiply-adds)")
    return f"Of those that cannot be told apart, {' and '.join(clauses)}." if clauses else ""


def _find_cheapest(members: Sequence[CandidateResults], cost: str) -> tuple[str, CandidateResults, CandidateResults] | None:
    """The ratio as text, the cheapest, and the candidate it is compared with; None where a cost is unknown or they are alike."""
    values = {c.name: c.median_cost(cost) for c in members}
    if len(members) < 2 or not all(np.isfinite(v) and v > 0 for v in values.values()):
        return None
    least, most = (choose(members, key=lambda c: values[c.name]) for choose in (min, max))
    for other in (members[0], most):  # the leader first
        ratio = values[other.name] / values[least.name]
        if ratio >= MIN_COST_RATIO:
            return _format_ratio(ratio), least, other
    return None


def _format_ratio(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.1f}"


def describe_not_converged(group: TopGroup, asked: Collection[str] = ()) -> str:
    """One sentence for the candidates that were left out because they were not trained to the end; else empty.

    asked: names of those that planned questions are about, which are answered all the same
    """
    if not group.not_converged:
        return ""
    by_reason: dict[str, list[str]] = {}
    for name, reason in group.not_converged.items():
        by_reason.setdefault(reason, []).append(name)
    said = "; ".join(f"{list_names(names, len(names))} ({reason})" for reason, names in by_reason.items())
    if group.leader.name in group.not_converged:
        alone = not group.pairs and len(group.not_converged) == 1
        return f"{said} was not trained to the end." if alone else f"No candidate was trained to the end: {said}."
    is_asked = not group.not_converged.keys().isdisjoint(asked)
    of = "the exploratory sentences, not of the planned questions" if is_asked else "these sentences"
    return f"Not trained to the end, and so left out of {of}: {said}."


def shorten_names(names: Sequence[str], most: int = 4) -> str:
    """All names where there are few, else the first ones and the number of the others."""
    return list_names(names, most if len(names) <= most else most - 1)

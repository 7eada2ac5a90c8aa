"""What the comparison of two studies concludes, in sentences that claim no more than its numbers support."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from phoropter.report.conclusion import describe_reference
from phoropter.report.render.metric_format import MetricFormat
from phoropter.report.study_pairing import CrossStudyComparison, StudyPair
from phoropter.results.metrics.registry import METRICS
from phoropter.results.stats.optimism import ProtocolGap


def comparison_format(studies: StudyPair) -> MetricFormat:
    """How the metric that two studies are compared by is written."""
    return MetricFormat.from_metric(METRICS[studies.metric])


def conclude_comparison(studies: StudyPair) -> list[str]:
    """One or two sentences: the gap of two protocols, or who leads, and whether the better one beats guessing."""
    if studies.basis == "protocols":
        return _protocol_sentences(studies)
    if studies.basis == "classes":
        return _two_problem_sentences(studies)
    if not studies.pairs:
        return ["The two studies share all their runs, so there is nothing to compare."]
    leaders = next((p for p in studies.pairs if _pairs_leaders(studies, p)), studies.pairs[0])
    sentences = [_pair_sentence(studies, leaders)]
    named = [p for p in studies.pairs if p.a == p.b]
    if len(named) > 1:
        differing = sum(p.verdict in ("ahead", "behind") for p in named)
        verb = "differ" if differing > 1 else "differs"
        sentences.append(f"Of {len(named)} candidates that are in both, {differing or 'none'} {verb} between the studies.")
    return sentences


def _two_problem_sentences(studies: StudyPair) -> list[str]:
    """Who is first in each, and that the two are not compared."""
    scale = comparison_format(studies)
    first = [
        f"{side.summary.candidates[0].name} is first in {side.label} with "
        f"{scale.format_value(side.summary.candidates[0].metric_mean(studies.metric))} {scale.inline_title}"
        for side in (studies.a, studies.b)
    ]
    return [f"{'; '.join(first)}. The two studies tell different classes apart, so no difference between them is tested."]


def _pairs_leaders(studies: StudyPair, pair: CrossStudyComparison) -> bool:
    return (pair.a, pair.b) == (studies.a.summary.candidates[0].name, studies.b.summary.candidates[0].name)


def _pair_sentence(studies: StudyPair, pair: CrossStudyComparison) -> str:
    one, two = f"{pair.a} of {studies.a.label}", f"{pair.b} of {studies.b.label}"
    where = {"splits": "on the same splits", "rows": "on the same rows", "unpaired": "on different rows"}.get(studies.basis, "")
    if pair.verdict == "identical":
        return f"{one} and {two} give the same answers {where}."
    if pair.verdict == "cannot tell":
        bounds = _format_bounds(studies, pair.low, pair.high)
        text = f"{one} and {two} cannot be told apart {where}: they differ by {_format_size(studies, pair.difference)}{bounds}"
        return f"{text}, and the better one is not clearly better than guessing." if pair.beats_guessing is False else f"{text}."
    better, worse, sign = (one, two, 1) if pair.verdict == "ahead" else (two, one, -1)
    bounds = _format_bounds(studies, *sorted((sign * pair.low, sign * pair.high)))
    difference = sign * pair.difference
    if not METRICS[studies.metric].higher_is_better:
        difference, bounds = abs(difference), _format_bounds(studies, *sorted((abs(pair.low), abs(pair.high))))
    size = f"{_format_size(studies, difference)} of {comparison_format(studies).inline_title}{bounds}"
    summary = (studies.a if pair.verdict == "ahead" else studies.b).summary
    beats = f"; it is clearly better than {describe_reference(summary)}" if pair.beats_guessing else ""
    return f"{better} is ahead of {worse} by {size} {where}{beats}."


def _protocol_sentences(studies: StudyPair) -> list[str]:
    gaps = [g for g in studies.gaps if g.metric == studies.metric]
    sign = -1 if METRICS[studies.metric].higher_is_better else 1
    first = min(gaps, key=lambda g: (sign * g.group_held_out, g.candidate))
    scale = comparison_format(studies)
    within, held_out = scale.format_value(first.within_group), scale.format_value(first.group_held_out)
    bounds = _format_bounds(studies, first.interval.low, first.interval.high)
    excludes_zero = first.interval.low > 0 or first.interval.high < 0
    units = studies.group_held_out.summary.group_word.plural
    text = (
        f"{first.candidate} has {within} {scale.inline_title} with {units} shared by training and test sets and {held_out} with "
        f"held-out {units}: a gap of {_format_size(studies, first.difference)}{bounds}"
        f"{'' if excludes_zero else ', which this comparison cannot tell from zero'}."
    )
    if len(gaps) > 1:
        low, high = (min(g.difference for g in gaps), max(g.difference for g in gaps))
        each = " to ".join(map(comparison_format(studies).format_signed, (low, high)))
        text += f" Over {len(gaps)} candidates the gap is {each}{' points' if comparison_format(studies).percent else ''}."
    return [text, *_order_sentences(studies, gaps)]


def _order_sentences(studies: StudyPair, gaps: Sequence[ProtocolGap]) -> list[str]:
    """The ranking by values only; each study's own page has the tests."""
    if len(gaps) < 2:
        return []
    names, sign = [g.candidate for g in gaps], -1 if METRICS[studies.metric].higher_is_better else 1
    within = [g.candidate for g in sorted(gaps, key=lambda g: (sign * g.within_group, g.candidate))]
    held_out = [g.candidate for g in sorted(gaps, key=lambda g: (sign * g.group_held_out, g.candidate))]
    if within == held_out:
        return [f"Both protocols rank the {len(names)} candidates in the same order by their means."]
    if within[0] != held_out[0]:
        units = studies.group_held_out.summary.group_word.plural
        return [f"By their means, {within[0]} ranks first with shared {units}, and {held_out[0]} with held-out {units}."]
    return [f"By their means, both rank {within[0]} first, and the others in a different order."]


def _format_size(studies: StudyPair, value: float) -> str:
    scale = comparison_format(studies)
    sign = "\u2212" if scale.format_signed(value).startswith("\u2212") else ""
    return f"{sign}{scale.format_difference(value)}"


def _format_bounds(studies: StudyPair, low: float, high: float) -> str:
    if not (np.isfinite(low) and np.isfinite(high)):
        return ""
    return f" (95 % interval {' to '.join(map(comparison_format(studies).format_signed, (low, high)))})"

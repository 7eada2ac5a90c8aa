"""The study in one or two sentences that claim no more than its numbers support.

Every claim rests on a verdict of results/stats/compare.py, which requires both the corrected p and the interval to agree. Where
there is no verdict, the sentence says that this protocol cannot tell, not that there is no difference.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from phoropter.report.render.metric_format import MetricFormat
from phoropter.report.sections.candidate_values import primary_metric_interval
from phoropter.report.summary.compare import CandidateComparisons
from phoropter.report.summary.majority_class import BASELINE_NAME, majority_class_scores
from phoropter.report.summary.model import CandidateResults, StudySummary
from phoropter.results.metrics.registry import METRICS
from phoropter.results.stats.compare import Design
from phoropter.results.stats.no_information import OWN_ANSWERS
from phoropter.results.stats.pairs.answers import Comparison

MAX_NAMED = 2  # candidates listed by name; the others are counted


def write_conclusion(summary: StudySummary, comparisons: CandidateComparisons) -> tuple[list[str], list[str]]:
    """The sentences of the conclusion, and the small print below them."""
    uninformed = _uninformed_candidates(summary, comparisons.design)
    guessing = f"clearly better than {_reference(summary)}" if summary.candidates[0] in uninformed else ""
    sentences = [_leader_sentence(summary, comparisons, guessing)]
    if len(uninformed) == len(summary.candidates):
        nobody = "No candidate is" if len(uninformed) > 1 else f"{uninformed[0].name} is not"
        sentences.insert(0, f"{nobody} {guessing}.")
    elif guessing and guessing not in sentences[0]:
        sentences.append(f"{summary.candidates[0].name} is not {guessing}.")
    sentences[0] = _qualify_sentence(sentences[0], summary)
    small_print = [*(_leader_score_sentence(summary), _power_sentence(summary, comparisons)), *_stored_metric_sentences(summary)]
    return sentences, [s for s in small_print if s]


def _stored_metric_sentences(summary: StudySummary) -> list[str]:
    """One for each metric of the user's own that could not be recomputed."""
    records = [METRICS[m] for m in summary.metrics if METRICS[m].unavailable]
    return [f"{r.title} has the values that the runs recorded, without intervals: {r.unavailable}." for r in records]


def describe_test_population(summary: StudySummary) -> str:
    """`on unseen people` and the like: to which rows the results apply, according to what the protocol held out."""
    units = summary.group_word.plural
    if summary.has_groups and summary.protocol_config.get("allow_group_overlap"):
        return f"on unseen rows of {units} that are partly in the training data"
    if summary.protocol_config.get("split") == "held-out-sites" and not any(c.external_test for c in summary.candidates):
        return f"on unseen {summary.site_word.plural}"  # else, folds inside the training sites, the external test has them
    return f"on unseen {units}" if summary.has_groups else "on unseen rows"


def _leader_sentence(summary: StudySummary, comparisons: CandidateComparisons, guessing: str) -> str:
    leader, population = summary.candidates[0], describe_test_population(summary)
    pairs = comparisons.leader_pairs
    if not pairs:
        scale = MetricFormat.from_metric(summary.ranking_metric)
        score = f"{scale.format_value(leader.metric_mean(summary.metrics[0]))} {scale.inline_title}"
        return f"{leader.name} reaches {score} {population}; there is no other candidate to compare it with."
    beaten = [c for c in pairs if c.verdict == "ahead"]
    if not beaten:
        return _undecided_sentence(summary, comparisons)
    if guessing:
        return f"This protocol finds no candidate ahead: {leader.name} ranks first {population}, but is not {guessing}."
    ahead = f"{leader.name} is ahead of {beaten[0].b} by {difference_text(beaten[0], summary)} {population}"
    if len(beaten) == len(pairs):
        rest = len(beaten) - 1
        others = "the other candidate" if rest == 1 else f"the other {rest} candidates"
        return f"{ahead}, and ahead of {others} too." if rest else f"{ahead}."
    same = [c for c in pairs if c.verdict == "practically the same"]
    undecided = [c for c in pairs if c.verdict not in ("ahead", "practically the same")]
    parts = [ahead + (f", and ahead of {_list_others(beaten[1:])}" if beaten[1:] else "")]
    parts += [f"practically the same as {_list_others(same)}"] if same else []
    parts += [f"whether it differs from {_list_others(undecided)}, this protocol cannot tell"] if undecided else []
    return "; ".join(parts) + "."


def _undecided_sentence(summary: StudySummary, comparisons: CandidateComparisons) -> str:
    """Of a leader that is ahead of no other candidate."""
    leader, population, pairs = summary.candidates[0].name, describe_test_population(summary), comparisons.leader_pairs
    second = pairs[0]
    if all(c.verdict == "practically the same" for c in pairs):
        all_candidates = "Both candidates" if len(pairs) == 1 else f"All {len(summary.candidates)} candidates"
        return f"{all_candidates} are practically the same {population}."
    if all(np.isnan(c.p) for c in pairs):
        reason = second.note or "there are too few splits"
        return f"{leader} ranks first {population}, but its lead cannot be tested: {reason}."
    difference = difference_text(second, summary)
    if len(pairs) == 1:
        return f"This protocol cannot tell {leader} and {second.b} apart: they differ by {difference} {population}."
    return (
        f"This protocol finds no candidate ahead: {leader} ranks first {population}, but cannot be told apart from any of the "
        f"{len(pairs)} others; it differs from {second.b}, the next, by {difference}."
    )


def difference_text(comparison: Comparison, summary: StudySummary) -> str:
    """By how much the first is better, with the interval: `1.8 points of accuracy (95 % interval 0.4 to 3.1)`."""
    metric = summary.ranking_metric
    factor = (1 if metric.higher_is_better else -1) * (100 if metric.percent else 1)
    digits = 1 if metric.percent else 3

    def format_signed(value: float) -> str:
        return f"{value:.{digits}f}".replace("-", "\u2212")

    value = format_signed(comparison.difference * factor)
    bounds = sorted((comparison.low * factor, comparison.high * factor))
    unit = ("point of" if value == "1.0" else "points of") if metric.percent else "in"
    interval = f" (95 % interval {' to '.join(map(format_signed, bounds))})" if np.isfinite(bounds).all() else ""
    return f"{value} {unit} {MetricFormat.from_metric(metric).inline_title}{interval}"


def _list_others(pairs: Sequence[Comparison]) -> str:
    """The compared candidates: `a, b and 3 more`."""
    names = [c.b for c in pairs]
    if len(names) > MAX_NAMED + 1:
        return f"{', '.join(names[:MAX_NAMED])} and {len(names) - MAX_NAMED} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _qualify_sentence(sentence: str, summary: StudySummary) -> str:
    """Prefixes what limits the sentence: a smoke version, or missing runs."""
    limits = []
    if summary.study.get("scale"):
        limits.append("in this smoke version of the study")
    if summary.n_finished < summary.n_planned:
        limits.append(f"after {summary.n_finished:,} of {summary.n_planned:,} runs")
    start = ", ".join(limits)
    return f"{start[:1].upper()}{start[1:]}: {sentence}" if start else sentence


def _uninformed_candidates(summary: StudySummary, design: Design) -> list[CandidateResults]:
    """Those whose interval does not clear the value without information; none where this value is unknown.

    The leader was selected among all candidates, so bounds are taken at a level corrected for all of them (Bonferroni).
    Resampling rows ignores that models of different folds share training rows, which makes the interval too narrow for labels
    that are noise. Over splits the distance to the bound is therefore widened by the factor by which the correction of Nadeau &
    Bengio (2003) raises the standard error of the mean over k folds: variance 1/k becomes 1/k + 1/(k-1).
    docs/statistics.md reports how often noise still passes.
    """
    ratio = 0.0 if np.isnan(design.test_to_train) else design.test_to_train
    widening = 1.0 if design.kind == "one test set" else float(np.sqrt(2 + ratio))
    level, found = 1 - (1 - design.level) / len(summary.candidates), []
    for candidate in summary.candidates:
        if candidate.replicates is None or candidate.no_information is None:
            continue
        interval, value = candidate.replicates.confidence_interval(level), candidate.no_information.value
        if summary.ranking_metric.higher_is_better:
            informed = interval.estimate - widening * (interval.estimate - interval.low) > value
        else:
            informed = interval.estimate + widening * (interval.high - interval.estimate) < value
        found += [] if informed else [candidate]
    return found


def _reference(summary: StudySummary) -> str:
    """What the leader is compared with, and its value where that is the same for all candidates."""
    reference = summary.candidates[0].no_information
    if reference is None:
        return ""
    if reference.source == OWN_ANSWERS or isinstance(summary.ranking_metric.chance, float):
        return reference.source
    scale = MetricFormat.from_metric(summary.ranking_metric)
    return f"{reference.source} ({scale.format_value(reference.value)} {scale.inline_title})"


def _leader_score_sentence(summary: StudySummary) -> str:
    scale, first = MetricFormat.from_metric(summary.ranking_metric), summary.candidates[0]
    low, high = primary_metric_interval(first)
    text = f"{first.name} reaches {scale.format_value(first.metric_mean(summary.metrics[0]))} {scale.inline_title}"
    if np.isfinite(low):
        units = summary.unit_word.count(summary.n_units)
        text += f" (95 % interval {scale.format_value(low)} to {scale.format_value(high)}, over {units})"
    baseline = majority_class_scores(summary).get(summary.metrics[0])
    text += f"; the {BASELINE_NAME} reaches {scale.format_value(baseline)}." if baseline is not None else "."
    if first.external_test is None:
        return text
    external = first.external_test.interval
    bounds = f" (95 % interval {scale.format_value(external.low)} to {scale.format_value(external.high)})"
    score = scale.format_value(external.estimate) + (bounds if np.isfinite(external.low) else "")
    return f"{text} On {summary.site_word.plural} never trained on, the ensemble of its models reaches {score}."


def _power_sentence(summary: StudySummary, comparisons: CandidateComparisons) -> str:
    detectable = comparisons.leader_pairs[0].detectable if comparisons.leader_pairs else float("nan")
    if not np.isfinite(detectable) or not detectable > 0:
        return ""
    size = f"{detectable * 100:.1f} points" if summary.ranking_metric.percent else f"{detectable:.3f}"
    return f"A single comparison of the first two under this protocol detects a true difference of {size} with a power of 80 %."

"""The study in one or two plain sentences, never stronger than its numbers.

Every claim rests on a verdict of results/statistics.py, which asks the corrected p and the interval to agree; where there is none
the sentence says that this protocol cannot tell, not that there is no difference.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from phoropter.report import tables
from phoropter.report.render.metric_format import MetricFormat
from phoropter.report.summary.compare import CandidateComparisons
from phoropter.report.summary.model import StudySummary
from phoropter.results.stats.compare import Comparison, Design

MAX_NAMED = 2  # candidates listed by name before the rest are counted


def write_conclusion(evidence: StudySummary, found: CandidateComparisons) -> tuple[list[str], list[str]]:
    """The sentences of the conclusion, and those in small print beside it."""
    guessing = _no_better_than_chance(evidence, found.design)
    sentences = [_qualify_sentence(_leader_sentence(evidence, found, guessing), evidence)]
    if guessing and guessing not in sentences[0]:
        sentences.append(f"No candidate is {guessing}.")
    return sentences, [s for s in (_leader_score_sentence(evidence), _power_sentence(evidence, found)) if s]


def describe_test_population(evidence: StudySummary) -> str:
    """On whom: what the protocol kept apart."""
    word = str((evidence.study.get("dataset") or {}).get("group_word") or "group") + "s"
    if evidence.has_groups and evidence.protocol_config.get("allow_group_overlap"):
        return f"on unseen rows of {word} that were partly trained on"
    if evidence.protocol_config.get("split") == "sites" and not any(e.external_test for e in evidence.candidates):
        return "on unseen sites"  # with folds inside the training sites, the unseen ones are reported beside
    return f"on unseen {word}" if evidence.has_groups else "on unseen rows"


def _leader_sentence(evidence: StudySummary, found: CandidateComparisons, guessing: str) -> str:
    leader = evidence.candidates[0].name
    value = MetricFormat.from_metric(evidence.ranking_metric).format_value(
        evidence.candidates[0].metric_mean(evidence.metrics[0])
    )
    title = MetricFormat.from_metric(evidence.ranking_metric).inline_title
    if not found.leader_pairs:
        return f"{leader} reaches {value} {title} {describe_test_population(evidence)}; there is no other candidate to compare it with."
    beaten = [c for c in found.leader_pairs if c.verdict == "ahead"]
    others = [c for c in found.leader_pairs if c.verdict != "ahead"]
    if not beaten:
        return _undecided_sentence(evidence, found)
    if guessing:
        return f"This protocol finds no candidate ahead: {leader} comes first {describe_test_population(evidence)}, but is not {guessing}."
    against = beaten[0]
    ahead = f"{leader} is ahead of {against.b} by {difference_text(against, evidence)} {describe_test_population(evidence)}"
    if not others:
        rest = len(beaten) - 1
        return f"{ahead}" + (f", and ahead of the other {rest} candidate{'s' if rest > 1 else ''} too." if rest else ".")
    same = [c for c in others if c.verdict == "practically the same"]
    open_ = [c for c in others if c.verdict != "practically the same"]
    ahead += _also_ahead_of(beaten[1:])
    text = [f"{ahead}; "]
    text += [f"practically the same as {_list_names(same)}" + ("; " if open_ else ".")] if same else []
    text += [f"whether it differs from {_list_names(open_)}, this protocol cannot tell."] if open_ else []
    return "".join(text)


def _undecided_sentence(evidence: StudySummary, found: CandidateComparisons) -> str:
    """The leader is ahead of nobody."""
    leader, second = evidence.candidates[0].name, found.leader_pairs[0]
    same = [c for c in found.leader_pairs if c.verdict == "practically the same"]
    if len(same) == len(found.leader_pairs):
        return f"All {len(evidence.candidates)} candidates are practically the same {describe_test_population(evidence)}."
    if all(np.isnan(c.p) for c in found.leader_pairs):
        return f"{leader} comes first {describe_test_population(evidence)}, but its lead cannot be tested: {second.note or 'there are too few splits'}."
    if len(found.leader_pairs) == 1:
        apart = f"they differ by {difference_text(second, evidence)} {describe_test_population(evidence)}"
        return f"{leader} and {second.b} cannot be told apart by this protocol: {apart}."
    others = len(found.leader_pairs)
    text = f"This protocol finds no candidate ahead: {leader} comes first {describe_test_population(evidence)}, but cannot be told apart from any of "
    return f"{text}the {others} others; from {second.b}, the next, it differs by {difference_text(second, evidence)}."


def difference_text(found: Comparison, evidence: StudySummary) -> str:
    """How much better the first is, with its interval: `1.8 points of accuracy (95 % interval 0.4 to 3.1)`."""
    sign = 1 if evidence.ranking_metric.higher_is_better else -1
    factor = 100 if evidence.ranking_metric.percent else 1
    values = sorted((sign * found.low * factor, sign * found.high * factor))
    digits = 1 if evidence.ranking_metric.percent else 3
    value = sign * found.difference * factor
    unit = f"point{'' if f'{value:.{digits}f}' == '1.0' else 's'} of " if evidence.ranking_metric.percent else "in "
    bounds = " to ".join(f"{v:.{digits}f}".replace("-", "\u2212") for v in values)
    interval = f" (95 % interval {bounds})" if np.isfinite(values).all() else ""
    return (
        f"{value:.{digits}f} ".replace("-", "\u2212")
        + unit
        + MetricFormat.from_metric(evidence.ranking_metric).inline_title
        + interval
    )


def _also_ahead_of(beaten: Sequence[Comparison]) -> str:
    return f", and ahead of {_list_names(beaten)}" if beaten else ""


def _list_names(found: Sequence[Comparison]) -> str:
    """`a, b and 3 more`."""
    names = [c.b for c in found]
    if len(names) > MAX_NAMED + 1:
        return f"{', '.join(names[:MAX_NAMED])} and {len(names) - MAX_NAMED} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _qualify_sentence(sentence: str, evidence: StudySummary) -> str:
    """With what must be known before it is believed."""
    words = []
    if evidence.study.get("scale"):
        words.append("in this small stand-in for the study")
    if evidence.n_finished < evidence.n_planned:
        words.append(f"after {evidence.n_finished:,} of {evidence.n_planned:,} runs")
    start = ", ".join(words)
    return f"{start[:1].upper()}{start[1:]}: {sentence}" if start else sentence


def _no_better_than_chance(evidence: StudySummary, design: Design) -> str:
    """What the leader is not, `clearly better than …`; empty where it is, or where guessing has no known value.

    The leader was picked among all candidates, so its bound is that of a level that allows for all of them (Bonferroni).
    Resampling rows does not know that the models of different folds share training rows, and on labels that are noise it is too
    sure; so over splits the distance to the bound grows as Nadeau & Bengio's correction lets the variance of k folds grow, from
    1/k to 1/k + 1/(k-1). How often noise passes is in docs/statistics.md.
    """
    name, first = evidence.metrics[0], evidence.candidates[0]
    base = _CHANCE_VALUES.get(name, tables.majority_class_scores(evidence).get(name))
    if base is None or first.replicates is None:
        return ""
    found = first.replicates.percentile_interval(1 - (1 - design.level) / len(evidence.candidates))
    shared = 0.0 if np.isnan(design.test_to_train) else design.test_to_train
    longer = 1.0 if design.kind == "one test set" else float(np.sqrt(2 + shared))
    words = "chance" if name in _CHANCE_VALUES else "always answering the commonest class"
    return "" if found.estimate - longer * (found.estimate - found.low) > base else f"clearly better than {words}"


_CHANCE_VALUES = {"roc_auc": 0.5, "mcc": 0.0, "kappa": 0.0}  # whatever the classes' shares


def _leader_score_sentence(evidence: StudySummary) -> str:
    scale, first = MetricFormat.from_metric(evidence.ranking_metric), evidence.candidates[0]
    bounds = tables.primary_metric_interval(first)
    text = f"{first.name} has {scale.format_value(first.metric_mean(evidence.metrics[0]))} {MetricFormat.from_metric(evidence.ranking_metric).inline_title}"
    if np.isfinite(bounds.low):
        unit = "groups" if evidence.has_groups else "rows"
        text += f" (95 % interval {scale.format_value(bounds.low)} to {scale.format_value(bounds.high)}, over {evidence.n_units:,} {unit})"
    base = tables.majority_class_scores(evidence).get(evidence.metrics[0])
    text += f"; always answering the commonest class has {scale.format_value(base)}." if base is not None else "."
    if first.external_test is None:
        return text
    found = first.external_test.interval
    bounds_there = (
        f" (95 % interval {scale.format_value(found.low)} to {scale.format_value(found.high)})" if np.isfinite(found.low) else ""
    )
    return f"{text} On sites never trained on, its models averaged have {scale.format_value(found.estimate)}{bounds_there}."


def _power_sentence(evidence: StudySummary, found: CandidateComparisons) -> str:
    detectable = found.leader_pairs[0].detectable if found.leader_pairs else float("nan")
    if not np.isfinite(detectable) or not detectable > 0:
        return ""
    size = f"{detectable * 100:.1f} points" if evidence.ranking_metric.percent else f"{detectable:.3f}"
    return (
        f"Between the first two, one comparison under this protocol would have found a true difference of {size} 8 times in 10."
    )

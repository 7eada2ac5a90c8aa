"""The study in a few sentences that claim no more than its numbers support: the question that was asked comes first.

Every claim rests on a verdict of results/stats, which requires both the corrected p and the interval to agree. `Ahead` is said of
these trained models on new rows; whether training again would repeat it has a sentence of its own. Where there is no verdict, the
sentence says that this protocol cannot tell, not that there is no difference.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from phoropter.report.baseline_sentence import describe_simple_baselines
from phoropter.report.planned_sentences import planned_sentences
from phoropter.report.render.metric_format import MetricFormat
from phoropter.report.sections.blind_metric import describe_blind_metric, describe_undefined_metric
from phoropter.report.sections.candidate_values import primary_metric_interval
from phoropter.report.sections.candidates.pair_words import describe_training_answer, explain_undecided
from phoropter.report.summary.compare import CandidateComparisons
from phoropter.report.summary.guessing import find_uninformed
from phoropter.report.summary.majority_class import BASELINE_NAME, majority_class_scores
from phoropter.report.summary.model import StudySummary
from phoropter.report.summary.questions import NO_ANSWERS, QuestionAnswers
from phoropter.report.top_group import (
    TopGroup,
    all_are_ahead,
    describe_cost,
    describe_disjoint_intervals,
    describe_not_converged,
    describe_other_leads,
    find_top_group,
    is_ahead_together,
    shorten_names,
)
from phoropter.results.metrics.registry import METRICS
from phoropter.results.stats.no_information import OWN_ANSWERS
from phoropter.results.stats.pairs.answers import Comparison


def write_conclusion(
    summary: StudySummary,
    comparisons: CandidateComparisons,
    answers: QuestionAnswers = NO_ANSWERS,
    leader_sentences: Sequence[str] = (),
) -> tuple[list[str], list[str]]:
    """The sentences of the conclusion, and the small print below them.

    First that nothing beats guessing, where nothing does; then the planned question, and what follows for who acts on an answer
    (`leader_sentences`, about the first candidate), on the first screen of a phone; then who is in the top group and ahead of
    whom, what is known of training again, and the cost among equals. Where nothing was planned, the top group comes first.
    """
    if undefined := describe_undefined_metric(summary):
        return [_qualify_sentence(undefined, summary), *leader_sentences], _stored_metric_sentences(summary)
    group, population = find_top_group(summary, comparisons), describe_test_population(summary)
    uninformed = find_uninformed(summary, comparisons.design)
    guessing = f"clearly better than {describe_reference(summary)}" if group.leader in uninformed else ""
    planned = planned_sentences(answers, population)
    sentences = [*planned[:1], *leader_sentences, *planned[1:]] if planned else []
    if len(uninformed) == len(summary.candidates):
        nobody = "No candidate is" if len(uninformed) > 1 else f"{uninformed[0].name} is not"
        sentences.insert(0, f"{nobody} {guessing}.")
    first = _leader_sentence(summary, comparisons, group, guessing)
    sentences.append(f"Exploratory, over all pairs: {first}" if sentences and answers.planned else first)
    if guessing and len(uninformed) < len(summary.candidates) and guessing not in first:
        sentences.append(f"{group.leader.name} is not {guessing}.")
    sentences += () if planned else leader_sentences
    if not guessing:
        sentences += _further_sentences(summary, comparisons, group)
    sentences.append(describe_other_leads(group, comparisons))
    sentences += [describe_simple_baselines(summary, comparisons)]
    asked = {name for answer in answers.planned for name in answer.contrast.candidates}
    sentences += [describe_not_converged(group, asked), describe_blind_metric(summary)]
    sentences[0] = _qualify_sentence(sentences[0], summary)
    small_print = [_leader_score_sentence(summary), _corrected_value_sentence(summary, answers)]
    small_print += [_power_sentence(summary, comparisons), *_stored_metric_sentences(summary)]
    return [s for s in sentences if s], [s for s in small_print if s]


def _further_sentences(summary: StudySummary, comparisons: CandidateComparisons, group: TopGroup) -> list[str]:
    """After the top group: training again, intervals that do not touch, cost."""
    found = [_training_sentence(group, comparisons)] if group.behind else []
    found.append(describe_disjoint_intervals(group, summary, comparisons.family_size))
    return [*found, describe_cost(group, summary)]


def _training_sentence(group: TopGroup, comparisons: CandidateComparisons) -> str:
    """Whether training again would repeat the leads on these rows: of the whole top group, where all of it is said to lead."""
    leads = [group.pair_with(name) for name in group.behind]
    repeated = [c for c in leads if c.training.verdict == "ahead"]
    others = [c for c in leads if c.training.verdict != "ahead"]
    if not others:
        all_of_them = not is_ahead_together(group, comparisons) or all_are_ahead(group, comparisons, "training")
        what = "that" if all_of_them else f"the lead of {group.leader.name}"
        return f"Training again on other data of this size would repeat {what}."
    reason = describe_training_answer(others[0])
    if not repeated:
        return f"{reason[:1].upper()}{reason[1:]}."
    which = f"the lead over {shorten_names([c.b for c in repeated])}"
    rest = f"the one over {shorten_names([c.b for c in others])}"
    return f"Training again on other data of this size would repeat {which}; {reason.replace('repeat that', f'repeat {rest}')}."


def _corrected_value_sentence(summary: StudySummary, answers: QuestionAnswers) -> str:
    """The value of the winner corrected for its selection, beside the plain one."""
    best, scale = answers.best, MetricFormat.from_metric(summary.ranking_metric)
    if best is None:
        return ""
    plain, corrected = scale.format_value(best.plain), scale.format_value(best.corrected)
    same = "stays " if plain == corrected else ""
    return (
        f"Corrected for having been chosen as the best of {best.n_candidates}, its value {same or 'is '}{corrected} (bootstrap "
        "bias-corrected cross-validation); its interval is not corrected for that choice."
    )


def _stored_metric_sentences(summary: StudySummary) -> list[str]:
    """One for each metric of the user's own that could not be recomputed."""
    records = [METRICS[m] for m in summary.metrics if METRICS[m].unavailable]
    return [f"{r.title} has the values that the runs recorded, without intervals: {r.unavailable}." for r in records]


def describe_test_population(summary: StudySummary) -> str:
    """`on unseen people` and the like: to which rows the results apply, according to what the protocol held out."""
    units = summary.group_word.plural
    if summary.has_groups and summary.protocol_config.get("allow_group_overlap"):
        return f"on unseen rows of {units} that are partly in the training data"
    by_site = summary.protocol_config.get("split") in ("held-out-sites", "leave-one-site-out")
    if by_site and not any(c.external_test for c in summary.candidates):
        return f"on unseen {summary.site_word.plural}"  # else, folds inside the training sites, the external test has them
    return f"on unseen {units}" if summary.has_groups else "on unseen rows"


def _leader_sentence(summary: StudySummary, comparisons: CandidateComparisons, group: TopGroup, guessing: str) -> str:
    leader, population = group.leader, describe_test_population(summary)
    if not group.pairs:
        scale = MetricFormat.from_metric(summary.ranking_metric)
        score = f"{scale.format_value(leader.metric_mean(summary.metrics[0]))} {scale.inline_title}"
        unfinished = group.not_converged.keys() - {leader.name}
        alone = "no other was trained to the end" if unfinished else "there is no other candidate to compare it with"
        return f"{leader.name} reaches {score} {population}; {alone}."
    if not group.behind:
        return _undecided_sentence(summary, group, comparisons, guessing)
    if guessing:
        return f"This protocol finds no candidate ahead: {leader.name} ranks first {population}, but is not {guessing}."
    nearest = f"by {difference_text(group.pair_with(group.behind[0]), summary)}"
    rest = _name_rest(group)
    if is_ahead_together(group, comparisons):
        are = f"{shorten_names(group.members)} cannot be told apart {population} and are ahead of {rest}"
        if group.identical:
            are += f" ({_identical_clause(group)})"
        return f"{are}; {leader.name} is ahead of {group.behind[0]} {nearest}."
    others = group.behind[1:]
    ahead = f"{leader.name} is ahead of {group.behind[0]} {nearest} {population}"
    if len(others) == len(group.pairs) - 1:
        everyone = "the other candidate" if len(others) == 1 else f"the other {len(others)} candidates"
        return f"{ahead}, and ahead of {everyone} too." if others else f"{ahead}."
    parts = [ahead + (f", and ahead of {shorten_names(others)}" if others else "")]
    parts += [f"it is practically the same as {shorten_names(group.same)}"] if group.same else []
    parts += [_identical_clause(group)] if group.identical else []
    parts += [f"it cannot be told from {shorten_names(group.undecided)}"] if group.undecided else []
    parts += [f"{shorten_names(group.better)}, not finished, {_is_are(group.better)} ahead of it so far"] if group.better else []
    return "; ".join(parts) + "."


def _name_rest(group: TopGroup) -> str:
    """`B, C and D`, or `the rest`, where the leader is ahead of everybody else and they are many."""
    complete = len(group.behind) + len(group.members) == len(group.pairs) + 1
    return "the rest" if complete and len(group.behind) > 4 else shorten_names(group.behind)


def _identical_clause(group: TopGroup) -> str:
    give = "gives" if len(group.identical) == 1 else "give"
    return f"{shorten_names(group.identical)} {give} the same answers as {group.leader.name}"


def _is_are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _undecided_sentence(summary: StudySummary, group: TopGroup, comparisons: CandidateComparisons, guessing: str) -> str:
    """Of a leader that is ahead of no other candidate."""
    leader, population, pairs = group.leader.name, describe_test_population(summary), group.pairs
    second = pairs[0]
    all_candidates = "Both candidates" if len(pairs) == 1 else f"All {len(pairs) + 1} candidates"
    if len(group.identical) == len(pairs):
        return f"{all_candidates} give the same answers {population}."
    if len(group.same) + len(group.identical) == len(pairs):
        return f"{all_candidates} are practically the same {population}."
    if all(np.isnan(c.p) for c in pairs):
        reason = second.note or "there are too few splits"
        return f"{leader} ranks first {population}, but its lead cannot be tested: {reason}."
    if group.better:
        better = f"{shorten_names(group.better)}, not finished, {_is_are(group.better)} ahead of it so far"
        return f"This protocol finds no candidate ahead: {leader} ranks first of the finished {population}; {better}."
    if guessing and not second.identical:
        who = f"{second.b}, the next" if len(pairs) > 1 else second.b
        first = f"{leader} ranks first {population}, by {difference_text(second, summary)} over {who}"
        none = "no lead is claimed for a candidate that is not clearly better than guessing"
        return f"This protocol finds no candidate ahead: {first}, but {none}."
    reason = explain_undecided(second.leading, summary)
    why = f": {reason}" if reason else ""
    if len(pairs) == 1:
        differ = f"they differ by {difference_text(second, summary)} {population}"
        return f"This protocol cannot tell {leader} and {second.b} apart: {differ}{why}."
    if second.identical:
        return f"This protocol finds no candidate ahead: {leader} ranks first {population}, and {_identical_clause(group)}{why}."
    finds = "" if describe_other_leads(group, comparisons) else "This protocol finds no candidate ahead: "
    return (
        f"{finds}{leader} ranks first {population}, but cannot be told apart from any of the {len(pairs)} others; it differs "
        f"from {second.b}, the next, by {difference_text(second, summary)}{why}."
    )


def difference_text(comparison: Comparison, summary: StudySummary) -> str:
    """By how much the first is better, with the interval: `1.8 points of accuracy (95 % interval 0.4 to 3.1)`."""
    metric = summary.ranking_metric
    scale, sign = MetricFormat.from_metric(metric), 1 if metric.higher_is_better else -1
    bounds = sorted((sign * comparison.low, sign * comparison.high))
    interval = f" (95 % interval {' to '.join(map(scale.format_signed, bounds))})" if np.isfinite(bounds).all() else ""
    return f"{scale.describe_gain(sign * comparison.difference)}{interval}"


def _qualify_sentence(sentence: str, summary: StudySummary) -> str:
    """Prefixes what limits the sentence: a smoke version, or missing runs."""
    limits = []
    if summary.study.get("scale"):
        limits.append("in this smoke version of the study")
    if summary.n_finished < summary.n_planned:
        limits.append(f"after {summary.n_finished:,} of {summary.n_planned:,} runs")
    start = ", ".join(limits)
    return f"{start[:1].upper()}{start[1:]}: {sentence}" if start else sentence


def describe_reference(summary: StudySummary) -> str:
    """What is called guessing, and its value where that is the same for all candidates."""
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

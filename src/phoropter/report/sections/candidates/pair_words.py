"""What the two answers about a pair say, in words: the same in table, conclusion and caption."""

from __future__ import annotations

import numpy as np

from phoropter.report.render.metric_format import MetricFormat
from phoropter.report.render.wording import count_with_noun
from phoropter.report.summary.model import StudySummary
from phoropter.results.stats.pairs.answers import Answer, Comparison

NO_BETTER_THAN_GUESSING = "cannot tell: no better than guessing"
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def verdict_word(comparison: Comparison, answer: Answer, summary: StudySummary) -> str:
    """One cell of a table: `ahead`, `cannot tell`, or why the test could not tell whatever the data."""
    if comparison.identical:
        return "identical"
    if answer.verdict == "cannot tell" and comparison.is_guessing:
        return NO_BETTER_THAN_GUESSING
    if answer.verdict == "cannot tell" and answer.is_tested and not answer.level_reachable:
        return f"cannot tell: {_counted_units(answer, summary)} {'is' if answer.result.n_counted == 1 else 'are'} too few"
    return answer.verdict


def describe_reach(answer: Answer, summary: StudySummary) -> str:
    """`with five people no difference can reach 5 % by this test`; empty where some can, or without a test."""
    if not answer.is_tested or answer.level_reachable:
        return ""
    alone = answer.result.least_p <= 1 - answer.result.level
    corrected = f" after correction for {count_with_noun(answer.family_size, 'pair')}" if alone else ""
    level = f"{(1 - answer.result.level) * 100:.0f}\u00a0%"
    return f"with {_counted_units(answer, summary)} no difference can reach {level}{corrected} by this test"


def explain_undecided(answer: Answer, summary: StudySummary) -> str:
    """Why nobody is ahead where a reader would ask: no difference can be shown, or the interval leaves out zero and p is large.

    `after correction for 55 pairs p is 0.36`; empty where there is nothing to explain.
    """
    if reach := describe_reach(answer, summary):
        return reach
    result = answer.result
    excludes_zero = result.low > 0 or result.high < 0
    if not answer.is_tested or not excludes_zero or answer.p_adjusted <= 1 - result.level:
        return ""
    corrected = f"after correction for {count_with_noun(answer.family_size, 'pair')} " if answer.family_size > 1 else ""
    return f"{corrected}p is {answer.p_adjusted:.{2 if answer.p_adjusted > 0.1 else 3}f}"


def _counted_units(answer: Answer, summary: StudySummary) -> str:
    number = answer.result.n_counted
    if answer.result.test.startswith("McNemar"):
        return f"{_spell_number(number)} row{'' if number == 1 else 's'} that only one of the two gets right"
    word = summary.unit_word
    text = f"{_spell_number(number)} {word.singular if number == 1 else word.plural}"
    return text if number == answer.result.n_units else f"{text} in which the two differ"


def _spell_number(number: int) -> str:
    return _NUMBERS[number] if number < len(_NUMBERS) else f"{number:,}"


def describe_difference(comparison: Comparison, answer: Answer, summary: StudySummary) -> str:
    """By how much the first is better, with the interval of this answer: `16.7 points, 12.0 to 21.3`."""
    metric = summary.ranking_metric
    scale, sign = MetricFormat.from_metric(metric), 1 if metric.higher_is_better else -1
    value = scale.format_signed(sign * comparison.difference)
    unit = "" if not metric.percent else " point" if value == "1.0" else " points"
    bounds = sorted((sign * answer.result.low, sign * answer.result.high))
    interval = f", {scale.format_signed(bounds[0])} to {scale.format_signed(bounds[1])}" if np.isfinite(bounds).all() else ""
    return f"{value}{unit}{interval}"


def describe_rows_answer(comparison: Comparison, summary: StudySummary) -> str:
    """`ahead of B on these rows (16.7 points, 12.0 to 21.3)`, to follow the name of the first candidate."""
    other, shown = comparison.b, describe_difference(comparison, comparison.rows, summary)
    words = {
        "ahead": f"is ahead of {other} on these rows ({shown})",
        "behind": f"is behind {other} on these rows ({shown})",
        "practically the same": f"is practically the same as {other} on these rows ({shown})",
        "identical": f"gives the same answers as {other}",
        "cannot tell": f"cannot be told from {other} on these rows ({shown})",
    }
    if comparison.identical:
        return words["identical"]
    reach = describe_reach(comparison.rows, summary)
    return words[comparison.rows.verdict] + (f": {reach}" if reach and comparison.rows.verdict == "cannot tell" else "")


def describe_training_answer(comparison: Comparison) -> str:
    """A clause about training again, to follow a lead on these rows after a semicolon; empty where there is none to repeat."""
    answer = comparison.training
    if comparison.identical or comparison.rows.verdict not in ("ahead", "behind"):
        return ""
    if answer.verdict == comparison.rows.verdict:
        return "training again on other data of this size would repeat that"
    if answer.verdict == "practically the same":
        return "trained again on other data of this size, the two would be practically the same"
    return f"whether training again would repeat that cannot be told {_training_reason(comparison)}"


def _training_reason(comparison: Comparison) -> str:
    if comparison.training.result.test == "none":
        return "from one training part"
    splits = comparison.n_splits // max(1, comparison.n_rounds)
    if comparison.n_rounds > 1:
        return f"from {comparison.n_rounds} rounds of {splits} folds"
    if comparison.training.result.test == "corrected resampled t":
        return f"from {count_with_noun(comparison.n_splits, 'split')}"
    return f"from one round of {splits} folds: add seeds"

"""What the planned contrasts say, in sentences: the primary question first."""

from __future__ import annotations

import numpy as np

from phoropter.report.render.metric_format import MetricFormat
from phoropter.report.render.wording import count_with_noun
from phoropter.report.summary.questions import QuestionAnswers
from phoropter.results.metrics.registry import METRICS
from phoropter.results.questions.contrasts import ContrastAnswer
from phoropter.results.stats.pairs.answers import Answer, Verdict

_FAMILIES = {
    "cnn": "convolutional networks",
    "attention": "attention networks",
    "hybrid": "hybrid networks",
    "fused": "fusions",
    "distilled": "distilled students",
}


def planned_sentences(answers: QuestionAnswers, population: str) -> list[str]:
    """The answers to the primary question and to a single secondary one; of several, one sentence that counts differences.

    population: `on unseen people`.
    """
    if not answers.planned:
        return []
    primary, *secondary = answers.planned
    sentences = [f"The planned question: {describe_answer(primary, population)}."]
    if len(secondary) == 1:
        sentences.append(f"The secondary question: {describe_answer(secondary[0], population)}.")
    elif secondary:
        shown = [a for a in secondary if _leading_verdict(a) in ("ahead", "behind")]
        named = f"a difference is shown: {'; '.join(describe_sides(a) for a in shown)}" if shown else "is a difference shown"
        sentences.append(f"On {len(shown) or 'none'} of the {len(secondary)} secondary questions {named}.")
    return sentences


def describe_answer(answer: ContrastAnswer, population: str) -> str:
    """Both answers in one clause, without a full stop."""
    side, against = name_sides(answer)
    if not answer.rows.is_tested and not answer.training.is_tested:
        reason = answer.note or answer.rows.result.note or answer.training.result.note
        return f"{side} against {against} has no answer: {reason}"
    rows, training = answer.rows, answer.training
    if rows.is_tested and rows.verdict not in ("ahead", "behind"):
        gain = answer.difference if METRICS[answer.contrast.metric].higher_is_better else -answer.difference
        better = side if gain > 0 else against if gain < 0 else ""
        by = format_difference(answer, rows, f" in favour of {better}" if better else "")
        if rows.verdict == "practically the same":
            return f"{side} and {against} are practically the same {population}: they differ by {by}"
        if answer.is_guessing:
            return f"{side} and {against} differ by {by} {population}, but the better side is not clearly better than guessing"
        return f"{side} and {against} cannot be told apart {population}: they differ by {by}"
    lead = training if training.verdict in ("ahead", "behind") or not rows.is_tested else rows
    words = "cannot be told from" if lead.verdict not in ("ahead", "behind") else f"{_is_or_are(answer)} {lead.verdict} of"
    words = words.replace("behind of", "behind")
    text = f"{side} {words} {against} by {format_difference(answer, lead)} {population}{_count_wins(answer)}"
    if training.verdict == rows.verdict:
        return f"{text}; training again on other data of this size would repeat that"
    if rows.is_tested:
        return f"{text}; whether training again would repeat that cannot be told {_training_reason(answer)}"
    return text


def describe_sides(answer: ContrastAnswer) -> str:
    """`augment cutmix is ahead of augment none`."""
    side, against = name_sides(answer)
    verdict = _leading_verdict(answer)
    return f"{side} {_is_or_are(answer)} {verdict}{' of' if verdict == 'ahead' else ''} {against}"


def _leading_verdict(answer: ContrastAnswer) -> Verdict:
    """About new rows where that is tested, as the primary question and the pairs are told; else about training again."""
    return (answer.rows if answer.rows.is_tested else answer.training).verdict


def name_sides(answer: ContrastAnswer) -> tuple[str, str]:
    """`augment cutmix` and `augment none`; families in words; candidates by name."""
    contrast = answer.contrast
    if contrast.factor == "candidate":
        return contrast.side, contrast.against
    if contrast.factor == "family":
        return _FAMILIES.get(contrast.side, contrast.side), _FAMILIES.get(contrast.against, contrast.against)
    what = contrast.factor.rpartition(".")[2].replace("_", " ")
    return f"{what} {contrast.side}", f"{what} {contrast.against}"


def format_difference(answer: ContrastAnswer, of: Answer, whose_favour: str = "") -> str:
    """How much better the side that leads is, with the interval of this answer, in its direction, and which question it answers:
    `1.2 points of accuracy (95 % interval 0.4 to 2.1, of models trained again)`. whose_favour: behind the number
    """
    scale, sign = MetricFormat.from_metric(METRICS[answer.contrast.metric]), 1 if answer.difference >= 0 else -1
    low, high = (scale.format_signed(sign * bound) for bound in _ordered(of, sign))
    whose = "models trained again" if of.question == "training" else "these models"
    has_bounds = np.isfinite([of.result.low, of.result.high]).all()
    interval = f" (95 % interval {low} to {high}, of {whose})" if has_bounds else ""
    return f"{scale.describe_gain(sign * answer.difference)}{whose_favour}{interval}"


def _ordered(of: Answer, sign: int) -> tuple[float, float]:
    return (of.result.low, of.result.high) if sign > 0 else (of.result.high, of.result.low)


def _is_or_are(answer: ContrastAnswer) -> str:
    return "are" if answer.contrast.factor == "family" else "is"


def _count_wins(answer: ContrastAnswer) -> str:
    """`, in 8 of 8 candidates`: in how many the sign is that of the difference."""
    n = len(answer.of_units)
    if n < 2:
        return ""
    wins = sum(d * answer.difference > 0 for d in answer.of_units)
    return f", in {wins} of {n} candidates"


def _training_reason(answer: ContrastAnswer) -> str:
    if not answer.training.is_tested:
        return "from one training part"
    return f"from {count_with_noun(len(answer.of_splits), 'split')}: add seeds"

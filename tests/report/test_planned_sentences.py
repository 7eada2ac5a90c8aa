"""The sentences about planned contrasts, for every pair of answers."""

from __future__ import annotations

import pytest

from phoropter.report.planned_sentences import describe_answer, planned_sentences
from phoropter.report.summary.questions import QuestionAnswers
from phoropter.results.questions.contrasts import ContrastAnswer
from phoropter.results.questions.planned import Contrast, ContrastUnit
from phoropter.results.stats.paired_tests import PairedTest
from phoropter.results.stats.pairs.answers import Answer, Verdict

UNITS = tuple(ContrastUnit(f"n{i}", (f"n{i} b",), (f"n{i} a",)) for i in range(8))
NAN = float("nan")


def answered(
    rows: Verdict = "ahead",
    training: Verdict | None = "ahead",
    difference: float = 0.0121,
    metric: str = "accuracy",
    factor: str = "recipe.augment",
    sides: tuple[str, str] = ("slit-cutmix", "none"),
) -> ContrastAnswer:
    """training: None where it was not tested."""
    low, high = difference - 0.0085, difference + 0.0085
    first = Answer("rows", PairedTest("paired t over units", difference, 0.01, low + 0.002, high - 0.002), rows)
    again = (
        PairedTest("two-component t", difference, 0.02, low, high)
        if training
        else PairedTest("none", difference, NAN, note="one part")
    )
    contrast = Contrast("primary", metric, factor, *sides, UNITS if factor.startswith("recipe") else UNITS[:1])
    of_units = (difference,) * 7 + (-difference / 9,)
    return ContrastAnswer(
        contrast,
        difference,
        first,
        Answer("training", again, training or "cannot tell"),
        of_units[: len(contrast.units)],
        (difference,) * 5,
    )


SLIT = (
    "augment slit-cutmix is {} augment none by 1.2 points of accuracy (95 % interval {}) on unseen births, in 7 of 8 candidates; "
)
APART = (
    "augment slit-cutmix and augment none {} on unseen births: they differ by 1.2 points of accuracy in favour of augment "
    "slit-cutmix (95 % interval 0.6 to 1.9, of these models)"
)
WIDE, NARROW = "0.4 to 2.1, of models trained again", "0.6 to 1.9, of these models"
REPEATS = "training again on other data of this size would repeat that"
OPEN = "whether training again would repeat that cannot be told "


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (answered(), SLIT.format("ahead of", WIDE) + REPEATS),
        (answered(training="cannot tell"), SLIT.format("ahead of", NARROW) + OPEN + "from 5 splits: add seeds"),
        (answered(training=None), SLIT.format("ahead of", NARROW) + OPEN + "from one training part"),
        (answered("cannot tell", "cannot tell"), APART.format("cannot be told apart")),
        (
            answered("cannot tell", "cannot tell", -0.0121),
            APART.format("cannot be told apart").replace("of augment slit-cutmix (", "of augment none ("),
        ),
        (
            answered("cannot tell", "cannot tell", -0.0121, metric="log_loss", factor="candidate", sides=("V1", "V2")),
            "V1 and V2 cannot be told apart on unseen births: they differ by 0.012 in log-loss in favour of V1 (95 % interval "
            "0.006 to 0.019, of these models)",
        ),
        (answered("practically the same", "cannot tell"), APART.format("are practically the same")),
        (answered("behind", "behind", -0.0121), SLIT.format("behind", WIDE) + REPEATS),
        (
            answered("ahead", "ahead", -0.0121, metric="log_loss", factor="family", sides=("attention", "cnn")),
            "attention networks are ahead of convolutional networks by 0.012 in log-loss (95 % interval 0.004 to 0.021, of "
            f"models trained again) on unseen births; {REPEATS}",
        ),
        (
            answered(factor="candidate", sides=("V1", "V2")),
            f"V1 is ahead of V2 by 1.2 points of accuracy (95 % interval {WIDE}) on unseen births; {REPEATS}",
        ),
    ],
)
def test_the_primary_answer_in_words(answer: ContrastAnswer, expected: str) -> None:
    assert describe_answer(answer, "on unseen births") == expected


def test_a_contrast_without_answer_gives_the_reason() -> None:
    test = PairedTest("none", NAN, NAN, note="there are no scores of n3 b")
    contrast = Contrast("primary", "accuracy", "recipe.augment", "b", "a", UNITS)
    answer = ContrastAnswer(contrast, NAN, Answer("rows", test), Answer("training", test), note=test.note)
    assert describe_answer(answer, "on unseen rows") == "augment b against augment a has no answer: there are no scores of n3 b"


def test_secondary_questions_are_counted_and_those_that_differ_named() -> None:
    nothing = answered("cannot tell", "cannot tell")
    said = planned_sentences(
        QuestionAnswers((answered(), nothing, answered(factor="candidate", sides=("V1", "V2")))), "on unseen rows"
    )
    assert said[0].startswith("The planned question: augment slit-cutmix is ahead of ") and said[0].endswith(".")
    assert said[1] == "On 1 of the 2 secondary questions a difference is shown: V1 is ahead of V2."
    none = planned_sentences(QuestionAnswers((answered(), nothing, nothing)), "on unseen rows")[1]
    assert none == "On none of the 2 secondary questions is a difference shown."
    assert planned_sentences(QuestionAnswers(), "x") == []


def test_secondary_questions_are_counted_by_new_rows_as_the_primary_one_is_told() -> None:
    told = answered("ahead", "cannot tell")
    first, second = planned_sentences(QuestionAnswers((told, told, told)), "on unseen births")
    assert "augment slit-cutmix is ahead of augment none" in first and "cannot be told" in first
    assert second.startswith(
        "On 2 of the 2 secondary questions a difference is shown: augment slit-cutmix is ahead of augment none;"
    )


def test_a_single_secondary_question_is_told_as_the_primary_one_is() -> None:
    for other in (answered("ahead", "cannot tell"), answered("cannot tell", "cannot tell")):
        second = planned_sentences(QuestionAnswers((answered(), other)), "on unseen births")[1]
        assert second == f"The secondary question: {describe_answer(other, 'on unseen births')}."

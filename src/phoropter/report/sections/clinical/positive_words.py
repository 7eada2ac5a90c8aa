"""Words for the positive class, for an answer's owner, and for false alarms, as sentences and tables use them."""

from __future__ import annotations

from phoropter.report.render.table import one_line
from phoropter.report.summary.clinical.model import ClinicalResults, LevelResults
from phoropter.report.summary.model import StudySummary

_ONE_IN = {0.5: "two", 0.25: "four", 0.2: "five", 0.1: "ten", 0.05: "twenty", 0.02: "fifty", 0.01: "a hundred"}


def name_positive(summary: StudySummary, clinical: ClinicalResults) -> str:
    """`‘acidosis’`. Only where there is a positive class."""
    return f"‘{one_line(summary.classes[clinical.positive or 0])}’"


def find_outcome_rule(summary: StudySummary) -> str:
    """`pH<=7.15`, where the study makes its classes of an outcome; else empty."""
    return one_line(str((summary.study_config.get("data") or {}).get("outcome") or ""))


def name_negative(summary: StudySummary, clinical: ClinicalResults) -> str:
    """`‘healthy’`, or `non-‘acidosis’` where there are several."""
    if len(summary.classes) == 2:
        return f"‘{one_line(summary.classes[1 - (clinical.positive or 0)])}’"
    return f"non-{name_positive(summary, clinical)}"


def describe_false_alarms(share: float) -> str:
    """`one false alarm in ten`; of shares that are not one of a few, `7 false alarms in 100`."""
    if (word := _ONE_IN.get(round(share, 6))) is not None:
        return f"one false alarm in {word}"
    return f"{share * 100:.3g} false alarms in 100"


def describe_positive(summary: StudySummary, clinical: ClinicalResults) -> str:
    """Which class counts as positive, and how to count another one."""
    positive, negative = name_positive(summary, clinical), name_negative(summary, clinical)
    if clinical.is_stated:
        against = ", against all others" if len(summary.classes) > 2 else ""
        rule = f" The classes are by the outcome {rule}." if (rule := find_outcome_rule(summary)) else ""
        return f"The positive class is {positive}{against}.{rule}"
    name = one_line(summary.classes[1 - (clinical.positive or 0)])
    return (
        f"The study names no positive class, so {positive} counts as positive, the last of the two. To count {negative}, add "
        f"data: {{positive: {name}}} to the study file and run it again: no run is computed anew."
    )


def describe_owner(level: LevelResults) -> str:
    """`per birth: the mean of the probabilities of its rows`; of rows, `per window`."""
    return f"per {level.word.singular}" + ("" if level.level == "row" else f": {level.rule} of its rows")

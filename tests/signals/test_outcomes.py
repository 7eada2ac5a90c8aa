from __future__ import annotations

import pytest

from phoropter.core.errors import DataError, SpecError
from phoropter.signals.outcomes import outcome_class


@pytest.mark.parametrize(
    ("apgar1", "apgar5", "label"),
    [
        (6, 8, "high-risk"),
        (7, 6, "high-risk"),
        (7, 7, "normal"),
        (6, None, "high-risk"),
        (None, 6, "high-risk"),
        (9, None, None),
        (None, 9, None),
        (None, None, None),
    ],
)
def test_either_apgar_decides_for_and_both_against(apgar1: float | None, apgar5: float | None, label: str | None) -> None:
    assert outcome_class({"Apgar1": apgar1, "Apgar5": apgar5}, "apgar<=6") == label


@pytest.mark.parametrize(
    ("rule", "label"),
    [
        ("pH<=7.15", "high-risk"),
        ("pH<7.15", "normal"),
        ("pH >= 7.15", "high-risk"),
        ("pH>7.15", "normal"),
        ("BE<-10", "high-risk"),
    ],
)
def test_comparisons(rule: str, label: str) -> None:
    assert outcome_class({"pH": 7.15, "BE": -10.5}, rule) == label


def test_unknown_values_leave_a_birth_out() -> None:
    assert outcome_class({"BDecf": None}, "BDecf>=12") is None


def test_an_unknown_outcome_is_named_with_the_nearest() -> None:
    with pytest.raises(DataError, match=r"1001: it has no outcome 'ph', there are pH; did you mean 'pH'"):
        outcome_class({"pH": 7.1}, "ph<7.2", "1001")


def test_an_outcome_that_is_text_is_refused() -> None:
    with pytest.raises(DataError, match="should be a number, came 'low'"):
        outcome_class({"pH": "low"}, "pH<7.2")


@pytest.mark.parametrize("rule", ["pH", "pH<", "<7.2", "pH=7.2", "pH<seven", ""])
def test_a_malformed_rule_is_refused(rule: str) -> None:
    with pytest.raises(SpecError, match="expected a name, a comparison and a number"):
        outcome_class({"pH": 7.1}, rule)

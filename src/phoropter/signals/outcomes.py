"""Classes from outcomes, by rules such as `apgar<=6`, `pH<=7.15` or `BDecf>=12`.

CTU-UHB headers, manifests and the simulator use the same outcome keys, so one rule serves all of them.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping

from phoropter.core.errors import DataError, SpecError, did_you_mean, join_words

OUTCOME_CLASSES = ("normal", "high-risk")
BIRTH_OUTCOMES = ("pH", "BDecf", "pCO2", "BE", "Apgar", "Apgar1", "Apgar5")  # measured after the birth, wherever they are written

Outcome = Mapping[str, float | str | None]

_RULE_PATTERN = re.compile(r"^\s*([A-Za-z][\w. /()]*?)\s*(<=|>=|<|>)\s*(-?\d+(?:\.\d+)?)\s*$")
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


def outcome_class(outcome: Outcome, rule: str, where: str = "outcome") -> str | None:
    """The class of an outcome under a rule, or None where a missing value leaves it open.

    `apgar` means either score (Hemmi 2024): "high-risk" where one score meets the rule, "normal" where both are known and neither
    does, None otherwise. Raises SpecError for a malformed rule and DataError for an outcome that is absent or no number.

    >>> outcome_class({"Apgar1": 6.0, "Apgar5": 8.0}, "apgar<=6"), outcome_class({"pH": 7.2}, "pH<=7.15")
    ('high-risk', 'normal')
    """
    keys, comparison, number = _parse_rule(rule)
    holds, limit = _OPERATORS[comparison], float(number)
    verdicts = [None if (value := _get_number(outcome, key, where)) is None else holds(value, limit) for key in keys]
    if True in verdicts:
        return OUTCOME_CLASSES[1]
    return None if None in verdicts else OUTCOME_CLASSES[0]


def list_outcome_keys(rule: str) -> tuple[str, ...]:
    """The outcomes that a rule asks for. Raises SpecError for a malformed rule.

    >>> list_outcome_keys("apgar<=6"), list_outcome_keys("pH<=7.15")
    (('Apgar1', 'Apgar5'), ('pH',))
    """
    return _parse_rule(rule)[0]


def _parse_rule(rule: str) -> tuple[tuple[str, ...], str, str]:
    """Keys, comparison and number."""
    match = _RULE_PATTERN.match(rule)
    if match is None:
        raise SpecError(f"label rule {rule!r}: expected a name, a comparison and a number, such as apgar<=6 or pH<7.15")
    return ("Apgar1", "Apgar5") if match[1].lower() == "apgar" else (match[1],), match[2], match[3]


def _get_number(outcome: Outcome, key: str, where: str) -> float | None:
    if key not in outcome:
        raise DataError(f"{where}: it has no outcome {key!r}, there are {join_words(outcome)}{did_you_mean(key, outcome)}")
    value = outcome[key]
    if isinstance(value, str):
        raise DataError(f"{where}: outcome {key} should be a number, came {value!r}")
    return value

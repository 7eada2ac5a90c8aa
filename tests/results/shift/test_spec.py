"""`shift:` of a study file: short forms, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from phoropter.core.errors import SpecError
from phoropter.core.spec import validate_as
from phoropter.results.shift.spec import ShiftSpec


def test_a_level_stands_for_a_list_and_true_for_the_default_levels() -> None:
    spec = ShiftSpec.model_validate({"blur": 2, "jpeg": True})
    assert spec.named == {"blur": (2.0,), "jpeg": True}
    assert ShiftSpec().named == {}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"blurr": 2}, "blur"),
        ({"blur": False}, "blur"),
        ({"blur": []}, "blur has 0 levels, expected 1 to 20"),
        ({"blur": [2, 2]}, "blur names a level twice"),
        ({"blur": [0.1234567, 0.12345671]}, "blur names a level twice"),  # both have the same answers
        ({"noise": "0.1"}, "'0.1' is no level; expected true, a number or a list of numbers"),
        ({"noise": float("nan")}, "nan is no level"),
        ({"blur": [1, True]}, "True is no level"),
        ({"blur": 0}, "blur: 0 changes nothing"),
        ({"brightness": 1}, "brightness: 1 changes nothing"),
        ({"blur": -1}, "blur is -1, expected 0 to 100"),
        ({"jpeg": 0}, "jpeg is 0, expected 1 to 100"),
        ({"jpeg": 10.5}, "jpeg is 10.5, expected a whole number"),
        ({"blur": 1, "seed": 3}, "seed has no effect on blur, which draws nothing"),
        ({"noise": 0.1, "powerline_hz": 60}, "powerline_hz belongs to powerline"),
        ({"powerline": 0.1, "powerline_hz": 55}, "powerline_hz"),
    ],
)
def test_what_does_nothing_or_makes_no_sense_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        validate_as(ShiftSpec, given)

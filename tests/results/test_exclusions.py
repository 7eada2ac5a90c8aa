"""Steps of a flow of exclusions add up, or are refused, and come back from study.json as they were."""

from __future__ import annotations

import json

import pytest

from phoropter.core.errors import StoreError
from phoropter.results.exclusions import ExclusionStep, count_analysed, make_step, read_steps


def test_counts_add_up_or_are_refused() -> None:
    step = make_step("recordings", 470, {"of unknown class": 80, "shorter than a window": 2, "cannot be read": 0}, 470)
    assert (step.found, step.total_left_out, step.left_out[1]) == (552, 82, ("shorter than a window", 2))
    assert make_step("windows", 3, {}) == ExclusionStep("windows", 3, (), 3)
    for found, left_out in ((10, ()), (10, (("lost", 1),)), (8, (("lost", 0),)), (6, (("lost", -2),))):
        with pytest.raises(ValueError, match="cannot be kept"):
            ExclusionStep("pictures", found, left_out, 8)


def test_study_json_gives_the_same_steps() -> None:
    steps = (make_step("recordings", 5, {"lost": 2, "of no class": 1}, 4), make_step("windows", 9, {}))
    assert read_steps(json.loads(json.dumps([step.plain() for step in steps]))) == steps
    for damage in ({"kept": 6}, {"left_out": [["lost"]]}, {"found": "many"}):
        with pytest.raises(StoreError, match=r"dataset\.exclusions: .*; run the study again"):
            read_steps([{**steps[0].plain(), **damage}])
    with pytest.raises(StoreError, match="'unit'"):
        read_steps([{}])


def test_the_last_step_tells_what_was_analysed() -> None:
    steps = [step.plain() for step in (make_step("pictures", 9, {"lost": 1}), make_step("pictures", 7, {"unused": 2}, 3))]
    assert count_analysed({"rows": 9, "groups": 4, "exclusions": steps}) == (7, 3)
    assert count_analysed({"rows": 9, "groups": 4, "exclusions": steps[:1]}) == (9, 4)
    assert count_analysed({"rows": 9}) == count_analysed({"rows": 9, "exclusions": []}) == (9, None)

"""Kinds of corruption: their defaults are allowed and change something, and levels are ordered by the harm they do."""

from __future__ import annotations

import pytest

from phoropter.results.shift.corruption_kinds import KINDS, Corruption
from phoropter.results.shift.spec import ShiftSpec


@pytest.mark.parametrize("kind", KINDS)
def test_the_default_levels_are_levels_a_study_may_name(kind: str) -> None:
    assert ShiftSpec.model_validate({kind: list(KINDS[kind].levels)}).named == {kind: KINDS[kind].levels}


def test_levels_go_from_harmless_to_harmful_with_the_rows_as_they_are_in_their_place() -> None:
    assert KINDS["blur"].order_levels([4, 1, 2]) == ([1, 2, 4], 0)
    assert KINDS["jpeg"].order_levels([10, 50, 30]) == ([50, 30, 10], 0)
    assert KINDS["brightness"].order_levels([1.5, 0.5, 0.75]) == ([0.5, 0.75, 1.5], 2)
    assert KINDS["contrast"].order_levels([0.5, 2.0]) == ([2.0, 0.5], 1)


def test_a_key_names_all_that_decides_the_rows() -> None:
    first = Corruption("dropout_s", 2.0, 0, 0, 30.0)
    others = [
        Corruption("dropout_s", 3.0, 0, 0, 30.0),
        Corruption("dropout_s", 2.0, 1, 0, 30.0),
        Corruption("dropout_s", 2.0, 0, 0, 60.0),
        Corruption("powerline", 2.0, 0, 50),
        Corruption("powerline", 2.0, 0, 60),
    ]
    assert len({c.key for c in [first, *others]}) == 6
    assert first.words == "2 s lost in each window" and Corruption("noise", 0.05).words == "noise of 5 % of the range"

"""How controls are written in a study file."""

from __future__ import annotations

from typing import Any

import pytest

from phoropter.core.errors import SpecError
from phoropter.core.spec import validate_as
from phoropter.study.settings.controls_spec import ControlsSpec


def test_a_list_a_word_and_a_mapping() -> None:
    both = ("labels-permuted", "blank-pictures")
    assert validate_as(ControlsSpec, list(both)) == ControlsSpec(kinds=both)
    assert validate_as(ControlsSpec, "predict-site") == ControlsSpec(kinds=("predict-site",))
    assert validate_as(ControlsSpec, {"kinds": list(both), "candidate": "x"}).candidate == "x"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "no control is named; name one, as in"),
        (["predict-site", "predict-site"], "the control predict-site is named twice"),
        (["predict-sites"], "predict-sites"),
        ({"candidate": "x"}, "kinds"),
    ],
)
def test_what_is_refused(value: Any, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        validate_as(ControlsSpec, value)

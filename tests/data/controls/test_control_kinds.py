"""The names of the controls are those that `data` and `controls` of a study accept."""

from __future__ import annotations

from typing import get_args

import pytest

from phoropter.core.errors import SpecError
from phoropter.core.spec import validate_as
from phoropter.data.controls.control_kinds import SHORTCUTS, ControlName
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.study.settings.controls_spec import ControlsSpec


@pytest.mark.parametrize("kind", get_args(ControlName))
def test_every_name_is_accepted(kind: str) -> None:
    assert validate_as(ControlsSpec, [kind]).kinds == (kind,)
    assert validate_as(DataSpec, {"digits": True, "control": kind}).control == kind
    assert set(SHORTCUTS) <= set(get_args(ControlName))


def test_data_say_their_control_themselves() -> None:
    data = {"digits": True, "max_samples": 40}
    plain, blank = (open_dataset(validate_as(DataSpec, {**data, **more})) for more in ({}, {"control": "blank-pictures"}))
    assert plain.fingerprint != blank.fingerprint and (plain.labels == blank.labels).all()
    assert len({blank.read(row).tobytes() for row in range(len(blank))}) == 1


def test_another_word_is_refused() -> None:
    with pytest.raises(SpecError, match="labels-shuffled"):
        validate_as(ControlsSpec, ["labels-shuffled"])

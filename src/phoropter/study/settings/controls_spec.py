"""What a study file says of its negative controls."""

from __future__ import annotations

from typing import Any

from pydantic import field_validator, model_validator

from phoropter.core.spec import Spec
from phoropter.data.controls.control_kinds import ControlName


class ControlsSpec(Spec):
    """Negative controls: one candidate on data from which nothing, or nothing of the question, can be learnt.

    kinds:     which: labels-permuted, predict-site, predict-group, blank-pictures, time-shuffled
    candidate: name of the candidate they are computed for (default: the first network with a frozen backbone, else the first)
    """

    kinds: tuple[ControlName, ...]
    candidate: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _expand_list(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"kinds": [value]}
        return {"kinds": value} if isinstance(value, (list, tuple)) else value

    @field_validator("kinds")
    @classmethod
    def _check_kinds(cls, kinds: tuple[ControlName, ...]) -> tuple[ControlName, ...]:
        if not kinds:
            raise ValueError("no control is named; name one, as in [labels-permuted], or leave 'controls' out")
        if twice := next((kind for kind in kinds if kinds.count(kind) > 1), None):
            raise ValueError(f"the control {twice} is named twice; name it once")
        return kinds

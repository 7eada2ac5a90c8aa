"""Optimizers and schedules of the user's own are checked when they are made; tests/training/loop trains with them."""

from __future__ import annotations

from typing import Any

import pytest

from phoropter.training.candidates.custom_optimizer import Optimizer, Schedule


@pytest.mark.parametrize("make", [lambda: Optimizer("adamw", build=print), lambda: Schedule("cosine", factor=abs)])
def test_a_built_in_name_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="the name of a built-in one"):
        make()


@pytest.mark.parametrize("make", [lambda: Optimizer("x", build=3), lambda: Schedule("x", factor=None)])  # type: ignore[arg-type]
def test_what_is_no_function_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="expected a function"):
        make()

from __future__ import annotations

import pytest

import phoropter as ph
from phoropter.core.errors import SpecError
from phoropter.core.language.unnamed_values import describe_unnamed


def test_a_long_value_is_named_by_its_kind() -> None:
    assert describe_unnamed("Phase", ["x" * 99], ["lr"]).startswith("Phase: a str was given without a name")
    assert describe_unnamed("Phase", [3], ["epochs", "lr"]).endswith("by name, as in Phase(epochs=…, lr=…)")
    assert describe_unnamed("Phase", [3], ["epochs", "lr"], "so").endswith("by name; so")


@pytest.mark.parametrize("name", ["Recipe", "Phase", "DataSpec", "Study"])
def test_every_public_spec_says_what_to_write(name: str) -> None:
    with pytest.raises(SpecError, match=rf"^{name}: 'finetune' was given without a name, and values are given by name[,;] "):
        getattr(ph, name)("finetune")
    with pytest.raises(SpecError, match=r"unknown key 'foo'"):
        getattr(ph, name)(foo=1)


def test_a_recipe_says_where_a_preset_is_named() -> None:
    with pytest.raises(SpecError, match=r"recipe='scratch'"):
        ph.Recipe("scratch")  # type: ignore[arg-type]

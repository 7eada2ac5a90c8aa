"""Descriptions of keys, read from docstrings."""

from __future__ import annotations

from pydantic import Field

from phoropter.commands.key_descriptions import describe_fields, describe_spec, nested_specs
from phoropter.core.spec import Spec


class Inner(Spec):
    """A part."""

    depth: int = Field(1, description="how deep")


class Outer(Spec):
    """What it is,
    in two lines.

    one: the first · two: the second,
         which goes on
    """

    one: int
    two: int
    inner: Inner | None = None


def test_keys_are_found_in_a_docstring_and_on_the_field() -> None:
    assert describe_fields(Outer) == {"one": "the first", "two": "the second, which goes on"}
    assert describe_fields(Inner) == {"depth": "how deep"}


def test_the_first_paragraph_says_what_a_spec_is() -> None:
    assert describe_spec(Outer) == "What it is, in two lines."


def test_specs_within_are_found_once() -> None:
    assert nested_specs(Outer) == [Outer, Inner]

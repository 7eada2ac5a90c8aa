"""Objects of the user's own: validated, told apart by name and version, imported from a file only where it is trusted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from phoropter.core.errors import SpecError
from phoropter.core.extensions import Extension, resolve_reference, trust_code
from phoropter.core.spec import Spec, validate_as


@dataclass(frozen=True, eq=False)
class Shade(Extension):
    function: Any


class Painted(Spec):
    shade: Literal["red", "blue"] | Shade = "red"


def darker(x: float) -> float:
    return x / 2


def test_a_name_or_an_object_is_taken_and_only_name_and_version_are_kept() -> None:
    mine = Shade("dark", function=darker)
    painted = validate_as(Painted, {"shade": mine})
    assert painted.shade is mine and painted.plain() == {"shade": {"name": "dark", "version": "1"}}
    assert validate_as(Painted, {"shade": "blue"}).plain() == {"shade": "blue"}


def test_equal_by_class_name_and_version() -> None:
    assert Shade("dark", function=darker) == Shade("dark", function=abs)
    assert Shade("dark", function=darker) != Shade("dark", function=darker, version="2")
    assert len({Shade("dark", function=darker), Shade("dark", function=abs)}) == 1


def test_the_digest_follows_the_code_and_the_options() -> None:
    one, same, other = (Shade("dark", function=f) for f in (darker, darker, lambda x: x / 3))
    assert one.source_digest() == same.source_digest() != other.source_digest()


@pytest.mark.parametrize("name", ["", "two words", "../up", "a" * 65, 3])
def test_a_name_that_is_no_word_is_refused(name: Any) -> None:
    with pytest.raises(ValueError, match=r"the name of a shade is .*, expected a word"):
        Shade(name, function=darker)


def test_a_file_may_not_name_code_unless_it_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "shades_of_mine.py").write_text(
        "from tests_shade import Shade\nDARK = Shade('dark', function=abs)\nraise_me = 3\n".replace(
            "from tests_shade import Shade", "from phoropter.core.extensions import Extension as Shade"
        ).replace(", function=abs", "")
    )
    with pytest.raises(ValueError, match="a study file may not run code; if you wrote the file"):
        resolve_reference("shades_of_mine:DARK", Extension)
    with trust_code(tmp_path):
        assert resolve_reference("shades_of_mine:DARK", Extension).name == "dark"
        with pytest.raises(ValueError, match="has no 'LIGHT'"):
            resolve_reference("shades_of_mine:LIGHT", Extension)
        with pytest.raises(ValueError, match="is a int, expected a phoropter Extension"):
            resolve_reference("shades_of_mine:raise_me", Extension)
        with pytest.raises(ValueError, match="cannot be imported"):
            resolve_reference("no_such_module_here:X", Extension)
    with pytest.raises(ValueError, match="may not run code"):
        resolve_reference("shades_of_mine:DARK", Extension)


def test_the_spec_says_where() -> None:
    with pytest.raises(SpecError, match=r"shade.*may not run code"):
        validate_as(Painted, {"shade": "mine:DARK"})

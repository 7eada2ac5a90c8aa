"""Objects of the user's own: validated, told apart by name and version, imported from a file only where it is trusted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from phoropter.core.errors import RunError, SpecError
from phoropter.core.extensions import Extension, collect_extensions, read_recorded_extensions, resolve_reference, trust_code
from phoropter.core.spec import Spec, validate_as


@dataclass(frozen=True, eq=False)
class Shade(Extension):
    function: Any


class Painted(Spec):
    shade: Literal["red", "blue"] | Shade = "red"
    size: int = 1


def darker(x: float) -> float:
    return x / 2


def test_a_name_or_an_object_is_taken_and_only_name_and_version_are_kept() -> None:
    mine = Shade("dark", function=darker)
    painted = validate_as(Painted, {"shade": mine})
    assert painted.shade is mine and painted.plain() == {"shade": {"name": "dark", "version": "1"}, "size": 1}
    assert validate_as(Painted, {"shade": "blue"}).plain() == {"shade": "blue", "size": 1}


def test_equal_by_class_name_and_version() -> None:
    assert Shade("dark", function=darker) == Shade("dark", function=abs)
    assert Shade("dark", function=darker) != Shade("dark", function=darker, version="2")
    assert len({Shade("dark", function=darker), Shade("dark", function=abs)}) == 1


def test_the_digest_follows_the_code_and_the_options() -> None:
    one, same, other = (Shade("dark", function=f) for f in (darker, darker, lambda x: x / 3))
    assert one.source_digest() == same.source_digest() != other.source_digest()


@pytest.mark.parametrize("name", ["", "two words", "../up", "a" * 65, 3])
def test_a_name_that_is_no_word_is_refused(name: Any) -> None:
    with pytest.raises(ValueError, match=r"the name of this shade is .*, expected a word"):
        Shade(name, function=darker)


def test_a_file_may_not_name_code_unless_it_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "shades_of_mine.py").write_text(
        "from tests_shade import Shade\nDARK = Shade('dark', function=abs)\nraise_me = 3\n".replace(
            "from tests_shade import Shade", "from phoropter.core.extensions import Extension as Shade"
        ).replace(", function=abs", "")
    )
    with pytest.raises(ValueError, match="which is run only where it is trusted; if you wrote it"):
        resolve_reference("shades_of_mine:DARK", Extension)
    with trust_code(tmp_path):
        assert resolve_reference("shades_of_mine:DARK", Extension).name == "dark"
        with pytest.raises(ValueError, match="has no 'LIGHT'"):
            resolve_reference("shades_of_mine:LIGHT", Extension)
        with pytest.raises(ValueError, match="is a int, expected a phoropter Extension"):
            resolve_reference("shades_of_mine:raise_me", Extension)
        with pytest.raises(ValueError, match="cannot be imported"):
            resolve_reference("no_such_module_here:X", Extension)
    with pytest.raises(ValueError, match="is run only where it is trusted"):
        resolve_reference("shades_of_mine:DARK", Extension)


def test_the_spec_says_where() -> None:
    with pytest.raises(SpecError, match=r"shade.*is run only where it is trusted"):
        validate_as(Painted, {"shade": "mine:DARK"})


def test_a_spec_with_other_fields_changed_keeps_the_object() -> None:
    changed = Painted(shade=Shade("dark", function=darker)).with_changes(size=2)
    assert isinstance(changed.shade, Shade) and changed.shade.function is darker and changed.size == 2


def test_a_record_gives_back_the_object_or_a_placeholder_that_cannot_be_called() -> None:
    dark = Shade("dark", function=darker)
    record = Painted(shade=dark).plain()
    with pytest.raises(SpecError):
        validate_as(Painted, record)
    with read_recorded_extensions([Shade("light", function=abs), dark]):
        found = validate_as(Painted, record).shade
    assert isinstance(found, Shade) and found.function is darker
    with read_recorded_extensions():
        placeholder = validate_as(Painted, record).shade
    assert placeholder == dark and isinstance(placeholder, Shade)
    with pytest.raises(RunError, match=r"the Shade 'dark' \(version 1\) is not at hand"):
        placeholder.function(1.0)


def test_extensions_are_collected_from_any_depth() -> None:
    dark, light = Shade("dark", function=darker), Shade("light", function=abs)
    specs = {"one": [Painted(shade=dark), (Painted(shade="red"), Painted(shade=light))]}
    assert list(collect_extensions(specs)) == [dark, light]


def bare(*_: Any) -> None:
    """A function that nobody has wrapped."""


@pytest.mark.parametrize(
    ("keys", "place", "wrapper"),
    [
        ({"candidates": [bare]}, "candidates.0: got the function bare", "Backbone"),
        ({"candidates": [{"backbone": dict}]}, "candidates.0.backbone: got the class dict", "Backbone"),
        ({"candidates": [{"fuse": [bare, "resnet18"]}]}, "candidates.0.fuse.0: got the function bare", "Backbone"),
        ({"metrics": bare}, "metrics: expected a phoropter Metric or module:NAME, got the function bare", "Metric"),
        ({"recipe": {"loss": bare}}, "recipe.loss: got the function bare", "Loss"),
        ({"recipe": {"optimizer": {"kind": bare}}}, "recipe.optimizer.kind: got the function bare", "Optimizer"),
        ({"recipe": {"schedule": bare}}, "recipe.schedule: got the function bare", "Schedule"),
        ({"recipe": {"augment": ["hflip", bare]}}, "recipe.augment: .*; got the function bare", "AugmentationStep"),
        ({"protocol": bare}, "protocol: got the function bare", "Protocol"),
    ],
)
def test_a_bare_function_is_told_what_wraps_it(keys: dict[str, Any], place: str, wrapper: str) -> None:
    import phoropter

    with pytest.raises(SpecError, match=f'{place}: wrap it in ph.{wrapper}."NAME", '):
        phoropter.Study(**{"name": "s", "data": phoropter.digits(), "candidates": ["resnet18"], **keys})

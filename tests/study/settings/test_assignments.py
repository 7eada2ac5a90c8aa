"""--set KEY=VALUE: typed like YAML, added to short forms, refused with the words of the file's own errors, recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from phoropter.core.errors import SpecError
from phoropter.core.spec import SourceMap
from phoropter.study.settings.assignments import apply_assignments, parse_assignment
from phoropter.study.spec import read_study

STUDY = """\
name: tiny
data: {digits: true, size: 32}
protocol: stratified-k-fold
recipe: probe
candidates:
  - {name: cnn, backbone: test_resnet, weights: random, frozen: true}
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text(STUDY)
    return file


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=3", 3),
        ("a=1e-4", 1e-4),
        ("a=true", True),
        ("a=yes", "yes"),
        ("a=", None),
        ("a=[0, 1]", [0, 1]),
        ("a={b: c}", {"b": "c"}),
        ("a='3'", "3"),
        ("a=b=c", "b=c"),
    ],
)
def test_a_value_is_typed_as_in_a_study_file(text: str, value: Any) -> None:
    parsed = parse_assignment(text)
    assert parsed.value == value and type(parsed.value) is type(value) and parsed.path == ("a",)


@pytest.mark.parametrize(
    ("before", "text", "after"),
    [
        ({}, "recipe.epochs=3", {"recipe": {"epochs": 3}}),
        ({"recipe": "probe"}, "recipe.epochs=3", {"recipe": {"preset": "probe", "epochs": 3}}),
        (
            {"recipe": {"optimizer": "sgd"}},
            "recipe.optimizer.momentum=0",
            {"recipe": {"optimizer": {"kind": "sgd", "momentum": 0}}},
        ),
        ({"protocol": "k-fold"}, "protocol.folds=2", {"protocol": {"split": "k-fold", "folds": 2}}),
        ({"screening": True}, "screening.keep=2", {"screening": {"keep": 2}}),
        ({"candidates": ["a", "b"]}, "candidates.1.frozen=true", {"candidates": ["a", {"backbone": "b", "frozen": True}]}),
        ({"name": "a"}, "name=b", {"name": "b"}),
        ({"sweep": {"recipe.lr": [1]}}, "metrics=accuracy", {"sweep": {"recipe.lr": [1]}, "metrics": "accuracy"}),
    ],
)
def test_a_key_is_set_inside_what_a_short_form_stands_for(before: Any, text: str, after: Any) -> None:
    kept = repr(before)
    assert apply_assignments(before, SourceMap(), [parse_assignment(text)])[0] == after
    assert repr(before) == kept, "the data given are not changed"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("recipe.epoch=3", "--set recipe.epoch=3: unknown key 'epoch'.*did you mean 'epochs'"),
        ("protocol.fold=3", "--set protocol.fold=3: unknown key 'fold'.*did you mean 'folds'"),
        ("recipe.epochs=many", "--set recipe.epochs=many.*'many'"),
        ("recipe.epochs", "expected KEY=VALUE, as in recipe.epochs=3"),
        ("=3", "expected KEY=VALUE"),
        ("a=[1", r"--set a=\[1.*not valid YAML"),
        ("candidates.4.frozen=true", "candidates is a list of 1; name an entry by its place"),
        ("candidates.cnn.frozen=true", "candidates is a list of 1"),
        ("name.first=a", "name is 'tiny' and has no keys; set name itself"),
    ],
)
def test_a_mistake_is_told_with_the_setting(study: Path, text: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        read_study(study, [text])


def test_several_settings_change_the_study_and_are_recorded(study: Path) -> None:
    (changed,) = read_study(study, ["recipe.epochs=3", "protocol.folds=2", "candidates.0.name=net"])
    assert changed.parsed_recipe.total_epochs == 3 and changed.protocol.folds == 2
    assert [c.name for c in changed.parsed_candidates] == ["net"]
    assert changed.context.text is not None and changed.context.text.startswith(STUDY)
    assert changed.context.text.splitlines()[-3:] == [
        f"# changed on the command line: --set {each}"
        for each in ("recipe.epochs=3", "protocol.folds=2", "candidates.0.name=net")
    ]
    (plain,) = read_study(study)
    assert plain.context.text == STUDY and plain.parsed_recipe.total_epochs != 3

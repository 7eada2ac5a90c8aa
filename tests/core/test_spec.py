"""What a user writes: checked once, with the line and the nearest valid word."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from phoropter.core import spec
from phoropter.core.errors import SpecError
from phoropter.core.spec import Spec, load_yaml, validate_as


class Inner(Spec):
    rate: float
    kind: Literal["adamw", "sgd"] = "adamw"


class Outer(Spec):
    name: str
    inner: Inner | None = None
    items: list[Inner] = []


def parse(tmp_path: Path, text: str) -> Outer:
    file = tmp_path / "study.yaml"
    file.write_text(text)
    ((data, source),) = load_yaml(file)
    return validate_as(Outer, data, source)


def test_good_data_is_read_and_frozen(tmp_path: Path) -> None:
    made = parse(tmp_path, "name: x\ninner: {rate: 1e-4}\n")
    assert made.inner == Inner(rate=1e-4)  # YAML reads 1e-4 as text
    with pytest.raises(Exception, match="frozen"):
        made.name = "y"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\ninner:\n  rat: 1\n", r"study.yaml, line 3: unknown key 'rat' in inner; did you mean 'rate'\?"),
        (
            "name: x\nitems:\n  - {rate: 1}\n  - {rate: 1, knd: sgd}\n",
            r"line 4: unknown key 'knd' in items.1; did you mean 'kind'\?",
        ),
        ("nam: x\n", r"line 1: unknown key 'nam'; did you mean 'name'\?"),
        ("inner: {rate: 1}\n", r"study.yaml, line 1: the key 'name' is required"),
        ("name: x\ninner: {rate: fast}\n", r"line 2: inner.rate is 'fast', which does not fit: it should be a valid number"),
        ("name: x\ninner: {rate: 1, kind: adamv}\n", r"line 2: inner.kind is 'adamv', expected .*; did you mean 'adamw'\?"),
        ("name: x\ninner: {rate: .nan}\n", r"line 2: inner.rate is nan"),
        ("name: x\nname: y\n", r"line 2: the key 'name' is given twice"),
        ("name: [x\n", r"study.yaml, line 2: not valid YAML"),
        ("name: !!python/object/apply:os.system ['true']\n", r"line 1: the tag .*os.system is refused; only plain data"),
        ("- 1\n- 2\n", r"study.yaml, line 1: the value is \[1, 2\]"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        parse(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_anchors_that_unfold_without_end_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(SpecError, match="expands into more than"):
        parse(tmp_path, "\n".join(lines))


def test_oversized_and_missing_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spec, "MAX_FILE_BYTES", 10)
    with pytest.raises(SpecError, match="at most 10"):
        parse(tmp_path, "name: much too long\n")
    with pytest.raises(SpecError, match="no such file"):
        load_yaml(tmp_path / "absent.yaml")


def test_several_documents_are_several_values(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    file.write_text("name: a\n---\nname: b\nnope: 1\n")
    first, second = load_yaml(file)
    assert validate_as(Outer, *first).name == "a"
    with pytest.raises(SpecError, match=r"two\.yaml, line 4"):
        validate_as(Outer, *second)


def test_with_changes_is_checked_again() -> None:
    assert Inner(rate=1).with_changes(rate=2).rate == 2
    with pytest.raises(ValueError):
        Inner(rate=1).with_changes(kind="no")

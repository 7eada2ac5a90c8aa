"""What a user writes: checked once, with the line and the nearest valid word."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from phoropter.core import spec
from phoropter.core.errors import SpecError
from phoropter.core.spec import ClassName, PublicSpec, Spec, error_message, load_yaml, validate_as


class Inner(Spec):
    rate: float
    kind: Literal["adamw", "sgd"] = "adamw"


class Outer(Spec):
    name: str
    inner: Inner | None = None
    items: list[Inner] = []
    seeds: tuple[int, ...] = ()


def parse(tmp_path: Path, text: str) -> Outer:
    file = tmp_path / "study.yaml"
    file.write_text(text)
    ((data, source),) = load_yaml(file)
    return validate_as(Outer, data, source)


def test_a_public_spec_made_in_python_is_refused_as_in_a_file() -> None:
    """Also as a part of another, whose place is told."""

    class Named(PublicSpec):
        rate: float
        inner: Inner | None = None

    class Holder(Spec):
        named: Named

    with pytest.raises(SpecError, match=r"^Named: unknown key 'rat'; did you mean 'rate'"):
        Named(rat=1)  # type: ignore[call-arg]
    with pytest.raises(SpecError, match=r"^Named: inner\.rate is 'fast', which does not fit"):
        Named(rate=1, inner={"rate": "fast"})  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=r"^the study: named\.rate is 'fast', which does not fit"):
        validate_as(Holder, {"named": {"rate": "fast"}})
    assert Named(rate=1) == validate_as(Named, {"rate": 1})


def test_a_value_without_its_name_is_refused_with_what_to_write() -> None:
    class Named(PublicSpec):
        seed: int = 0
        rate: float

    class Other(PublicSpec):
        unnamed_hint = "ask for a thing"

        seed: int = 0

    with pytest.raises(SpecError, match=r"^Named: 'fast' was given without a name, and .* by name, as in Named\(rate=…\)$"):
        Named("fast", 2)  # type: ignore[call-arg]
    with pytest.raises(SpecError, match=r"^Other: a list was given .*by name; ask for a thing$"):
        Other(list(range(99)))  # type: ignore[call-arg]


def test_good_data_is_read_and_frozen(tmp_path: Path) -> None:
    made = parse(tmp_path, "name: x\ninner: {rate: 1e-4}\n")
    assert made.inner == Inner(rate=1e-4)
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
        ("name: x\nrate: 1\n", r"line 2: unknown key 'rate': it is a key of inner and of items, as in `inner: \{rate: …\}`"),
        ("inner: {rate: 1}\n", r"study.yaml, line 1: the key 'name' is required"),
        ("name: x\ninner: {rate: fast}\n", r"line 2: inner.rate is 'fast', which does not fit: it should be a valid number"),
        ("name: x\nseeds: 0\n", r"line 2: seeds is 0, which does not fit: it should be a list in brackets"),
        ("name: x\nitems: {rate: 1}\n", r"line 2: items is .*, which does not fit: it should be a list in brackets"),
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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(
            (word, word)
            for word in ("yes", "no", "Yes", "NO", "on", "off", "y", "n", "010", "007", "08.5", "12:30", "1_000", "0o", "<<")
        ),
        *(
            (word, word)
            for word in ("2024-01-31", "2024-01-31 10:00:00", "1.2.3", "1e", "e5", ".", "-.", "nan", "inf", "0x", "=")
        ),
        *((word, True) for word in ("true", "True", "TRUE")),
        *((word, None) for word in ("~", "null", "Null", "")),
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-2.5e+3", -2500.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-.inf", -float("inf")),
        ("0", 0),
        ("-12", -12),
        ("0x1F", 31),
        ("'true'", "true"),
        ("'12'", "12"),
    ],
)
def test_scalars_are_read_by_yaml_1_2(tmp_path: Path, text: str, value: object) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(f"key: {text}\nlist: [{text or '~'}]\n")
    ((data, _),) = load_yaml(file)
    assert (data["key"], data["list"]) == (value, [value]) and type(data["key"]) is type(value)


def test_keys_are_words_also_where_yaml_1_1_reads_values(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("yes: 1\nno: 2\n010: 3\n12: 4\n")
    assert load_yaml(file)[0][0] == {"yes": 1, "no": 2, "010": 3, 12: 4}
    file.write_text("1.5: 1\n")
    with pytest.raises(SpecError, match=r"a key must be a word, not 1\.5: put quotes around it"):
        load_yaml(file)


class Names(Spec):
    names: tuple[ClassName, ...] = ()
    weights: dict[ClassName, float] = {}


def test_names_may_look_like_numbers(tmp_path: Path) -> None:
    assert validate_as(Names, {"names": [1, 2.0, "010"], "weights": {3: 1, "x": 2}}) == Names(
        names=("1", "2", "010"), weights={"3": 1, "x": 2}
    )
    for value in (True, None):
        with pytest.raises(SpecError, match="is no name: put quotes around a name that YAML reads as a value"):
            validate_as(Names, {"names": [value]})


# row of the case list → a file that is refused in one sentence, and words of it
REFUSED_FILES = {
    "T1 not UTF-8": (b"name: caf\xe9\n", "cannot be read as UTF-8 text"),
    "T1b no such date": (b"name: !!timestamp 2024-02-30\n", "line 1: '2024-02-30' cannot be read as a value"),
    "T1d brackets": (b"name: x\ndata: " + b"[" * 900, "nested more than 50 deep"),
    "T1d mappings": (b"name: x\ndata: " + b"{a: " * 900, "nested more than 50 deep"),
    "a number of many digits": (b"name: x\nsize: " + b"9" * 5000, "line 2: '9999.* cannot be read as a value"),
    "a number too large": (b"name: x\nsize: 0x" + b"f" * 500, "line 2: a number of 502 digits is too large"),
    "a control character": (b"name: x\ntext: a\x07b\n", r"line 2: not valid YAML: the character U\+0007 is not allowed"),
}


@pytest.mark.parametrize(("content", "words"), REFUSED_FILES.values(), ids=REFUSED_FILES)
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "study.yaml").write_bytes(content)
    with pytest.raises(SpecError, match=words) as caught:
        load_yaml(tmp_path / "study.yaml")
    assert "\n" not in str(caught.value)


def test_a_date_that_no_calendar_has_is_text(tmp_path: Path) -> None:  # T1b
    (tmp_path / "study.yaml").write_text("name: 2024-02-30\n")
    assert load_yaml(tmp_path / "study.yaml")[0][0] == {"name": "2024-02-30"}


class Disc(Spec):
    kind: Literal["disc"] = "disc"
    size: float = 1.0


class Box(Spec):
    kind: Literal["box"] = "box"
    size: float = 1.0


class Drawing(Spec):
    name: str = "it"
    shape: Annotated[Disc | Box, Field(discriminator="kind")] = Disc()


def test_plain_changes_without_defaults_are_read_back_as_the_same_kind() -> None:
    assert Drawing().plain_changes() == {}
    for drawing in (Drawing(), Drawing(shape=Box()), Drawing(name="other", shape=Box(size=3)), Drawing(shape=Disc(size=2))):
        assert validate_as(Drawing, drawing.plain_changes()) == drawing
    assert Drawing(shape=Box()).plain_changes() == {"shape": {"kind": "box"}}


def test_the_first_line_of_an_error_is_told_and_its_kind_where_it_says_nothing() -> None:
    assert error_message(ValueError("no such operator\nand more")) == "no such operator"
    assert error_message(ValueError()) == "ValueError"

"""Files of the results folder have a format and a shape; anything else is one sentence with the way out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from phoropter.core.errors import StoreError
from phoropter.results.record_shapes import (
    FailureShape,
    OtherFormatError,
    RunShape,
    StudyShape,
    read_record_file,
    write_record_file,
)

RECORD: dict[str, Any] = {
    "format": 1,
    "candidate": {"name": "c"},
    "seed": 0,
    "split": {"repeat": 0, "fold": 0},
    "recipe": {},
    "classes": ["a"],
    "metrics": {"accuracy": 0.5, "mcc": None},
    "cost": {"macs": None, "parameters": 3},
    "digests": {},
}


def read(tmp_path: Path, value: Any, shape: Any = RunShape) -> dict[str, Any]:
    (tmp_path / "a.json").write_text(json.dumps(value))
    return read_record_file(tmp_path / "a.json", shape, "run it again")


def test_a_record_of_an_earlier_version_is_read_if_it_is_complete(tmp_path: Path) -> None:
    assert read(tmp_path, RECORD) == RECORD
    for name in RECORD:
        with pytest.raises(StoreError, match=r"run it again$"):
            read(tmp_path, {k: v for k, v in RECORD.items() if k != name})


def test_a_record_of_today_has_a_checksum(tmp_path: Path) -> None:
    write_record_file(tmp_path / "b.json", {k: v for k, v in RECORD.items() if k != "format"})
    came = read_record_file(tmp_path / "b.json", RunShape, "run it again")
    assert came == RECORD | {"format": 2}
    with pytest.raises(StoreError, match="it has no checksum; run it again"):
        read(tmp_path, came)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("candidate", "c"),
        ("candidate", {}),
        ("seed", "0"),
        ("split", []),
        ("split", {"fold": "1"}),
        ("classes", [1]),
        ("metrics", {"accuracy": "high"}),
        ("cost", []),
        ("digests", None),
    ],
)
def test_a_field_of_another_type_is_named(tmp_path: Path, field: str, value: Any) -> None:
    with pytest.raises(StoreError, match=rf"is damaged: {field}.*; run it again") as caught:
        read(tmp_path, RECORD | {field: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("version", [0, 3, 99])
def test_another_format_is_told_from_damage(tmp_path: Path, version: int) -> None:
    with pytest.raises(OtherFormatError, match=f"has format {version}, and this phoropter reads 1 and 2"):
        read(tmp_path, RECORD | {"format": version})
    for none in ("1", None, True, 1.5):
        with pytest.raises(StoreError, match="names no format"):
            read(tmp_path, RECORD | {"format": none})


def test_a_plan_and_a_failure_have_their_shapes(tmp_path: Path) -> None:
    study = {"format": 1, "name": "x", "study": {}, "dataset": {}, "plan": [], "versions": {}, "machine": {}}
    assert read(tmp_path, study, StudyShape) == study
    with pytest.raises(StoreError, match=r"plan\.0\.key"):
        read(tmp_path, study | {"plan": [{}]}, StudyShape)
    with pytest.raises(StoreError, match="error"):
        read(tmp_path, {"format": 1}, FailureShape)

"""A JSON object with a checksum: any change of a value is noticed, and a change of nothing but white space is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from phoropter.core.errors import StoreError
from phoropter.core.storage.sealed_json import (
    CacheShape,
    read_cache_json,
    read_json_object,
    read_sealed_json,
    write_cache_json,
    write_sealed_json,
)

VALUE: dict[str, Any] = {"a": [1, 2.5, 1e-300, None, True, "ü\u2028"], "b": {"c": {}, "d": (3, 4)}, "n": 2**60}


def test_what_was_written_is_read_and_white_space_does_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_sealed_json(file, VALUE)
    assert read_sealed_json(file, StoreError) == json.loads(json.dumps(VALUE))
    file.write_text(json.dumps(json.loads(file.read_text())))
    assert read_json_object(file, StoreError)[1]


def test_every_flipped_bit_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_sealed_json(file, VALUE)
    content = file.read_bytes()
    for at in range(len(content)):
        for bit in (0, 3, 6):
            file.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
            try:
                assert read_sealed_json(file, StoreError) == json.loads(json.dumps(VALUE))
            except StoreError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize("content", ["", "[]", "3", '{"a": 1}', '{"checksum": 3}', "[" * 100_000, '{"checksum": "x", "a": NaN}'])
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(StoreError):
        read_sealed_json(tmp_path / "a.json", StoreError)


class Speed(CacheShape):
    speed: float


@pytest.mark.parametrize("content", [None, b"{", b'{"format": 1, "speed": 2}'])
def test_a_damaged_file_of_the_cache_counts_as_absent(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "speed.json"
    if content is not None:
        file.write_bytes(content)
    assert read_cache_json(file, Speed) is None
    write_cache_json(file, Speed(speed=2))
    assert read_cache_json(file, Speed) == Speed(speed=2)
    for wrong in ({"format": 2, "speed": 2}, {"format": 1, "speed": "x"}, {"format": 1, "speed": 2, "more": 1}):
        write_sealed_json(file, wrong)
        assert read_cache_json(file, Speed) is None

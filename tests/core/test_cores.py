"""The cores this process may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from phoropter.core.cores import count_usable_cores


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("9900000 100000", 8), ("", 8), ("x y", 8)],
)
def test_cores_are_those_this_process_is_bound_to_and_given_time_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, expected: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert count_usable_cores(tmp_path / "cpu.max") == expected
    assert count_usable_cores(tmp_path / "nothing") == 8


def test_where_nothing_is_bound_all_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert count_usable_cores(tmp_path / "nothing") == 6

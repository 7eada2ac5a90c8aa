"""Usable cores: affinity and the quota of a container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from phoropter.core import cpu_count
from phoropter.core.cpu_count import count_usable_cores


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("9900000 100000", 8), ("", 8), ("x y", 8)],
)
def test_usable_cores_are_bounded_by_affinity_and_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, expected: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert count_usable_cores(tmp_path / "cpu.max") == expected
    assert count_usable_cores(tmp_path / "nothing") == 8


@pytest.mark.parametrize(("quota", "expected"), [("250000", 2), ("-1", 8), ("50000", 1), ("", 8)])
def test_a_quota_of_version_1_bounds_them_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, expected: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota + "\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert count_usable_cores(tmp_path / "cpu.max") == expected


def test_without_affinity_all_cores_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert count_usable_cores(tmp_path / "nothing") == 6


def test_a_job_of_slurm_uses_the_cores_that_it_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under task/none a job sees all cores of its node."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    for asked, expected in (("3", 3), ("64", 8), ("0", 1), ("x", 8)):
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", asked)
        monkeypatch.delenv("SLURM_JOB_ID", raising=False)
        assert count_usable_cores(tmp_path / "nothing") == 8, "a shell that has kept the variable is no job"
        monkeypatch.setenv("SLURM_JOB_ID", "77")
        assert count_usable_cores(tmp_path / "nothing") == expected
    (tmp_path / "cpu.max").write_text("200000 100000\n")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    assert count_usable_cores(tmp_path / "cpu.max") == 2


def test_threads_are_those_that_the_environment_asks_for_as_far_as_there_are_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_count, "count_usable_cores", lambda: 4)
    for given, expected in (("1", 1), ("3", 3), ("64", 4), ("0", 4), ("many", 4), ("", 4)):
        monkeypatch.setenv("OMP_NUM_THREADS", given)
        assert cpu_count.count_default_threads() == expected

"""One small study by every executor ends with the same bytes: processes, tasks of Ray, commands and jobs that share a folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from object_servers import describe_endpoint, serve_objects, start_moto, start_rclone
from phoropter.results.store import Store
from phoropter.study.executors import Places, execute_study, make_executor
from phoropter.study.spec import read_study
from phoropter.study.worker import ComputeOptions
from slurm_node import ask_slurm, serve_slurm
from small_study import FOUR_KINDS, all_predictions
from warm_python import WarmPython


def run_places(folder: Path, places: Places) -> None:
    study = read_study(folder / "study.yaml")[0]
    executor = make_executor(ComputeOptions("cpu", threads=1), folder / "cache", places)
    execute_study(study, folder / "out", lambda event: None, cache=folder / "cache", executor=executor)


def run_two_processes(folder: Path, warm: WarmPython) -> None:
    run_places(folder, Places(2))


def run_ray(folder: Path, warm: WarmPython) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'phoropter[ray]'")
    run_places(folder, Places(2, executor="ray"))


def run_three_commands(folder: Path, warm: WarmPython) -> None:
    environment = {"PHOROPTER_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    arguments = ["run", "study.yaml", "-o", "out", "--device", "cpu"]
    commands = [warm.run_command_line(arguments, folder, environment) for _ in range(3)]
    assert [command.wait(240) for command in commands] == [0, 0, 0], commands[0].read_log()


def run_two_jobs(folder: Path, warm: WarmPython) -> None:
    """Processes that submitit starts as it starts jobs of SLURM, without SLURM."""
    pytest.importorskip("submitit", reason="submitit is not installed: pip install 'phoropter[slurm]'")
    environment = {"PHOROPTER_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    arguments = ["submit", "study.yaml", "-o", "out", "--executor", "local", "--workers", "2"]
    assert warm.run_command_line(arguments, folder, environment).wait(60) == 0
    deadline = time.monotonic() + 240
    while len(list((folder / "out" / "jobs").glob("*_result.pkl"))) < 2:
        assert time.monotonic() < deadline, [p.read_text() for p in (folder / "out" / "jobs").glob("*.err")]
        time.sleep(0.2)


def run_slurm(folder: Path, warm: WarmPython) -> None:
    """Two jobs of a real SLURM of one node."""
    pytest.importorskip("submitit", reason="submitit is not installed: pip install 'phoropter[slurm]'")
    with serve_slurm(folder / "slurm") as slurm:
        environment = {"PHOROPTER_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", **slurm}
        submitted = warm.run_command_line(["submit", "study.yaml", "-o", "out", "--workers", "2"], folder, environment)
        assert submitted.wait(60) == 0, submitted.read_log()
        deadline = time.monotonic() + 240
        while ask_slurm(["squeue", "-h"], slurm):
            assert time.monotonic() < deadline, [p.read_text() for p in (folder / "out" / "jobs").glob("*.err")]
            time.sleep(0.5)


def run_object_store(folder: Path, warm: WarmPython, start: Callable[[int, Path], list[str]]) -> None:
    """Two commands that share nothing but a store, each with a mirror and a cache of its own; a third one reads it."""
    pytest.importorskip("obstore", reason="obstore is not installed: pip install 'phoropter[s3]'")
    (folder / "server").mkdir()
    with serve_objects(start, folder / "server") as address:
        shared = {**describe_endpoint(address), "OMP_NUM_THREADS": "1"}
        arguments = ["run", "study.yaml", "-o", "s3://bucket/study", "--device", "cpu"]
        caches = [{"PHOROPTER_CACHE": str(folder / name)} for name in ("one", "other", "reader")]
        commands = [warm.run_command_line(arguments, folder, {**shared, **cache}) for cache in caches[:2]]
        assert [command.wait(240) for command in commands] == [0, 0], commands[0].read_log()
        status = warm.run_command_line(["status", "s3://bucket/study"], folder, {**shared, **caches[2]})
        assert status.wait(60) == 0 and "4 of 4 runs done" in status.read_log()
    (mirror,) = (folder / "reader" / "mirrors").iterdir()
    mirror.rename(folder / "out")


def run_rclone_store(folder: Path, warm: WarmPython) -> None:
    run_object_store(folder, warm, start_rclone)


def run_moto_store(folder: Path, warm: WarmPython) -> None:
    run_object_store(folder, warm, start_moto)


EXECUTORS = [run_two_processes, run_ray, run_three_commands, run_two_jobs, run_slurm, run_rclone_store, run_moto_store]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("here")
    (folder / "study.yaml").write_text(FOUR_KINDS)
    run_places(folder, Places())
    found = all_predictions(Store(folder / "out"))
    assert len(found) == 4
    return found


@pytest.mark.parametrize("run_study", EXECUTORS)
def test_every_executor_ends_with_the_same_bytes(
    run_study: Callable[[Path, WarmPython], None], expected: dict[str, bytes], tmp_path: Path, warm: WarmPython
) -> None:
    (tmp_path / "study.yaml").write_text(FOUR_KINDS)
    run_study(tmp_path, warm)
    store = Store(tmp_path / "out")
    assert all_predictions(store) == expected and store.read_failures() == {}

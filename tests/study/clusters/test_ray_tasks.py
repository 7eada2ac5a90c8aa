"""What a task of Ray declares, and what is refused. tests/study/test_every_executor.py computes in a real cluster."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from phoropter.core.errors import MissingExtraError, RunError, SpecError
from phoropter.study.clusters.ray_tasks import RayTasks, TaskShare, connect_cluster, import_ray
from phoropter.study.executors import Places, make_executor
from phoropter.study.worker import ComputeOptions


@pytest.mark.parametrize(
    ("nodes", "jobs", "per_device", "device", "expected"),
    [
        ([{"CPU": 8}], 2, 1, "auto", (4, 0)),
        ([{"CPU": 8}, {"CPU": 2}], 4, 1, "cpu", (1, 0)),
        ([{"CPU": 64, "GPU": 8}], 1, 1, "auto", (8, 1)),
        ([{"CPU": 64, "GPU": 8}, {"CPU": 2}], 1, 2, "cuda", (4, 0.5)),
        ([{"CPU": 64, "GPU": 8}], 2, 1, "cpu", (32, 0)),
    ],
)
def test_tasks_fill_a_machine(
    nodes: list[dict[str, float]], jobs: int, per_device: int, device: str, expected: tuple[int, float]
) -> None:
    assert TaskShare.of_nodes(nodes, jobs, per_device, device) == TaskShare(*expected)


def test_gpus_that_are_not_there_are_refused() -> None:
    with pytest.raises(SpecError, match="no machine of this Ray cluster has a GPU"):
        TaskShare.of_nodes([{"CPU": 8}], 1, 1, "cuda")


def test_a_number_of_tasks_that_nothing_reads_is_refused() -> None:
    with pytest.raises(SpecError, match="use --per-device"):
        TaskShare.of_nodes([{"CPU": 8, "GPU": 1}], 2, 1, "auto")
    with pytest.raises(SpecError, match="--per-device 2: no task of this study gets a GPU"):
        TaskShare.of_nodes([{"CPU": 8}], 1, 2, "auto")


def test_without_ray_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'phoropter\[ray\]'"):
        make_executor(ComputeOptions(), None, Places(executor="ray"))


def test_options_that_ray_decides_are_refused() -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'phoropter[ray]'")
    with pytest.raises(SpecError, match="--devices names GPUs of this machine"):
        make_executor(ComputeOptions(), None, Places(executor="ray", devices="0"))
    with pytest.raises(SpecError, match="Ray assigns the devices"):
        make_executor(ComputeOptions("cuda:1"), None, Places(executor="ray"))
    with pytest.raises(SpecError, match="--address names a Ray cluster"):
        make_executor(ComputeOptions(), None, Places(address="10.0.0.1:6379"))
    assert make_executor(ComputeOptions("cpu"), Path("c"), Places(2, executor="ray")) == RayTasks(
        ComputeOptions("cpu"), Path("c"), 2
    )


def test_an_address_where_nothing_answers_is_one_sentence() -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'phoropter[ray]'")
    with pytest.raises(RunError, match="no cluster answers at local-nonsense"), connect_cluster(ray, "local-nonsense"):
        pass


def test_usage_statistics_are_off() -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'phoropter[ray]'")
    import_ray()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"

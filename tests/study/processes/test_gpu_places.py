"""Workers are spread over the GPUs that were asked for, each sees its own alone, and what is not there is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from phoropter.core.errors import SpecError
from phoropter.results.store import Store
from phoropter.study import executors
from phoropter.study.executors import Places, WorkerProcesses, make_executor
from phoropter.study.processes import supervisor
from phoropter.study.processes.gpu_places import assign_gpus, list_visible_gpus
from phoropter.study.worker import ComputeOptions

EIGHT = [str(n) for n in range(8)]


@pytest.mark.parametrize(
    ("devices", "per_device", "visible", "expected"),
    [
        ("0-7", 1, EIGHT, EIGHT),
        ("0-1", 2, EIGHT, ["0", "1", "0", "1"]),
        ("6, 0-2", 1, EIGHT, ["6", "0", "1", "2"]),
        ("all", 3, ["0"], ["0", "0", "0"]),
        ("1", 1, ["4", "GPU-5f"], ["GPU-5f"]),
    ],
)
def test_every_worker_has_one_gpu(devices: str, per_device: int, visible: list[str], expected: list[str]) -> None:
    assert list(assign_gpus(devices, per_device, visible)) == expected


@pytest.mark.parametrize(
    ("devices", "visible", "words"),
    [
        ("0-7", [], "no CUDA device is there.*use -j N"),
        ("0-7", EIGHT[:4], "GPU 4 is not there; GPUs 0 to 3 are"),
        ("1", ["0"], "GPU 1 is not there; GPU 0 is"),
        ("3-1", EIGHT, "expected numbers of GPUs such as"),
        ("cuda:0", EIGHT, "expected numbers of GPUs such as"),
        ("", EIGHT, "expected numbers of GPUs such as"),
        ("0-2,1", EIGHT, "names GPU 1 twice"),
    ],
)
def test_what_is_not_there_is_refused(devices: str, visible: list[str], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        assign_gpus(devices, 1, visible)


def test_numbers_count_what_this_process_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    assert list_visible_gpus() == ["4", "5"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert list_visible_gpus() == ["0", "1"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert list_visible_gpus() == []


def test_options_that_contradict_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "list_visible_gpus", lambda: EIGHT)
    here = ComputeOptions()
    with pytest.raises(SpecError, match="-j and --devices"):
        make_executor(here, None, Places(2, devices="0-1"))
    with pytest.raises(SpecError, match="--device cpu and --devices"):
        make_executor(ComputeOptions("cpu"), None, Places(devices="0-1"))
    with pytest.raises(SpecError, match=r"--per-device.*--devices"):
        make_executor(here, None, Places(per_device=2))
    made = make_executor(here, None, Places(devices="0-1", per_device=2))
    assert isinstance(made, WorkerProcesses) and made.gpus == ("0", "1", "0", "1") and made.jobs == 4


def test_each_process_is_started_with_its_own_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real processes, made GPUs: what each sees in its environment when it starts."""
    monkeypatch.setattr(supervisor, "run_worker", tell_gpu)
    made = WorkerProcesses(ComputeOptions(), 2, tmp_path, gpus=("3", "5"))
    tasks = [made.make_task(number, None, tmp_path) for number in (0, 1)]  # type: ignore[arg-type]
    assert [t.environment for t in tasks] == [{"CUDA_VISIBLE_DEVICES": "3"}, {"CUDA_VISIBLE_DEVICES": "5"}]
    assert {t.options.device for t in tasks} == {"cuda:0"}
    monkeypatch.setenv("GPU_NOTES", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    supervisor.Supervisor(tasks.__getitem__, 2, Store(tmp_path / "out"), lambda event: None).run_workers()
    assert sorted(p.read_text() for p in tmp_path.glob("gpu-*")) == ["3", "5"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"


def tell_gpu(link: object) -> None:
    """In place of a worker: notes its environment and says that all is done."""
    link.recv()  # type: ignore[attr-defined]
    Path(os.environ["GPU_NOTES"], f"gpu-{os.getpid()}").write_text(os.environ["CUDA_VISIBLE_DEVICES"])
    link.send(None)  # type: ignore[attr-defined]

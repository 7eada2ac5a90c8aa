"""A study over the processes of torchrun: the first computes it, the others help, and all end well."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phoropter.results.store import Store
from warm_python import COMMAND_LINE

STUDY = """\
name: shared
data: {digits: true, size: 32, max_samples: 120}
protocol: {split: hold-out, seeds: [0]}
recipe: {preset: scratch, epochs: EPOCHS, optimizer: sgd, lr: 0.01}
candidates:
  - {name: vit, backbone: test_vit, weights: random}
  - {name: probed, backbone: test_vit, weights: random, frozen: true, recipe: logistic}
  - {name: taught, student: test_vit, teacher: probed, weights: random, loss: soft}
"""


def write_study(folder: Path, epochs: int = 2) -> None:
    (folder / "study.yaml").write_text(STUDY.replace("EPOCHS", str(epochs)))


def start_ranks(warm: Any, folder: Path, arguments: list[str], size: int = 2) -> list[Any]:
    """`phoropter ARGUMENTS` in so many processes, with the variables that torchrun sets."""
    return start_python(warm, folder, COMMAND_LINE.format(arguments), size)


def start_python(warm: Any, folder: Path, code: str, size: int = 2) -> list[Any]:
    """Code in so many processes, with the variables that torchrun sets."""
    shared = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "a test"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared["MASTER_PORT"] = str(free.getsockname()[1])
    return [warm.run_code(code, folder, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(size)]


def wait_for_training(ranks: list[Any], out: Path) -> None:
    deadline = time.monotonic() + 100
    while not list(out.rglob("now.json")):
        assert time.monotonic() < deadline and ranks[0].poll() is None, ranks[0].read_log()
        time.sleep(0.1)


def logits_of(folder: Path) -> dict[str, Any]:
    return {run.record["candidate"]["name"]: run.load_predictions().logits for run in Store(folder).runs()}  # type: ignore[union-attr]


def test_two_processes_find_what_one_finds(warm: Any, tmp_path: Path) -> None:
    write_study(tmp_path)
    alone = warm.run_command_line(["run", "study.yaml", "-o", "alone"], tmp_path)
    ranks = start_ranks(warm, tmp_path, ["run", "study.yaml", "-o", "together"])
    assert [command.wait(200) for command in (alone, *ranks)] == [0, 0, 0], ranks[0].read_log()
    assert ranks[1].read_log() == ""  # the first tells of the progress
    one, two = logits_of(tmp_path / "alone"), logits_of(tmp_path / "together")
    assert one.keys() == two.keys() and len(one) == 3
    for name, logits in one.items():
        np.testing.assert_allclose(two[name], logits, rtol=0, atol=2e-6, err_msg=name)
    assert np.array_equal(one["probed"], two["probed"])  # by the first process alone
    records = {run.record["candidate"]["name"]: run.record for run in Store(tmp_path / "together").runs()}
    assert {name: record.get("processes") for name, record in records.items()} == {"vit": 2, "probed": None, "taught": 2}


def test_a_stop_leaves_a_checkpoint_that_one_process_goes_on_from(warm: Any, tmp_path: Path) -> None:
    write_study(tmp_path, epochs=400)
    ranks = start_ranks(warm, tmp_path, ["run", "study.yaml", "-o", "out"])
    wait_for_training(ranks, tmp_path / "out")
    for command in ranks:  # as torchrun does when it is asked to stop
        command.send_signal(signal.SIGTERM)
    assert [command.wait(60) for command in ranks] == [143, 0], [command.read_log() for command in ranks]
    assert list((tmp_path / "out").rglob("checkpoint.pt"))
    assert "stopped by SIGTERM; finished runs and checkpoints are kept" in ranks[0].read_log().replace("\n", " ")


@pytest.mark.parametrize("option", [["-j", "2"], ["--device", "cuda:0"]])
def test_options_that_say_who_computes_are_refused(warm: Any, tmp_path: Path, option: list[str]) -> None:
    write_study(tmp_path)
    ranks = start_ranks(warm, tmp_path, ["run", "study.yaml", "-o", "out", *option])
    assert ranks[0].wait(100) == 2 and ranks[1].wait(100) in (0, 2)
    assert "torchrun" in ranks[0].read_log() and not list((tmp_path / "out").glob("runs/*"))


IN_PYTHON = """
import phoropter as ph

recipe = {"preset": "scratch", "epochs": 2, "optimizer": "sgd", "lr": 0.01}
for name in ("vit", "again"):
    study = ph.Study(
        name=name, data=ph.digits(size=32, max_samples=120), protocol={"split": "hold-out", "seeds": [0]}, recipe=recipe,
        candidates=[{"name": name, "backbone": "test_vit", "weights": "random"}],
    )
    results = study.run(name, quiet=True, device="cpu")
    print(name, len(results.runs), results.failures)
study.run("wrong", quiet=True, jobs=3)
"""


def test_study_run_trains_together_in_every_call_and_all_get_the_results(warm: Any, tmp_path: Path) -> None:
    write_study(tmp_path)
    alone = warm.run_command_line(["run", "study.yaml", "-o", "alone"], tmp_path)
    ranks = start_python(warm, tmp_path, IN_PYTHON)
    assert [command.wait(200) for command in (alone, *ranks)] == [0, 1, 1], ranks[0].read_log()
    logs = [command.read_log() for command in ranks]
    for log in logs:
        assert log.startswith("vit 1 {}\nagain 1 {}\n"), log
    assert "SpecError: torchrun starts the processes" in logs[0]
    assert "RunError: the first process of torchrun ended the study: torchrun starts the processes" in logs[1]
    for name in ("vit", "again"):
        (run,) = Store(tmp_path / name).runs()
        assert run.record["processes"] == 2
        np.testing.assert_allclose(logits_of(tmp_path / name)[name], logits_of(tmp_path / "alone")["vit"], rtol=0, atol=2e-6)


def test_a_stop_of_study_run_ends_all_processes_and_leaves_a_checkpoint(warm: Any, tmp_path: Path) -> None:
    ranks = start_python(warm, tmp_path, IN_PYTHON.replace('"epochs": 2', '"epochs": 400'))
    wait_for_training(ranks, tmp_path / "vit")
    for command in ranks:
        command.send_signal(signal.SIGTERM)
    assert 0 not in [command.wait(60) for command in ranks]
    assert list((tmp_path / "vit").rglob("checkpoint.pt"))
    assert "ended the study: stopped by SIGTERM" in ranks[1].read_log()


def test_torchrun_starts_it(tmp_path: Path) -> None:
    first = STUDY.index("  - {name: probed")
    (tmp_path / "study.yaml").write_text(STUDY[:first].replace("EPOCHS", "1"))
    torchrun = Path(sys.executable).with_name("torchrun")
    command = [str(torchrun), "--standalone", "--nproc-per-node", "2", "-m", "phoropter", "run", "study.yaml", "-o", "out"]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [run.record["processes"] for run in Store(tmp_path / "out").runs()] == [2]

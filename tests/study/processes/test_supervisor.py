"""Bad days of a study, in one process and in several: signals at every stage, dead workers, a dead parent, two commands at once.

The study's own code lingers at the stage that the environment names and says that it is there, so that a signal meets that stage.
Commands are forked from a warm Python, but the one that gets Ctrl-C; workers always start anew. PHOROPTER_THOROUGH=1 stops four
workers at every stage, not at one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from phoropter.core.errors import DataError, RunError
from phoropter.core.extensions import trust_code
from phoropter.data.images import decode_pool
from phoropter.results.store import Store
from phoropter.study.executors import execute_study
from phoropter.study.processes.supervisor import LEAVE_S, Supervisor
from phoropter.study.progress import ProgressEvent
from phoropter.study.spec import read_study
from phoropter.study.worker import ComputeOptions
from warm_python import WarmCommand, WarmPython

LINGERING = """
import multiprocessing, os, signal, time
from pathlib import Path
from phoropter.data.images import decode_pool
from phoropter.study.measuring import first_batches

first_batches.WORTH_S = float("inf")  # or the stages would first be met while speeds are measured

HERE, STAGE = Path(__file__).parent, os.environ.get("LINGER", "")
IN_WORKER = multiprocessing.parent_process() is not None

def linger(stage, seconds):
    if stage == STAGE:
        (HERE / f"reached-{os.getpid()}").touch()
        time.sleep(seconds)
    if STAGE == "deadly" and IN_WORKER and stage == "training":
        os.kill(os.getpid(), signal.SIGKILL)

decode_shard = decode_pool._decode_shard

def decode_slowly(*arguments):
    linger("decoding", 1)
    return decode_shard(*arguments)

decode_pool._decode_shard = decode_slowly
if STAGE == "unstartable" and IN_WORKER:
    os.kill(os.getpid(), signal.SIGKILL)
"""
MODULE = """
import lingering
from torch import nn
from phoropter import Backbone, Metric

class Net(nn.Sequential):
    def forward(self, images):
        lingering.linger("training" if self.training else "features", 0.3)
        return super().forward(images)

def build():
    return Net(nn.Conv2d(3, 8, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())

def hits(labels, probabilities):
    lingering.linger("writing", 2)
    return float((probabilities.argmax(1) == labels).mean())

NET, HITS = Backbone("net", build=build, width=32), Metric("hits", compute=hits, range=(0, 1))
"""
STUDY = """\
name: bad-days
data: {digits: true, size: 32, max_samples: 300}
protocol: {split: stratified-k-fold, folds: 2}
recipe: {preset: scratch, epochs: 8, lr: 0.01}
metrics: [accuracy, "days:HITS"]
candidates:
  - {name: probe, backbone: "days:NET", frozen: true, recipe: {preset: probe, epochs: 3}}
  - days:NET
  - {name: seeded, backbone: "days:NET", seed: 1}
  - {name: mean, fuse: [net, seeded], mode: ensemble}
"""
RUN = ["run", "study.yaml", "-o", "out", "--device", "cpu", "--trust-code"]
HERE = ComputeOptions("cpu", threads=1)
STAGES = ("decoding", "features", "training", "writing")
Command = WarmCommand | subprocess.Popen[str]
pytestmark = pytest.mark.timeout(900)  # each starts several processes, on a machine that may be busy


@dataclass
class Place:
    """A folder with a study, and the command that runs it."""

    folder: Path
    warm: WarmPython | None = None

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def environment(self) -> dict[str, str]:
        return {"PHOROPTER_CACHE": str(self.cache), "OMP_NUM_THREADS": "1"}

    def start(self, stage: str = "", jobs: int = 1) -> WarmCommand:
        assert self.warm is not None
        arguments = [*RUN, "-j", str(jobs)]
        return self.warm.run_command_line(arguments, self.folder, {**self.environment, "LINGER": stage})

    def wait_until_reached(self, process: Command, count: int = 1) -> None:
        wait_for(lambda: len(list(self.folder.glob("reached-*"))) >= count or process.poll() is not None)
        assert process.poll() is None, process.communicate()[0]

    def finish(self) -> dict[str, bytes]:
        """Predictions after the study is run to its end in this process."""
        with trust_code(self.folder):
            study = read_study(self.folder / "study.yaml")[0]
            store = execute_study(study, self.out, lambda event: None, options=HERE, cache=self.cache)
        assert store.read_failures() == {}
        return predictions(store)

    def find_temporary_files(self) -> list[Path]:
        return [path for folder in (self.out, self.cache) for path in folder.rglob("*.aside-*")]


def predictions(store: Store) -> dict[str, bytes]:
    return {r.key: (r.folder / "predictions.npz").read_bytes() for r in store.runs()}


def wait_for(condition: Callable[[], Any], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


def list_family(process: Command) -> list[psutil.Process]:
    """The process and all its descendants."""
    parent = psutil.Process(process.pid)
    return [parent, *parent.children(recursive=True)]


def all_gone(family: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family if psutil.pid_exists(p.pid))


@pytest.fixture(scope="module", autouse=True)
def module() -> Iterator[None]:
    """Takes back what the study's code leaves in this process."""
    before = decode_pool._decode_shard
    yield
    decode_pool._decode_shard = before
    for name in ("days", "lingering"):
        sys.modules.pop(name, None)


def make_place(folder: Path, warm: WarmPython | None = None) -> Place:
    for name, text in (("lingering.py", LINGERING), ("days.py", MODULE), ("study.yaml", STUDY)):
        (folder / name).write_text(text)
    return Place(folder, warm)


@pytest.fixture
def place(tmp_path: Path, warm: WarmPython) -> Place:
    return make_place(tmp_path, warm)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The predictions of the study when nothing happens."""
    return make_place(tmp_path_factory.mktemp("calm")).finish()


def check_stop(place: Place, stage: str, jobs: int, number: signal.Signals, expected: dict[str, bytes]) -> None:
    process = place.start(stage, jobs)
    place.wait_until_reached(process)
    family = list_family(process)
    asked = time.monotonic()
    process.send_signal(number)
    words = process.communicate(timeout=400)[0]
    took = time.monotonic() - asked
    assert process.returncode == 128 + number, words
    assert f"stopped by {number.name}; finished runs and checkpoints are kept, and the same command goes on from here" in words
    assert "Traceback" not in words
    assert took < 3 * LEAVE_S, "it leaves in ten seconds; the rest is for a busy machine"
    wait_for(lambda: all_gone(family), 30)
    assert all_gone(family) and not place.find_temporary_files()
    if stage == "training":
        assert list(place.out.glob("work/*/checkpoint.pt"))
    assert place.finish() == expected


@pytest.mark.parametrize(
    ("stage", "number"),
    [*zip(STAGES, [signal.SIGTERM, signal.SIGINT] * 2, strict=True), ("training", signal.SIGINT)],
)
def test_one_process_stops_at_every_stage_and_goes_on(
    stage: str, number: signal.Signals, place: Place, expected: dict[str, bytes]
) -> None:
    check_stop(place, stage, 1, number, expected)


@pytest.mark.parametrize(("stage", "number"), list(zip(STAGES, [signal.SIGINT, signal.SIGTERM] * 2, strict=True)))
def test_two_workers_stop_when_the_parent_alone_is_asked(
    stage: str, number: signal.Signals, place: Place, expected: dict[str, bytes]
) -> None:
    check_stop(place, stage, 2, number, expected)


@pytest.mark.parametrize("stage", [pytest.param(s, marks=() if s == "training" else pytest.mark.nightly) for s in STAGES])
def test_four_workers_stop_when_the_parent_alone_is_asked(stage: str, place: Place, expected: dict[str, bytes]) -> None:
    check_stop(place, stage, 4, signal.SIGTERM, expected)


def test_a_terminal_s_ctrl_c_reaches_parent_and_workers_and_is_one_request(place: Place) -> None:
    """Started as a user starts it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "phoropter", *RUN, "-j", "2"],
        env={**os.environ, **place.environment, "LINGER": "training"},
        cwd=place.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    place.wait_until_reached(process, 2)
    os.killpg(process.pid, signal.SIGINT)
    words = process.communicate(timeout=400)[0]
    assert process.returncode == 130 and words.count("stopped by SIGINT") == 1 and "Traceback" not in words
    assert list(place.out.glob("work/*/checkpoint.pt"))


def test_workers_of_a_parent_that_was_killed_save_and_end_within_seconds(place: Place, expected: dict[str, bytes]) -> None:
    process = place.start("training", 2)
    place.wait_until_reached(process, 2)
    family = list_family(process)
    assert len(family) >= 3
    process.kill()
    process.communicate(timeout=60)
    wait_for(lambda: all_gone(family), 3 * LEAVE_S)
    assert all_gone(family) and not place.find_temporary_files() and list(place.out.glob("work/*/checkpoint.pt"))
    assert place.finish() == expected


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_is_killed_is_replaced_and_its_run_begun_again(
    number: signal.Signals, place: Place, expected: dict[str, bytes]
) -> None:
    process = place.start("training", 2)
    place.wait_until_reached(process)
    reached = next(place.folder.glob("reached-*"))
    os.kill(int(reached.name.partition("-")[2]), number)
    words = process.communicate(timeout=400)[0]
    assert process.returncode == 0 and ": begun again" in words, words
    assert ("was killed by SIGKILL (the system does that when memory is full)" if number == 9 else "exit code 143") in words
    assert predictions(Store(place.out)) == expected


def test_a_run_that_kills_its_workers_fails_by_name_and_the_others_are_computed(place: Place) -> None:
    seeded = '  - {name: seeded, backbone: "days:NET", seed: 1}\n'
    one_split = STUDY.replace("{split: stratified-k-fold, folds: 2}", "{split: hold-out}")
    assert seeded in one_split and "hold-out" in one_split
    (place.folder / "study.yaml").write_text(one_split.replace(seeded, "").replace("[net, seeded]", "[net, probe]"))
    process = place.start("deadly", 2)
    words = process.communicate(timeout=800)[0]
    notes = Store(place.out).read_failures()
    assert process.returncode == 1 and {n["candidate"] for n in notes.values()} == {"net", "mean"}
    killed = [n["error"] for n in notes.values() if n["candidate"] == "net"]
    assert len(killed) == 1 and all("was killed by SIGKILL" in text and text.endswith("3 times") for text in killed)
    assert {r.candidate_name for r in Store(place.out).runs()} == {"probe"} and "Traceback" not in words
    assert words.count("begun again") == 2


def test_workers_that_cannot_start_are_not_started_for_ever(place: Place) -> None:
    process = place.start("unstartable", 2)
    words = process.communicate(timeout=400)[0]
    assert process.returncode == 1 and "was killed by SIGKILL" in words and "times before it began a run" in words


def test_two_commands_share_one_store_and_compute_nothing_twice(place: Place, expected: dict[str, bytes]) -> None:
    processes = [place.start("training"), place.start("training")]
    words = [p.communicate(timeout=400)[0] for p in processes]
    assert [p.returncode for p in processes] == [0, 0], words
    told = [line for text in words for line in text.splitlines() if line.startswith("[")]
    assert len(told) == len(expected) == 8 and predictions(Store(place.out)) == expected


def test_a_command_that_is_frozen_keeps_its_run_and_finishes_it_when_it_wakes(place: Place, expected: dict[str, bytes]) -> None:
    """Its lock is the system's: nobody can take the run over, all others are computed, and nothing is computed twice."""
    frozen = place.start("training")
    place.wait_until_reached(frozen)
    frozen.send_signal(signal.SIGSTOP)
    held = [path.parent.name for path in place.out.glob("work/*")]
    other = place.start()
    wait_for(lambda: len(predictions(Store(place.out))) >= len(expected) - 3)  # without its own, and the averages of it
    assert other.poll() is None and not set(held).intersection(predictions(Store(place.out)))
    frozen.send_signal(signal.SIGCONT)
    words = [process.communicate(timeout=400)[0] for process in (frozen, other)]
    assert [process.returncode for process in (frozen, other)] == [0, 0], words
    told = [line for text in words for line in text.splitlines() if line.startswith("[")]
    assert len(told) == len(expected) == 8 and predictions(Store(place.out)) == expected


def test_what_a_worker_raises_is_raised_by_the_parent(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY.split("metrics:")[0] + "candidates: [{backbone: test_resnet, weights: random}]\n")
    study = read_study(tmp_path / "study.yaml")[0].with_changes(data={"folder": "nowhere"})
    with pytest.raises(DataError, match="nowhere"):
        execute_study(study, tmp_path / "out", lambda event: None, jobs=2, options=HERE)
    assert not (tmp_path / "out").exists()


def test_events_of_several_workers_become_one_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that fails in one worker is told once and to the others; what is done is counted from the store."""
    events: list[ProgressEvent] = []
    supervisor = Supervisor(lambda number: None, 2, Store(tmp_path), events.append)  # type: ignore[arg-type,return-value]
    sent: list[Any] = []

    class Link:
        def send(self, message: Any) -> None:
            sent.append(message)

    class Worker:
        link, keys, number = Link(), set[str](), 0

    supervisor.workers = [Worker(), Worker()]  # type: ignore[list-item]
    supervisor.n_done, supervisor.n_planned = 3, 8
    first = supervisor.workers[0]
    supervisor._handle_event(first, ProgressEvent("start", "a", 0, 8, keys=("k1", "k2")))
    assert first.keys == {"k1", "k2"}
    for _ in range(2):
        supervisor._handle_event(first, ProgressEvent("failed", "a", 0, 8, {"error": "no"}, ("k1",)))
    supervisor._handle_event(first, ProgressEvent("done", "a", 1, 8, {}, ("k2",)))
    assert [(e.kind, e.done, e.total) for e in events] == [("start", 3, 8), ("failed", 3, 8)]
    assert sent == ["k1", "k1"] and supervisor.failed == {"k1"} and not first.keys


def test_a_worker_that_ends_before_it_spoke_is_explained(tmp_path: Path) -> None:
    supervisor = Supervisor(lambda number: None, 1, Store(tmp_path), lambda event: None)  # type: ignore[arg-type,return-value]

    class Ended:
        exitcode, was_heard, ended, keys = 1, False, False, set[str]()
        link = process = property(lambda self: self)

        def join(self, seconds: float) -> None: ...

        def is_alive(self) -> bool:
            return False

        def close(self) -> None: ...

    worker: Any = Ended()
    supervisor.workers = [worker]
    with pytest.raises(RunError, match="under `if __name__ == '__main__':`"):
        supervisor._handle_end(worker)

"""A small study killed and damaged at random moments, over and over: does it end with the same bytes?

The study has a network, a probe, a solved head, a fusion, an average and a student. `phoropter run` is started, and after a
random time it gets SIGKILL, SIGTERM or SIGINT, or one of its workers gets SIGKILL or SIGTERM; then it is started again, until it
ends. Its predictions are held against those of a study that was left alone. After every signal to the command nothing of it stays
alive; after SIGTERM and SIGINT it ends with exit code 143 or 130 (or had just finished), and no temporary file is left. It leaves
within LEAVE_S on a machine that is not busy; how often it took longer is counted.

A flip changes a few bytes of a random file of a finished study or its cache, and deletes a random run so that something is to be
computed. The command then ends with the same bytes, or with one line that names the trouble, never with other bytes.

    python tests/kills.py --kills 100 --flips 50 --jobs 1 2
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from warm_python import WarmCommand, WarmPython

STUDY = """\
name: kills
data: {digits: true, size: 32, max_samples: 160}
protocol: {split: stratified-k-fold, folds: 2}
recipe: {preset: scratch, epochs: 8, lr: 0.01}
save_models: first
candidates:
  - {name: cnn, backbone: test_resnet, weights: random}
  - {name: probe, backbone: test_vit, weights: random, frozen: true, recipe: {preset: probe, epochs: 3}}
  - {name: logistic, backbone: test_resnet, weights: random, frozen: true, recipe: logistic}
  - {name: fused, fuse: [{backbone: test_resnet, weights: random}, {backbone: test_vit, weights: random}], recipe: {epochs: 2}}
  - {name: mean, fuse: [cnn, probe], mode: ensemble}
  - {name: taught, student: test_vit, weights: random, teacher: cnn, loss: soft, recipe: {epochs: 2, augment: [hflip]}}
"""
LEAVE_S = 10.0
MANY_WRONGS = 20
ATTEMPTS = 5  # commands after a flip until the study has ended or one command refuses
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


@dataclass
class Tally:
    """What happened: counts by name, and a line for each thing that must not happen."""

    counts: Counter[str] = field(default_factory=Counter)
    wrongs: list[str] = field(default_factory=list)
    slowest_exit_s: float = 0.0

    def judge(self, holds: bool, what: str) -> None:
        if not holds:
            self.wrongs.append(what)
            print(f"WRONG: {what}", flush=True)


@dataclass
class Place:
    """A folder with the study, its results and its cache, and the Python that commands are forked from."""

    folder: Path
    warm: WarmPython
    command: WarmCommand | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "study.yaml").write_text(STUDY, encoding="utf-8")

    def make_sibling(self, name: str) -> Place:
        return Place(self.folder.with_name(name), self.warm)

    def start_command(self, jobs: int) -> WarmCommand:
        arguments = ["run", "study.yaml", "-o", "out", "--device", "cpu", "-j", str(jobs)]
        environment = {"PHOROPTER_CACHE": str(self.folder.resolve() / "cache"), "OMP_NUM_THREADS": "1"}
        self.command = self.warm.run_command_line(arguments, self.folder, environment)
        return self.command

    def read_log(self) -> str:
        """What the last command has written."""
        return "" if self.command is None else self.command.read_log()

    def read_predictions(self) -> dict[str, bytes]:
        return {f.parent.name: f.read_bytes() for f in (self.folder / "out" / "runs").glob("[0-9a-f]*/predictions.npz")}

    def find_temporary_files(self) -> list[str]:
        return [str(p.relative_to(self.folder)) for p in self.folder.rglob("*.aside-*")]


def list_family(pid: int) -> list[psutil.Process]:
    """The process and its descendants; empty when it has ended."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def find_workers(family: list[psutil.Process]) -> list[psutil.Process]:
    def is_worker(process: psutil.Process) -> bool:
        try:
            return "spawn_main" in " ".join(process.cmdline())
        except psutil.Error:
            return False

    return [p for p in family[1:] if is_worker(p)]


def kill_once(place: Place, jobs: int, seconds: float, draw: random.Random, tally: Tally) -> int | None:
    """Starts the command, sends one signal after a random time, and waits. Returns its exit code if it had ended before."""
    process = place.start_command(jobs)
    try:
        return process.wait(draw.uniform(0.05, seconds))
    except TimeoutError:
        pass
    family = list_family(process.pid)
    workers = find_workers(family)
    number = draw.choice(SIGNALS)
    if workers and draw.random() < 0.4:
        victim, number = draw.choice(workers), draw.choice([signal.SIGKILL, signal.SIGTERM])
        tally.counts[f"worker {number.name}"] += 1
        if is_alive(victim):
            victim.send_signal(number)
        try:  # it goes on; and a command in ten is left to go on to its end
            return process.wait(None if draw.random() < 0.1 else draw.uniform(0.3, seconds))
        except TimeoutError:
            family, number = list_family(process.pid), draw.choice(SIGNALS)
    tally.counts[f"command {number.name}"] += 1
    process.send_signal(number)
    check_end(place, process, family, number, tally)
    return None


def check_end(place: Place, process: WarmCommand, family: list[psutil.Process], number: signal.Signals, tally: Tally) -> None:
    asked = time.monotonic()
    code = process.wait()
    while any(map(is_alive, family)) and time.monotonic() - asked < 4 * LEAVE_S:
        time.sleep(0.05)
    took = time.monotonic() - asked
    tally.slowest_exit_s = max(tally.slowest_exit_s, took)
    for orphan in filter(is_alive, family):
        tally.judge(False, f"{orphan.pid} outlived {number.name} of the command by {took:.0f} s")
        orphan.kill()
    if number != signal.SIGKILL:
        # A signal before the study is read meets Python's own handling, and leaves nothing behind either
        tally.judge(code in (0, 128 + number, -number, 1), f"exit code {code} after {number.name}: {place.read_log()[-300:]}")
        tally.counts[f"exit code {code}"] += 1
        tally.judge(took < 4 * LEAVE_S, f"{took:.1f} s to leave after {number.name}")
        tally.counts[f"left {'within' if took < LEAVE_S else 'after'} {LEAVE_S:.0f} s"] += 1
        if took >= LEAVE_S:
            words = place.read_log().strip().splitlines()[-3:]
            print(f"{took:.1f} s after {number.name}, load {os.getloadavg()[0]:.0f}: {words}", flush=True)
        tally.judge(not place.find_temporary_files(), f"{number.name} left {place.find_temporary_files()}")


def run_kills(
    whole: Place, kills: int, jobs: int, seconds: float, draw: random.Random, tally: Tally, expected: dict[str, bytes]
) -> None:
    """Kills the command until `kills` signals were sent; a study that ends is held against `expected`, and a new one begun.

    seconds: how long an undisturbed command takes; signals are sent at any moment of it
    """
    round_number = sent = 0
    place = whole.make_sibling(f"j{jobs}-0")
    while sent < kills and len(tally.wrongs) < MANY_WRONGS:  # a command that fails at once meets no signal
        before = sum(tally.counts[name] for name in tally.counts if name.startswith(("worker", "command")))
        is_new, began = not (place.folder / "out").exists(), time.monotonic()
        code = kill_once(place, jobs, seconds, draw, tally)
        if is_new and code is not None:  # it took less than the first, which filled the system's caches
            seconds = min(seconds, time.monotonic() - began)
        sent += sum(tally.counts[name] for name in tally.counts if name.startswith(("worker", "command"))) - before
        # Nothing but the report is left when all predictions are there
        if code is not None or sent >= kills or len(place.read_predictions()) == len(expected):
            judge_finished(place, place.start_command(jobs).wait() if code is None else code, tally, expected)
            round_number += 1
            place = whole.make_sibling(f"j{jobs}-{round_number}")
        print(f"-j {jobs}: {sent} of {kills} signals, {round_number} studies ended, {len(tally.wrongs)} wrongs", flush=True)


def kill_workers(
    whole: Place, kills: int, jobs: int, seconds: float, draw: random.Random, tally: Tally, expected: dict[str, bytes]
) -> None:
    """Sends SIGKILL to one worker after another, and nothing to the command, which replaces them.

    A run that has cost three of them fails by name; the next command computes it.
    """
    sent = round_number = 0
    place = whole.make_sibling("workers-0")
    while sent < kills and len(tally.wrongs) < MANY_WRONGS:
        process, code = place.start_command(jobs), None
        while code is None and sent < kills:
            try:
                code = process.wait(draw.uniform(0.3, seconds / 2))
            except TimeoutError:
                if workers := [worker for worker in find_workers(list_family(process.pid)) if is_alive(worker)]:
                    draw.choice(workers).send_signal(signal.SIGKILL)
                    tally.counts["worker SIGKILL"] += 1
                    sent += 1
        code = process.wait() if code is None else code
        tally.judge(code in (0, 1), f"exit code {code} after workers were killed: {place.read_log()[-500:]}")
        if sent >= kills or len(place.read_predictions()) == len(expected):
            judge_finished(place, place.start_command(jobs).wait(), tally, expected)
            round_number += 1
            place = whole.make_sibling(f"workers-{round_number}")
        print(f"{sent} of {kills} workers killed, {round_number} studies ended, {len(tally.wrongs)} wrongs", flush=True)


def judge_finished(place: Place, code: int, tally: Tally, expected: dict[str, bytes]) -> None:
    same = place.read_predictions() == expected
    tally.counts["studies that ended with the same bytes"] += same
    tally.judge(code == 0, f"exit code {code} at the end: {place.read_log()[-500:]}")
    tally.judge(same, f"{place.folder.name} ended with other predictions")
    # Those of SIGKILL in a folder without a lock (the report's) are removed when they are older than ten minutes
    tally.counts["temporary files of SIGKILL at the end"] += len(place.find_temporary_files())
    kept = [name for name in place.find_temporary_files() if not name.startswith("out/report/")]
    tally.judge(not kept, f"{place.folder.name} kept {kept}")
    if code == 0 and same:
        shutil.rmtree(place.folder)


def flip_bytes(file: Path, draw: random.Random) -> None:
    data = bytearray(file.read_bytes())
    for _ in range(draw.randint(1, 8)):
        at = draw.randrange(len(data))
        data[at] ^= draw.randint(1, 255)
    file.write_bytes(bytes(data))


def run_flips(whole: Place, flips: int, draw: random.Random, tally: Tally, expected: dict[str, bytes]) -> None:
    for number in range(flips):
        place = whole.make_sibling("flipped")
        shutil.rmtree(place.folder)
        shutil.copytree(whole.folder, place.folder)
        lost = draw.choice(sorted(expected))
        shutil.rmtree(place.folder / "out" / "runs" / lost)
        files = [p for top in ("out", "cache") for p in (place.folder / top).rglob("*") if p.is_file() and p.stat().st_size]
        file = draw.choice(sorted(p for p in files if "report" not in p.parts and p.suffix != ".lock"))
        flip_bytes(file, draw)
        name = file.relative_to(place.folder)
        judge_flip(place, f"flip {number} of {name} ({lost} missing)", tally, expected)
        print(f"{number + 1} of {flips} flips, {len(tally.wrongs)} wrongs", flush=True)
    shutil.rmtree(whole.folder.with_name("flipped"), ignore_errors=True)


def judge_flip(place: Place, what: str, tally: Tally, expected: dict[str, bytes]) -> None:
    """The same bytes in the end, or one line that refuses."""
    for _ in range(ATTEMPTS):
        code = place.start_command(1).wait()
        log = place.read_log()
        if "Traceback" in log:
            tally.judge(False, f"{what}: a traceback: {log[-600:]}")
            return
        if code == 0 and place.read_predictions() == expected:
            tally.counts["flips mended or harmless"] += 1
            return
        if code in (2, 3) and log.strip().splitlines()[-1].startswith("phoropter: "):
            print(f"refused: {what}: {log.strip().splitlines()[-1][:300]}", flush=True)
            tally.counts["flips refused by name"] += 1
            return
    tally.judge(False, f"{what}: exit code {code}, the same predictions: {place.read_predictions() == expected}: {log[-600:]}")


def torment_study(folder: Path, warm: WarmPython, kills: dict[int, int], flips: int, seed: int, workers: int = 0) -> Tally:
    """kills: signals by number of jobs · flips: damaged files · workers: killed by SIGKILL, of two. Returns what happened."""
    tally, draw = Tally(), random.Random(seed)
    whole, began = Place(folder / "whole", warm), time.monotonic()
    code = whole.start_command(1).wait()
    seconds, expected = time.monotonic() - began, whole.read_predictions()
    assert code == 0 and len(expected) == 12, whole.read_log()
    for jobs, number in kills.items():
        if jobs != 1:
            undisturbed, began = whole.make_sibling(f"undisturbed-j{jobs}"), time.monotonic()
            judge_finished(undisturbed, undisturbed.start_command(jobs).wait(), tally, expected)
            seconds = time.monotonic() - began
        run_kills(whole, number, jobs, seconds, draw, tally, expected)
    if workers:
        kill_workers(whole, workers, 2, seconds, draw, tally, expected)
    run_flips(whole, flips, draw, tally, expected)
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="signals for each number of jobs")
    parser.add_argument("--flips", type=int, default=50)
    parser.add_argument("--workers", type=int, default=50, help="workers of two that get SIGKILL, and the command nothing")
    parser.add_argument("--jobs", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    asked = parser.parse_args()
    warm, kills = WarmPython(), dict.fromkeys(sorted(asked.jobs), asked.kills)
    with tempfile.TemporaryDirectory(prefix="phoropter-kills-") as temporary:
        tally = torment_study(asked.folder or Path(temporary), warm, kills, asked.flips, asked.seed, asked.workers)
    warm.close()
    print(json.dumps({"counts": dict(sorted(tally.counts.items())), "slowest_exit_s": round(tally.slowest_exit_s, 1)}, indent=1))
    print(f"{len(tally.wrongs)} wrongs", *tally.wrongs, sep="\n")
    return int(bool(tally.wrongs))


if __name__ == "__main__":
    sys.exit(main())

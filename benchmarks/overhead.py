"""What a run costs beyond its own work: thousands of runs that have none, by the pool of this machine.

    python -m benchmarks.overhead [--runs 10000] [--jobs 2]

Ten candidates are predictions of another tool, so a run reads its rows from a table in memory, and everything else is what every
run costs: its claim, its folder of files with checksums, its record, the words between processes. The page of the whole study is
left to `report`. Seconds for each run are those of the pool times its processes; those of the processor are fairer. Memory
is the resident size of parent and workers, sampled each second; `status` and `report` are commands of their own, start included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is loaded
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import psutil

from phoropter.data.spec import open_dataset
from phoropter.data.splits.protocol import make_splits
from phoropter.results.store import Store
from phoropter.study.executors import Places, execute_study, make_executor
from phoropter.study.progress import ProgressEvent
from phoropter.study.spec import StudySpec, read_study
from phoropter.study.worker import ComputeOptions

OUT = Path(__file__).parent / "results" / "overhead.json"
CANDIDATES, FOLDS = 10, 10
STUDY = """\
name: overhead
data: {{digits: true, size: 16, max_samples: 100}}
protocol: {{split: stratified-k-fold, folds: {folds}, repeats: {repeats}, seeds: [0]}}
save_models: none
candidates:
"""


def write_study(folder: Path, runs: int) -> StudySpec:
    """A study of about as many runs, whose candidates are tables of random predictions for all its splits."""
    repeats = max(1, round(runs / CANDIDATES / FOLDS))
    names = [f"table{number}" for number in range(CANDIDATES)]
    entries = "".join(f"  - {{predictions: {name}.csv, name: {name}}}\n" for name in names)
    (folder / "study.yaml").write_text(STUDY.format(folds=FOLDS, repeats=repeats) + entries, encoding="utf-8")
    study = read_study(folder / "study.yaml")[0]
    dataset = open_dataset(study.data, study.base)
    splits, draw = make_splits(dataset, study.protocol), np.random.default_rng(0)
    for name in names:
        lines = ["id,repeat,fold," + ",".join(f"p_{c}" for c in dataset.classes)]
        for split in splits:
            for row in split.test:
                chances = draw.dirichlet(np.ones(len(dataset.classes)))
                lines.append(f"{dataset.ids[row]},{split.repeat},{split.fold}," + ",".join(f"{p:.8f}" for p in chances))
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return study


class Sample(NamedTuple):
    """second: since the beginning · parent, worker: resident bytes of this process and of its largest child
    cpu_s: processor time of all of them so far"""

    second: float
    parent: int
    worker: int
    cpu_s: float


def watch_processes(ended: threading.Event, samples: list[Sample], began: float) -> None:
    """Takes a sample each second until `ended`."""
    me = psutil.Process()
    while not ended.wait(1.0):
        sizes, seconds = [0], sum(me.cpu_times()[:2])
        for child in me.children(recursive=True):
            try:
                sizes.append(child.memory_info().rss)
                seconds += sum(child.cpu_times()[:2])
            except psutil.Error:
                continue
        samples.append(Sample(time.monotonic() - began, me.memory_info().rss, max(sizes), seconds))


def run_pool(study: StudySpec, folder: Path, jobs: int) -> dict[str, Any]:
    """Seconds of the pool from its first finished run to its last, on the wall and of the processors; memory early and late."""
    done: list[float] = []
    began, ended, samples = time.monotonic(), threading.Event(), list[Sample]()

    def follow(event: ProgressEvent) -> None:
        if event.kind == "done":
            done.append(time.monotonic() - began)

    watcher = threading.Thread(target=watch_processes, args=(ended, samples, began), daemon=True)
    watcher.start()
    executor = make_executor(ComputeOptions("cpu"), folder / "cache", Places(jobs))
    store = execute_study(study, folder / "out", follow, cache=folder / "cache", executor=executor)
    ended.set()
    watcher.join()
    whole = time.monotonic() - began
    count = store.count_finished_runs()
    first = min(done)
    within = [s for s in samples if first <= s.second <= done[-1]]  # without the start and the last look at the whole study
    early, late = within[len(within) // 10], within[-1]
    return {
        "runs": count,
        "jobs": jobs,
        "prepare_s": first,
        "runs_s": done[-1] - first,
        "ms_per_run": 1000 * jobs * (done[-1] - first) / count,
        "cpu_ms_per_run": 1000 * (late.cpu_s - within[0].cpu_s) / sum(within[0].second < at <= late.second for at in done),
        "whole_s": whole,
        "parent_mib": [early.parent >> 20, late.parent >> 20],
        "worker_mib": [early.worker >> 20, late.worker >> 20],
    }


def time_command(folder: Path, *arguments: str) -> float:
    """Seconds of a command of phoropter in a folder, in a process of its own."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "phoropter", *arguments], check=True, stdout=subprocess.DEVNULL, cwd=folder)
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--without-report", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        row = run_pool(write_study(folder, asked.runs), folder, asked.jobs)
        assert Store(folder / "out").read_failures() == {}
        print(json.dumps(row), flush=True)
        commands = {"status": ["out"], "plan": ["study.yaml", "-o", "out"], "report": ["out"]}
        for name in ("status", "plan") if asked.without_report else commands:
            row[f"{name}_s"] = time_command(folder, name, *commands[name])
            print(f"{name}: {row[f'{name}_s']:.1f} s", flush=True)
        row["load"] = round(os.getloadavg()[0], 1)
    known = json.loads(OUT.read_text()) if OUT.exists() else {}
    OUT.write_text(json.dumps({**known, str(row["runs"]): row}, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""What every benchmark does alike: two sides in turns after a warm-up, the ratio, its spread, and a row in results/NAME.json.

A ratio is the median of the turns' ratios; the spread is the middle half of them. Time is processor time, which other programs on
the machine change less than they change the clock; a benchmark that waits for a disk or for other processes says `clock=wall`.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Turns:
    """Seconds of both sides in each turn."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """How many times longer theirs took, smallest first."""
        return sorted(b / a for a, b in zip(self.ours, self.theirs, strict=True))


def in_turns(
    ours: Callable[[], Any], theirs: Callable[[], Any], turns: int = 5, *, warm: bool = True, clock: str = "processor"
) -> Turns:
    """Runs both sides alternately, the order changing from turn to turn; with `warm`, each once beforehand, untimed."""
    if warm:
        ours(), theirs()
    seconds: dict[Callable[[], Any], list[float]] = {ours: [], theirs: []}
    for turn in range(turns):
        for side in (ours, theirs)[:: 1 if turn % 2 else -1]:
            seconds[side].append(timed(side, clock))
    return Turns(tuple(seconds[ours]), tuple(seconds[theirs]))


def timed(work: Callable[[], Any], clock: str = "processor") -> float:
    """Seconds of one call: of the processor (all threads of this process) or on the wall."""
    now = time.process_time if clock == "processor" else time.perf_counter
    began = now()
    work()
    return now() - began


def row(claim: str, turns: Turns, goal: float | None, units: float = 0.0, unit: str = "", **more: Any) -> dict[str, Any]:
    """One claim as a row of the results; with `units`, both sides are given as so many `unit` a second."""

    def said(side: Sequence[float]) -> str:
        middle = statistics.median(side)
        return f"{units / middle:,.1f} {unit}/s" if units else f"{middle:.3f} s"

    return figure(claim, turns.ratios, goal, said(turns.ours), said(turns.theirs), **more)


def figure(claim: str, ratios: Sequence[float], goal: float | None, ours: str, theirs: str, **more: Any) -> dict[str, Any]:
    """A row of the results from the ratios of the turns, whatever they are ratios of."""
    ordered = sorted(ratios)
    return {
        "claim": claim,
        "ratio": round(statistics.median(ordered), 3),
        "goal": goal,
        "spread": [round(end, 3) for end in (ordered[len(ordered) // 4], ordered[-1 - len(ordered) // 4])],
        "ours": ours,
        "theirs": theirs,
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
        "versions": versions(),
        **more,
    }


def write(name: str, rows: Iterable[dict[str, Any]]) -> None:
    """Prints the rows as they come and writes results/NAME.json when all are there."""
    kept = []
    for r in rows:
        goal = "" if r["goal"] is None else f", goal {r['goal']:g}"
        low, high = r["spread"]
        said = f"{r['claim']:76} {r['ratio']:8.2f} x (half of the turns {low:.2f}..{high:.2f}){goal}: {r['ours']}, {r['theirs']}"
        print(said, flush=True)
        kept.append(r)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def one_thread(file: str) -> None:
    """Starts the benchmark again with one thread: claims are per core, and NumPy and torch read this when they are imported."""
    if any(os.environ.get(name) != "1" for name in THREADS):
        os.execve(sys.executable, [sys.executable, file, *sys.argv[1:]], os.environ | dict.fromkeys(THREADS, "1"))


def run_process(arguments: Iterable[str], folder: Path) -> tuple[float, float]:
    """Python with these arguments in a folder that holds its cache, too: seconds on the wall and of the processor."""
    import resource  # which Windows does not have, and few benchmarks need

    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "PHOROPTER_CACHE": str(folder / "cache")}
    subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, used


def run_counted(command: Sequence[str | Path], **given: Any) -> tuple[subprocess.CompletedProcess[str], float]:
    """A command that has ended, with what it printed, and the processor seconds of its processes. given: of subprocess.run"""
    began = os.times()
    done = subprocess.run(command, capture_output=True, text=True, **given)
    ended = os.times()
    return done, ended.children_user + ended.children_system - began.children_user - began.children_system


def machine() -> str:
    """The processor's name, and how many of its cores were used."""
    try:
        names = [line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    except OSError:
        names = []
    used = os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))
    return f"{names[0] if names else platform.processor() or platform.machine()}, {used} of {os.cpu_count()} cores"


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("torch", "timm", "torchvision", "numpy", "scipy", "pillow")}

"""How cost grows with pictures and with runs: time, memory and disk of `inspect`, `plan`, `run`, `status` and `report`.

    python benchmarks/growth.py [--quick] [pictures | runs]

Along one axis 10² to 10⁵ tiny JPEG files in ten class folders under one study of two runs (a frozen network at 32 pixels, its
head solved); along the other 10 to 10⁴ runs (five frozen candidates with heads of their own, two folds, 1 to 1,000 seeds) on 100
of these pictures. Every command is a process of its own on one thread, as a person starts it. `run` is the first call; the others
are called once beforehand, because people call them again and again, and then three times, of which the quickest counts: beside a
start of half a second, what grows is small. Seconds are of the wall and of the processor; memory is
the peak of the largest process; disk is what results, report and cache take after the commands.

To each series of seconds and of disk fixed + factor · n^exponent is fitted (relative errors, nothing below 0). Nothing may grow
faster than n · log n, whose exponent over these decades is 1.10 to 1.13. The peak of memory is the larger one of what imports
and what data take, not their sum, so that no such law fits it: its exponent is that of the last tenfold step, which a fixed part
makes smaller. Seconds on the wall need a quiet machine, those of the processor less so. `--quick` stops a decade earlier and
draws nothing.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _sides import figure, one_thread, write

LIMIT = 1.13  # the exponent of n · log n over the decades measured: 1.10 to 1.13
TIMES = 3  # that commands are measured which are called again and again
PICTURES, RUNS = (100, 1_000, 10_000, 100_000), (10, 100, 1_000, 10_000)
CLASSES, SIDE, MIB = 10, 16, 2**20
DRAWN = Path(__file__).parents[1] / "docs" / "images" / "growth.png"
HEADS = ("linear", "dense", "{kind: dense, dropout: 0.2}", "{kind: linear, dropout: 0.2}", "{kind: dense, dropout: 0.4}")
STUDY = """\
name: growth
data: {folder: pictures, size: 32}
protocol: {split: stratified-k-fold, folds: 2, seeds: [SEEDS]}
recipe: RECIPE
candidates:
CANDIDATES
"""
COMMANDS = {  # in the order in which they are measured → (arguments, whether it is called once beforehand)
    "inspect": (("inspect", "pictures"), True),
    "run": (("run", "study.yaml", "-o", "out", "-j", "1"), False),
    "plan": (("plan", "study.yaml", "-o", "out"), True),
    "status": (("status", "out"), True),
    "report": (("report", "out"), True),
}


@dataclass(frozen=True)
class Cost:
    """Of one command at one size. wall_s, processor_s: seconds · memory: bytes, the peak of its largest process"""

    wall_s: float
    processor_s: float
    memory: float


@dataclass(frozen=True)
class Growth:
    """fixed + factor · n^exponent"""

    fixed: float
    factor: float
    exponent: float


def fit_growth(sizes: Sequence[float], costs: Sequence[float]) -> Growth:
    """The least relative squares; an exponent of 0 where what does not grow explains the costs, or the last one, to a tenth."""
    import numpy as np
    from scipy.optimize import nnls

    n, cost = np.asarray(sizes, float), np.asarray(costs, float)
    if cost.max() <= 1.1 * cost.min():
        return Growth(float(cost.mean()), 0.0, 0.0)

    def fit(exponent: float) -> tuple[float, float, float, float]:
        (fixed, factor), error = nnls(np.stack([np.ones_like(n), n**exponent], 1) / cost[:, None], np.ones_like(n))
        return error, exponent, fixed, factor

    _, exponent, fixed, factor = min(fit(step / 100) for step in range(5, 301))
    if factor * n[-1] ** exponent < 0.1 * fixed:
        return Growth(float(cost.mean()), 0.0, 0.0)
    return Growth(float(fixed), float(factor), exponent)


def find_last_exponent(sizes: Sequence[float], costs: Sequence[float]) -> Growth:
    """Of factor · n^exponent through the last two costs."""
    exponent = math.log(costs[-1] / costs[-2]) / math.log(sizes[-1] / sizes[-2])
    return Growth(0.0, costs[-1] / sizes[-1] ** exponent, exponent)


def make_pictures(folder: Path, count: int) -> None:
    """Adds JPEG files of a few hundred bytes to ten class folders until there are `count`."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(count)
    for i in range(CLASSES):
        (folder / f"class{i}").mkdir(parents=True, exist_ok=True)
    for i in range(sum(len(files) for _, _, files in os.walk(folder)), count):
        shade = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        picture = Image.fromarray(shade).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        picture.save(folder / f"class{i % CLASSES}" / f"{i:06d}.jpg", quality=85)


def write_study(path: Path, seeds: int, one: bool) -> None:
    """one: a single candidate whose head is solved; else five that are trained."""
    lines = ["  - {backbone: test_resnet, weights: random, frozen: true}"]
    if not one:
        lines = [
            f"  - {{name: c{i}, backbone: test_resnet, weights: random, frozen: true, head: {head}}}"
            for i, head in enumerate(HEADS)
        ]
    text = STUDY.replace("SEEDS", ", ".join(map(str, range(seeds)))).replace("CANDIDATES", "\n".join(lines))
    path.write_text(text.replace("RECIPE", "logistic" if one else "{preset: probe, epochs: 1}"))


def measure_command(arguments: tuple[str, ...], folder: Path) -> Cost:
    """Raises SystemExit where the command fails."""
    environment = {**os.environ, "PHOROPTER_CACHE": str(folder / "cache")}
    began = time.perf_counter()
    with (folder / "said").open("wb") as said:
        command = [sys.executable, "-m", "phoropter", *arguments]
        child = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(
            f"phoropter {' '.join(arguments)} ended with {child.returncode}:\n{(folder / 'said').read_text()[-2000:]}"
        )
    memory = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Cost(time.perf_counter() - began, used.ru_utime + used.ru_stime, memory)


def find_quickest(costs: Sequence[Cost]) -> Cost:
    """The least seconds of all, and the most memory."""
    return Cost(min(c.wall_s for c in costs), min(c.processor_s for c in costs), max(c.memory for c in costs))


def count_bytes(*folders: Path) -> int:
    """What the files take on the disk, in blocks as the file system counts them."""
    return sum(
        (Path(at) / name).lstat().st_blocks * 512 for folder in folders for at, _, names in os.walk(folder) for name in names
    )


def measure_size(folder: Path) -> tuple[dict[str, Cost], int]:
    """Every command on the study of the folder, from nothing kept; and the bytes that are there afterwards."""
    for kept in ("cache", "out"):
        shutil.rmtree(folder / kept, ignore_errors=True)
    costs = {}
    for name, (arguments, again) in COMMANDS.items():
        if again:
            measure_command(arguments, folder)
        costs[name] = find_quickest([measure_command(arguments, folder) for _ in range(TIMES if again else 1)])
        print(f"    {name:8} {costs[name].wall_s:8.2f} s, {costs[name].memory / MIB:7.0f} MiB", flush=True)
    return costs, count_bytes(folder / "cache", folder / "out")


def measure_axis(axis: str, sizes: Sequence[int], folder: Path) -> tuple[list[dict[str, Cost]], list[int]]:
    costs, disk = [], []
    for size in sizes:
        print(f"{size:,} {axis}", flush=True)
        make_pictures(folder / "pictures", size if axis == "pictures" else 100)
        write_study(folder / "study.yaml", 1 if axis == "pictures" else size // (2 * len(HEADS)), axis == "pictures")
        of_size, kept = measure_size(folder)
        costs.append(of_size)
        disk.append(kept)
    return costs, disk


def rows_of(axis: str, sizes: Sequence[int], costs: list[dict[str, Cost]], disk: list[int]) -> Iterator[dict[str, Any]]:
    """One row for each series, whose ratio is the exponent."""
    series = {
        f"{command}: {what}": ([getattr(c[command], of) / unit for c in costs], shown)
        for command in COMMANDS
        for what, of, unit, shown in (
            ("wall", "wall_s", 1, "s"),
            ("processor", "processor_s", 1, "s"),
            ("memory", "memory", MIB, "MiB"),
        )
    }
    series["disk"] = ([kept / MIB for kept in disk], "MiB")
    for name, (values, unit) in series.items():
        found = (find_last_exponent if name.endswith("memory") else fit_growth)(sizes, values)
        most = f"{values[-1]:,.2f} {unit} at {sizes[-1]:,}"
        law = f"{found.fixed:.2f} + {found.factor:.3g} n^{found.exponent:.2f} {unit}"
        yield figure(f"{axis}, {name}: exponent", [found.exponent], LIMIT, most, law, sizes=list(sizes), values=values)


def draw_growth(measured: dict[str, tuple[Sequence[int], list[dict[str, Cost]], list[int]]], path: Path) -> None:
    """Seconds of the processor above, memory and disk below, one column an axis; the broken lines are n and n · log n."""
    import numpy as np
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(4.6 * len(measured), 6.4), layout="constrained")
    panels = drawing.subplots(2, len(measured), squeeze=False)
    for column, (axis, (sizes, costs, disk)) in enumerate(measured.items()):
        above, below = panels[:, column]
        for command in COMMANDS:
            above.loglog(sizes, [c[command].processor_s for c in costs], "o-", ms=3, label=command)
            below.loglog(sizes, [c[command].memory / MIB for c in costs], "o-", ms=3, label=command)
        below.loglog(sizes, [kept / MIB for kept in disk], "s--", ms=3, color="0.3", label="disk")
        n = np.array(sizes, float)
        for law, label in ((n, "n"), (n * np.log(n), "n log n")):
            above.loglog(n, 0.2 * law / law[0], ":", color="0.6", lw=1)
            above.annotate(label, (n[-1], 0.2 * law[-1] / law[0]), fontsize=7, color="0.5", ha="right")
        above.set_ylabel("seconds of the processor")
        below.set_ylabel("MiB")
        below.set_xlabel(axis)
        above.legend(fontsize=7, frameon=False)
        below.legend(fontsize=7, frameon=False)
    drawing.savefig(path, dpi=130)


def main() -> None:
    one_thread(__file__)
    parser = argparse.ArgumentParser(description="How cost grows with pictures and with runs.")
    parser.add_argument("axis", nargs="?", choices=("pictures", "runs"), help="one of the two (default: both)")
    parser.add_argument("--quick", action="store_true", help="a decade less, and no drawing")
    asked = parser.parse_args()
    measured = {}
    for axis, sizes in {"pictures": PICTURES, "runs": RUNS}.items():
        if asked.axis in (None, axis):
            with tempfile.TemporaryDirectory() as at:
                chosen = sizes[:-1] if asked.quick else sizes
                measured[axis] = (chosen, *measure_axis(axis, chosen, Path(at)))
    rows = [row for axis, (sizes, costs, disk) in measured.items() for row in rows_of(axis, sizes, costs, disk)]
    write("growth_quick" if asked.quick else "growth", rows)
    if not asked.quick and asked.axis is None:
        draw_growth(measured, DRAWN)


if __name__ == "__main__":
    main()

"""Rendering ECG windows: batched, against one window at a time with SciPy and Pillow, on one core, in one run.

    python benchmarks/rendering.py

The other side is what a script would do: `scipy.signal.spectrogram` of a window, decibels, stretched to 0..1, resized by
Pillow, into a preallocated array. Both sides make the same pictures (at most one grey level apart; checked first) of the
same windows. They take turns; the first turn of each is thrown away; the ratio is the median of the turns' ratios.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.signal
from PIL import Image

from phoropter.signals.render import Spectrogram, render
from phoropter.signals.simulate import EcgCohort, ecg_simulate
from phoropter.signals.windows import WindowRule, cut, windows

GOAL = 2.5
TURNS = 15
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
RESULTS = Path(__file__).parent / "results" / "rendering.json"


def ecg_windows(count: int) -> np.ndarray:
    """(count, 3500) simulated ECG: 5 s at 700 Hz."""
    recordings = ecg_simulate(EcgCohort(subjects=4))
    table = windows(recordings, WindowRule(length_s=5, step_s=2))
    rows = np.linspace(0, len(table) - 1, count).astype(np.int64)
    return cut(recordings, table, rows, ("ECG",))[:, 0]


def grey(power: np.ndarray) -> np.ndarray:
    level = 10 * np.log10(np.maximum(power, 1e-20))
    high = level.max()
    np.clip(level, high - 80, high, out=level)
    low = level.min()
    return (level - low) / (high - low) if high > low else np.zeros_like(level)


def paper_one_by_one(batch: np.ndarray) -> np.ndarray:
    out = np.empty((len(batch), 224, 224), np.uint8)
    for i, window in enumerate(batch):
        power = scipy.signal.spectrogram(window, 700)[2]
        image = Image.fromarray(np.ascontiguousarray(grey(power)[::-1]))
        out[i] = np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR)) * 255 + 0.5
    return out


def dense_one_by_one(batch: np.ndarray) -> np.ndarray:
    out = np.empty((len(batch), 224, 224), np.uint8)
    for i, window in enumerate(batch):
        power = scipy.signal.spectrogram(window, 700, window="hann", nperseg=378, noverlap=364, nfft=4096)[2]
        out[i] = grey(power[:224])[::-1] * 255 + 0.5
    return out


def seconds(work: Callable[[], Any]) -> float:
    """Processor time, which other programs on the machine change less than they change the clock."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def compare(claim: str, count: int, picture: Spectrogram, one_by_one: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
    """Checks that both sides make the same pictures, then times them in turns."""
    batch = ecg_windows(count)
    apart = int(np.abs(render(batch, 700.0, picture).astype(int) - one_by_one(batch)).max())
    if apart > 1:
        raise SystemExit(f"{claim}: the pictures are {apart} grey levels apart, so there is nothing to compare")
    turns = [(seconds(lambda: render(batch, 700.0, picture)), seconds(lambda: one_by_one(batch))) for _ in range(TURNS + 1)][1:]
    ratios = sorted(theirs / ours for ours, theirs in turns)
    return {
        "claim": claim,
        "ratio": round(statistics.median(ratios), 2),
        "goal": GOAL,
        "spread": [round(ratios[len(ratios) // 4], 2), round(ratios[-1 - len(ratios) // 4], 2)],
        "ours": f"{count / statistics.median(ours for ours, _ in turns):.0f} windows/s",
        "theirs": f"{count / statistics.median(theirs for _, theirs in turns):.0f} windows/s",
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
        "versions": {name: importlib.metadata.version(name) for name in ("numpy", "scipy", "pillow")},
        "largest_difference": apart,
    }


def machine() -> str:
    """The processor's name, and that one core of it was used."""
    try:
        names = [line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    except OSError:
        names = []
    return f"{names[0] if names else platform.processor() or platform.machine()}, 1 of {os.cpu_count()} cores"


def main() -> None:
    if os.environ.get("OMP_NUM_THREADS") != "1":  # the claim is per core, and NumPy reads this when it is imported
        os.execve(sys.executable, [sys.executable, __file__], os.environ | dict.fromkeys(_THREADS, "1"))
    rows = [
        compare("ECG window to 224 px spectrogram, SciPy's defaults resized", 256, Spectrogram(style="paper"), paper_one_by_one),
        compare("ECG window to 224 px spectrogram, dense", 48, Spectrogram(style="dense"), dense_one_by_one),
    ]
    for row in rows:
        low, high = row["spread"]
        print(
            f"{row['claim']:62} {row['ratio']:5.2f} x (half of the turns {low:.2f}..{high:.2f}), goal {row['goal']} x,", end=" "
        )
        print(f"ours {row['ours']}, theirs {row['theirs']}, at most {row['largest_difference']} grey level apart")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Rendering ECG windows: batched, against one window at a time with SciPy and Pillow, on one core, in one run.

    python benchmarks/rendering.py

The other side is what a script would do: `scipy.signal.spectrogram` of a window, decibels, stretched to 0..1, resized by
Pillow, into a preallocated array. Both sides make the same pictures (at most one grey level apart; checked first) of the
same windows, on one core (see _sides.py for how they take turns).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.signal
from PIL import Image

from phoropter.signals.render import Spectrogram, render_windows
from phoropter.signals.simulate import EcgCohort, ecg_simulate
from phoropter.signals.windows import WindowRule, extract_windows, sliding_windows

sys.path.insert(0, str(Path(__file__).parent))
from _sides import in_turns, one_thread, row, write

GOAL = 2.5
TURNS = 15


def ecg_windows(count: int) -> np.ndarray:
    """(count, 3500) simulated ECG: 5 s at 700 Hz."""
    recordings = ecg_simulate(EcgCohort(subjects=4))
    table = sliding_windows(recordings, WindowRule(length_s=5, step_s=2))
    rows = np.linspace(0, len(table) - 1, count).astype(np.int64)
    return extract_windows(recordings, table, rows, ("ECG",))[:, 0]


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


def compare(claim: str, count: int, picture: Spectrogram, one_by_one: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
    """Checks that both sides make the same pictures, then times them in turns."""
    batch = ecg_windows(count)
    apart = int(np.abs(render_windows(batch, 700.0, picture).astype(int) - one_by_one(batch)).max())
    if apart > 1:
        raise SystemExit(f"{claim}: the pictures are {apart} grey levels apart, so there is nothing to compare")
    turns = in_turns(lambda: render_windows(batch, 700.0, picture), lambda: one_by_one(batch), TURNS)
    return row(claim, turns, GOAL, count, "windows", largest_difference=apart)


def main() -> None:
    one_thread(__file__)  # the claim is per core
    rows = [
        compare("ECG window to 224 px spectrogram, SciPy's defaults resized", 256, Spectrogram(style="paper"), paper_one_by_one),
        compare("ECG window to 224 px spectrogram, dense", 48, Spectrogram(style="dense"), dense_one_by_one),
    ]
    write("rendering", rows)


if __name__ == "__main__":
    main()

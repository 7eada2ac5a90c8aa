"""The samples of every window of a dataset of recordings at one rate, kept in the cache: what `signal-1d` reads. No torch here.

They are functions of one window, fitted to nothing, so that all splits share them. They lie in a memory-mapped file and are read
batch by batch, so that the memory of a training does not grow with the number or the length of the windows.

Letters: N windows, K channels, L samples as recorded, T samples as kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError
from phoropter.core.files import digest, make_folder
from phoropter.data.dataset import Dataset
from phoropter.data.recordings.dataset import RenderedPictures
from phoropter.training.array_cache import CachedArray, ProgressFunction

RATE_HZ = 100.0  # the rate of the benchmark of Strodthoff et al. 2020 (arXiv 2004.13701), whose windows have 1,000 samples
MIN_SAMPLES, MAX_SAMPLES = 256, 1024  # of a kept window: another rate is chosen where 100 Hz would give fewer or more
SAMPLES_VERSION = 1  # raise when equal recordings would give other samples than before
_BLOCK_ROWS = 256


@dataclass(frozen=True, eq=False)
class SignalWindows:
    """samples: (N, K, T) float32, memory-mapped; NaN where fewer than half of the recorded ones were measured
    channels: their names · rate_hz: of the kept samples · has_fixed_units: whether a level means the same in every recording
    """

    samples: NDArray[np.float32]
    channels: tuple[str, ...]
    rate_hz: float
    has_fixed_units: bool


def choose_sample_count(length: int, rate_hz: float) -> int:
    """How many samples are kept of a window of `length` at `rate_hz`: 100 a second, between 256 and 1,024, never more than there
    are."""
    seconds = length / rate_hz
    return min(length, round(min(max(seconds * RATE_HZ, MIN_SAMPLES), MAX_SAMPLES)))


def average_pieces(samples: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """(K, L) → (K, count): the mean of the measured samples in each of `count` equal pieces, a sample cut by a border in parts.

    NaN where fewer than half were measured. count: at most L
    """
    length = samples.shape[1]
    if count == length:
        return samples
    measured = np.isfinite(samples)
    places = np.linspace(0.0, length, count + 1)
    sums, weights = (
        np.diff(np.stack([np.interp(places, np.arange(length + 1), row) for row in _sum_up(values)]))
        for values in (np.where(measured, samples, 0), measured)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(weights * 2 >= length / count, sums / weights, np.nan).astype(np.float32)


def _sum_up(values: NDArray[np.generic]) -> NDArray[np.float64]:
    """(K, L) → (K, L + 1): the sum of all before each place."""
    return np.pad(np.cumsum(values, axis=1, dtype=np.float64), ((0, 0), (1, 0)))


def open_signal_windows(dataset: Dataset, cache: Path, progress: ProgressFunction | None = None) -> SignalWindows:
    """The kept samples of all rows, computed unless the cache has them. Raises DataError for a dataset without recordings."""
    pictures = dataset.pictures
    if not isinstance(pictures, RenderedPictures):
        raise DataError(f"baseline signal-1d needs windows of recordings, and {dataset.name} has none; choose another baseline")
    view, table = pictures.windows.view, pictures.windows.table
    length = int(table.stop[pictures.index[0]] - table.start[pictures.index[0]])
    count = choose_sample_count(length, pictures.rate_hz)
    channels = view.measured_channels

    def cut_block(block: int) -> NDArray[np.float32]:
        rows = range(block * _BLOCK_ROWS, min((block + 1) * _BLOCK_ROWS, len(dataset)))
        cut = (pictures.unfiltered_signals(row) for row in rows)
        return np.stack([average_pieces(np.stack([signals[name] for name in channels]), count) for signals in cut])

    folder = cache / "signal-windows" / digest([SAMPLES_VERSION, dataset.content_digest, len(dataset), channels, count])
    make_folder(folder.parent)
    stored = CachedArray(folder, "samples.npy", (len(dataset), len(channels), count), "<f4", "samples of windows")
    starts = range(0, len(dataset), _BLOCK_ROWS)
    samples = stored.load_or_compute([min(_BLOCK_ROWS, len(dataset) - start) for start in starts], cut_block, progress)
    return SignalWindows(samples, channels, pictures.rate_hz * count / length, has_fixed_units=view.kind == "ctg")

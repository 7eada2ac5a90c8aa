"""The features of a candidate without a network, for all rows of a dataset; those of a baseline are measured once and cached.

They are functions of one row's picture or window, fitted to nothing, so that all splits may share them. No torch here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError, SpecError
from phoropter.core.files import atomic_write, digest, make_folder
from phoropter.core.storage.npz_files import read_own_npz
from phoropter.data.dataset import Dataset
from phoropter.data.images.pixels import Pixels
from phoropter.data.recordings.dataset import RenderedPictures
from phoropter.signals.measures.ctg_measures import measure_ctg
from phoropter.signals.measures.hrv import measure_hrv
from phoropter.training.array_cache import ProgressFunction
from phoropter.training.candidates.table_spec import FEATURES_VERSION, TableSpec
from phoropter.training.tables.feature_file import read_features
from phoropter.training.tables.picture_features import measure_colour_texture, measure_mean_image

BLOCK_ROWS = 256
_OF_PICTURES = {"mean-image": measure_mean_image, "colour-texture": measure_colour_texture}
_SIGNALS = {
    "hrv": "an ECG (one channel)",
    "ctg-features": "a cardiotocogram (channels FHR and UC)",
    "signal-1d": "recordings",
}


@dataclass(frozen=True, eq=False)
class RowFeatures:
    """values: (N, D) float32, NaN where a feature could not be measured · seconds: what measuring all rows took"""

    values: NDArray[np.float32]
    seconds: float


def check_baseline(table: TableSpec, dataset: Dataset, where: str) -> None:
    """Raises SpecError for a baseline of recordings on a dataset without them, or of another kind. where: the candidate"""
    wanted = _SIGNALS.get(table.baseline or "")
    if wanted is None:
        return
    view = dataset.pictures.windows.view if isinstance(dataset.pictures, RenderedPictures) else None
    fits = view is not None and (table.is_signal_network or (view.kind == "ctg") == (table.baseline == "ctg-features"))
    if not fits:
        has = "rows are pictures" if view is None else f"windows show {' and '.join(view.measured_channels)}"
        raise SpecError(
            f"{where}: baseline {table.baseline} needs windows of {wanted}, and this dataset's {has}; choose colour-texture or "
            "mean-image"
        )


def compute_row_features(
    table: TableSpec, dataset: Dataset, pixels: Pixels, cache: Path, base: Path | None, progress: ProgressFunction | None = None
) -> RowFeatures:
    """Reads the file of a candidate, or measures the features of its baseline, unless the cache has them."""
    if table.features is not None:
        return RowFeatures(read_features(table, dataset, base)[0], 0.0)
    name = table.baseline or ""
    contents = pixels.identity if name in _OF_PICTURES else dataset.content_digest
    path = cache / "row-features" / f"{digest([name, FEATURES_VERSION, contents, len(dataset)])}.npz"
    try:
        stored = read_own_npz(path)
        if stored["values"].shape[:1] == (len(dataset),):
            return RowFeatures(stored["values"], float(stored["seconds"]))
    except (OSError, ValueError, KeyError):
        pass  # not there, or damaged: it is measured again
    began = time.monotonic()
    blocks = _measure_pictures(name, pixels) if name in _OF_PICTURES else _measure_windows(name, dataset)
    parts, done = [], 0
    for block in blocks:
        parts.append(block)
        done += len(block)
        if progress:
            progress(done, len(dataset))
    found = RowFeatures(np.concatenate(parts).astype(np.float32), time.monotonic() - began)
    make_folder(path.parent)
    with atomic_write(path) as aside, aside.open("wb") as file:
        np.savez(file, values=found.values, seconds=np.array(found.seconds))
    return found


def _measure_pictures(name: str, pixels: Pixels) -> Iterator[NDArray[np.floating]]:
    for start in range(0, len(pixels), BLOCK_ROWS):
        yield _OF_PICTURES[name](pixels.batch(np.arange(start, min(start + BLOCK_ROWS, len(pixels)), dtype=np.int64)))


def _measure_windows(name: str, dataset: Dataset) -> Iterator[NDArray[np.floating]]:
    pictures = dataset.pictures
    if not isinstance(pictures, RenderedPictures):
        raise DataError(f"baseline {name} needs windows of recordings, and {dataset.name} has none; choose another baseline")
    measure: Callable[[dict[str, NDArray[np.float32]], float], NDArray[np.float64]]
    measure = _measure_beats if name == "hrv" else _measure_birth
    for row in range(len(dataset)):
        yield measure(pictures.unfiltered_signals(row), pictures.rate_hz)[None]


def _measure_beats(signals: dict[str, NDArray[np.float32]], rate_hz: float) -> NDArray[np.float64]:
    return measure_hrv(next(iter(signals.values())), rate_hz)


def _measure_birth(signals: dict[str, NDArray[np.float32]], rate_hz: float) -> NDArray[np.float64]:
    return measure_ctg(signals["FHR"], signals["UC"], rate_hz)

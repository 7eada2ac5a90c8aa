"""The rows of a dataset under a corruption, as a dataset and its pixels: what networks and baselines read in place of their own.

Nothing of it is stored: pictures are corrupted, and windows of corrupted recordings drawn, when they are read. The recordings of
one corruption are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import SpecError
from phoropter.core.files import digest, digest_array
from phoropter.data.dataset import Dataset
from phoropter.data.images.decode import SquareResize
from phoropter.data.images.pixels import Pixels, UnstoredPixels
from phoropter.data.recordings.dataset import RenderedPictures, RenderedWindows
from phoropter.data.recordings.lazy import LazyRecordings
from phoropter.data.shift.corrupted_recordings import corrupt_recording
from phoropter.data.shift.squares import PICTURE_CORRUPTIONS, corrupt_square
from phoropter.results.shift.corruption_kinds import DRAWN, KINDS, Corruption
from phoropter.results.shift.spec import ShiftSpec
from phoropter.signals.recording import LoadedRecordings

Rows = NDArray[np.int64]
Squares = NDArray[np.uint8]
_OF_PICTURES = (*PICTURE_CORRUPTIONS, "noise")
_OF_BIRTHS = ("noise", "dropout_s")
_OF_CHANNELS = ("noise", "dropout_s", "baseline_wander", "powerline")


def resolve_corruptions(spec: ShiftSpec, dataset: Dataset) -> tuple[Corruption, ...]:
    """The corruptions that a study asks for, on this dataset. Raises SpecError for those that its rows cannot have."""
    pictures = dataset.pictures
    rate_hz, window_s = 0.0, 0.0
    if isinstance(pictures, RenderedPictures):
        rate_hz, window_s = pictures.rate_hz, float(np.ptp(dataset.spans[0])) if dataset.spans is not None else 0.0
    fitting = _list_fitting(dataset)
    if not spec.named:
        hum = 2 * spec.powerline_hz < rate_hz
        asked: dict[str, Any] = {kind: True for kind in fitting if kind != "powerline" or hum}
        if "powerline_hz" in spec.model_fields_set and "powerline" not in asked:
            raise SpecError(f"shift: powerline_hz has no effect on {dataset.name}, which gets no mains hum; leave it out")
    else:
        asked = dict(spec.named)
        for kind in asked:
            _check_fits(kind, fitting, dataset, spec.powerline_hz, rate_hz)
    found = []
    for kind, levels in asked.items():
        own = KINDS[kind].levels
        chosen = levels if levels is not True else [float(f"{v * window_s:.2g}") for v in own] if kind == "dropout_s" else own
        if kind == "dropout_s" and max(chosen) >= window_s:
            raise SpecError(f"shift: dropout_s is {max(chosen):g}, and a window of {dataset.name} has {window_s:g} s; lose less")
        hum_hz, every_s = spec.powerline_hz if kind == "powerline" else 0, window_s if kind == "dropout_s" else 0.0
        found += [Corruption(kind, float(v), spec.seed if kind in DRAWN else 0, hum_hz, every_s) for v in chosen]
    return tuple(found)


def _list_fitting(dataset: Dataset) -> tuple[str, ...]:
    if not isinstance(dataset.pictures, RenderedPictures):
        return _OF_PICTURES
    return _OF_BIRTHS if dataset.pictures.windows.view.kind == "ctg" else _OF_CHANNELS


def _check_fits(kind: str, fitting: tuple[str, ...], dataset: Dataset, hum_hz: int, rate_hz: float) -> None:
    if kind not in fitting:
        rows = "pictures" if fitting is _OF_PICTURES else "cardiotocograms" if fitting is _OF_BIRTHS else "windows of a channel"
        raise SpecError(f"shift: {kind} does not fit {dataset.name}, whose rows are {rows}; choose from {', '.join(fitting)}")
    if kind == "powerline" and 2 * hum_hz >= rate_hz:
        raise SpecError(
            f"shift: powerline of {hum_hz} Hz cannot be in {dataset.name}, which has {rate_hz:g} samples a second; leave it out"
        )


@dataclass(frozen=True, eq=False)
class ShiftedRows:
    """Some rows of a dataset under a corruption. dataset: of these rows alone · pixels: theirs, row for row"""

    dataset: Dataset
    pixels: Pixels


def shift_rows(dataset: Dataset, pixels: Pixels, square: SquareResize, rows: Rows, corruption: Corruption) -> ShiftedRows:
    """(m,) rows of a dataset with N pixels under a corruption. square: how its pictures became those pixels"""
    part = dataset.select_rows(rows)
    identity = digest(["shifted", pixels.identity, digest_array(rows), corruption.key])
    if not isinstance(part.pictures, RenderedPictures):
        return ShiftedRows(part, CorruptedPixels(pixels, rows, part.ids, corruption, identity))
    shifted = replace(part, pictures=_corrupt_recordings(part.pictures, corruption))
    return ShiftedRows(shifted, RedrawnPixels(shifted, square, identity))


def _corrupt_recordings(pictures: RenderedPictures, corruption: Corruption) -> RenderedPictures:
    """The same windows of corrupted recordings, which are made when the first is read."""
    windows = pictures.windows
    used = np.unique(windows.table.recording[pictures.index])
    names = windows.recording_ids if windows.view.pools_grey_scale else tuple(windows.recording_ids[i] for i in used.tolist())
    lazy = LazyRecordings(_load_corrupted, windows, frozenset(names), corruption)
    return RenderedPictures(RenderedWindows(lazy, windows.view, windows.recording_ids, windows.table), pictures.index)


def _load_corrupted(windows: RenderedWindows, names: frozenset[str], corruption: Corruption) -> LoadedRecordings:
    """All recordings of the windows, those of these names corrupted: the others are not looked at."""
    view = windows.view
    return LoadedRecordings(
        [
            corrupt_recording(r, view.measured_channels, corruption, view.kind == "ctg") if r.id in names else r
            for r in windows.recordings
        ]
    )


class CorruptedPixels(UnstoredPixels):
    """Stored pictures, corrupted. rows: (N,) of `base` · ids: (N,) by which noise is drawn"""

    def __init__(self, base: Pixels, rows: Rows, ids: NDArray[np.str_], corruption: Corruption, identity: str) -> None:
        super().__init__((len(rows), *base.shape[1:]), identity)
        self.base, self.rows, self.ids, self.corruption = base, rows, ids, corruption

    def _iterate_squares(self, rows: Rows) -> Iterator[Squares]:
        for row, square in zip(rows.tolist(), self.base.read_each(self.rows[rows]), strict=True):
            yield corrupt_square(square, str(self.ids[row]), self.corruption)


class RedrawnPixels(UnstoredPixels):
    """Windows of corrupted recordings, drawn and made square as the study's own."""

    def __init__(self, dataset: Dataset, square: SquareResize, identity: str) -> None:
        super().__init__((len(dataset), 3, square.size, square.size), identity)
        self.pictures, self.square = dataset.pictures, square

    def _iterate_squares(self, rows: Rows) -> Iterator[Squares]:
        assert isinstance(self.pictures, RenderedPictures)
        for picture in self.pictures.images(rows):
            yield self.square.resize_image(picture)

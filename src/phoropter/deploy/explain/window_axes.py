"""What the columns and rows of a rendered window stand for: samples, seconds, and frequencies in Hz.

The inverse of signals/render.py and signals/rasterize.py. A column of a trace or a cardiotocogram plot holds the samples i with
i·S // n equal to it. A column of a spectrogram is a segment of samples and stands at the middle of it; between columns values are
interpolated, and samples before the first middle and after the last have the value there. Pictures may have been scaled to
another side since, which keeps the shares of their width.

    n  samples of the window    S  columns and rows of the map
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phoropter.signals.render import CtgPlot, Representation, Scalogram, Spectrogram, Trace

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class WindowAxes:
    """n: samples · rate_hz · column_s: (S,) seconds from the window's start at the middle of each column

    row_hz: (S,) frequency of each row, from the top; None where rows are no frequencies
    """

    n: int
    rate_hz: float
    column_s: Floats
    row_hz: Floats | None = None

    def spread_over_samples(self, columns: NDArray[np.floating]) -> Floats:
        """(S,) a value of each column → (n,) of each sample."""
        seconds = np.arange(self.n) / self.rate_hz
        if self.row_hz is None:  # column i·S // n, or where there are fewer samples than columns, that at the sample's place
            side = len(columns)
            at = np.arange(self.n) * side // self.n if self.n >= side else np.rint(np.linspace(0, side - 1, self.n)).astype(int)
            values: Floats = np.asarray(columns, np.float64)[at]
        else:
            values = np.interp(seconds, self.column_s, columns)
        return values


def find_window_axes(representation: Representation, n: int, rate_hz: float, side: int) -> WindowAxes:
    """The axes of a window of n samples, rendered by a representation and scaled to `side` pixels."""
    if isinstance(representation, (Trace, CtgPlot)):
        seconds = _column_middles(n, side) / rate_hz if n >= side else np.linspace(0, n - 1, side) / rate_hz
        return WindowAxes(n, rate_hz, seconds)
    if isinstance(representation, Scalogram):
        seconds = _column_middles(n, side) / rate_hz
        voices = np.geomspace(representation.low_hz, representation.high_hz, representation.voices)
        return WindowAxes(n, rate_hz, seconds, _resample(np.log(voices), side, exponent=True)[::-1])
    middles, frequencies = _spectrogram_steps(representation, n, rate_hz)
    return WindowAxes(n, rate_hz, _resample(middles, side), _resample(frequencies, side)[::-1])


def _column_middles(n: int, side: int) -> Floats:
    """(S,) the middle of the samples of each column, in samples."""
    return (np.arange(side) + 0.5) * n / side - 0.5


def _spectrogram_steps(representation: Spectrogram, n: int, rate_hz: float) -> tuple[Floats, Floats]:
    """The seconds at the middle of each time step, and the frequencies, ascending, as signals/render.py computes them."""
    if representation.style == "paper":
        length = 256
        starts = np.arange(0, max(0, n - length + 1), length - 32, dtype=np.float64)
        return (starts + length / 2) / rate_hz, np.arange(129) / 256 * rate_hz
    length = round(representation.segment_s * rate_hz)
    starts = np.rint(np.linspace(0, max(0, n - length), representation.size))
    return (starts + length / 2) / rate_hz, np.linspace(0, representation.max_hz, representation.size)


def _resample(steps: Floats, side: int, exponent: bool = False) -> Floats:
    """Values of evenly spread steps → of the middles of `side` pixels over the same width, straight on beyond both ends."""
    at = (np.arange(side) + 0.5) * len(steps) / side - 0.5
    inside = np.interp(at, np.arange(len(steps)), steps)
    if len(steps) > 1:
        inside = np.where(at < 0, steps[0] + at * (steps[1] - steps[0]), inside)
        last = len(steps) - 1
        inside = np.where(at > last, steps[-1] + (at - last) * (steps[-1] - steps[-2]), inside)
    return np.exp(inside) if exponent else inside

"""Parts of an Explanation: the map of one branch, and the window of a recording that was explained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phoropter.deploy.explain.window_axes import WindowAxes

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class BranchMap:
    """The map of one branch of a fusion.

    map: (S, S) float32, 0 to 1 · raw_max: what 1 stands for · weight: its share in the decision, 0 to 1
    method, layer: how it was made
    """

    map: FloatArray
    raw_max: float
    weight: float
    method: str
    layer: str


@dataclass(frozen=True, eq=False)
class ExplainedWindow:
    """The window of a recording that a picture was made of.

    recording: its id · start_s, stop_s: the window's seconds in the recording
    signals: channel → (n,) samples, NaN where missing · units: of each channel, in their order
    axes: what the columns and rows of the picture stand for
    """

    recording: str
    start_s: float
    stop_s: float
    signals: Mapping[str, FloatArray]
    units: tuple[str, ...]
    axes: WindowAxes

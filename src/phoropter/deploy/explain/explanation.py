"""Explanation: where a classifier found the evidence for one class in one picture, or in one window of a recording."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from phoropter.core.files import atomic_write
from phoropter.deploy.explain.explained_parts import BranchMap, ExplainedWindow

if TYPE_CHECKING:
    from PIL import Image

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where the evidence for a class lies.

    name:     id of the picture or window
    map:      (S, S) float32, 0 to 1, over the square picture that the bundle makes of its input; all 0 where there is no evidence
    raw_max:  what 1 stands for: the largest value before the map was divided by it, in units of the logit per channel sum;
              of a fusion, of the weighted sum of its branches' maps, each of which is divided by its own maximum before
    target:   index of the class that is explained, in `classes`
    probabilities: (C,) as `predict` gives them
    method:   that of the map, or of the branches' maps (class_maps.py)
    shown:    (S, S, 3) uint8, that square picture; what the network saw of it is `seen`
    seen:     (left, top, right, bottom) in its pixels: smaller where the network was shown crops
    branches: name of each branch → its map; of a single network the one entry
    window:   None for pictures
    """

    name: str
    map: FloatArray
    raw_max: float
    target: int
    classes: tuple[str, ...]
    probabilities: NDArray[np.float64]
    method: str
    shown: NDArray[np.uint8]
    seen: tuple[int, int, int, int]
    branches: Mapping[str, BranchMap] = field(default_factory=dict)
    window: ExplainedWindow | None = None

    @property
    def predicted(self) -> int:
        """Index of the likeliest class."""
        return int(self.probabilities.argmax())

    @property
    def time_s(self) -> NDArray[np.float64] | None:
        """(n,) seconds in the recording of each sample of the window; None for pictures."""
        if self.window is None:
            return None
        count = len(next(iter(self.window.signals.values())))
        return self.window.start_s + np.arange(count) * (self.window.stop_s - self.window.start_s) / count

    @cached_property
    def time_map(self) -> FloatArray | None:
        """(n,) the map along time, 0 to 1, at each sample of the window: the mean over the rows of the map; None for pictures."""
        if self.window is None:
            return None
        values = self.window.axes.spread_over_samples(self.map.mean(0))
        return (values / values.max()).astype(np.float32) if values.max() > 0 else values.astype(np.float32)

    def overlay(self) -> Image.Image:
        """The picture with the map over it, side S: colour where there is evidence, else the picture as it is."""
        from phoropter.deploy.explain.drawing import lay_map_over

        return lay_map_over(self.shown, self.map)

    def to_png(self, file: Path | str) -> Path:
        """Writes a figure: a picture beside its map and its branches', or a trace over seconds with the map along time."""
        return self._write_figure(Path(file), "png")

    def to_svg(self, file: Path | str) -> Path:
        """As `to_png`, as SVG."""
        return self._write_figure(Path(file), "svg")

    def to_npz(self, file: Path | str) -> Path:
        """Writes the numbers: map, raw_max, target, classes, probabilities, shown, seen, branches,
        weights, branch_maps; of recordings time_s, time_map, samples, channels, units, and of spectra column_s and row_hz."""
        with atomic_write(Path(file)) as aside, aside.open("wb") as out:
            np.savez_compressed(out, **cast(Any, self.collect_numbers()))
        return Path(file)

    def collect_numbers(self) -> dict[str, NDArray[np.generic]]:
        """What `to_npz` writes, by name."""
        names = list(self.branches)
        numbers: dict[str, NDArray[np.generic]] = {
            **{name: np.asarray(getattr(self, name)) for name in ("map", "raw_max", "target", "probabilities", "shown", "seen")},
            "classes": np.array(self.classes),
            "branches": np.array(names),
            "weights": np.array([self.branches[n].weight for n in names]),
            "branch_maps": np.stack([self.branches[n].map for n in names]) if names else np.empty((0, *self.map.shape)),
        }
        if self.window is not None and self.time_s is not None and self.time_map is not None:
            axes = self.window.axes
            numbers |= {"time_s": self.time_s, "time_map": self.time_map, "units": np.array(self.window.units)}
            numbers |= {"channels": np.array(list(self.window.signals)), "samples": np.stack(list(self.window.signals.values()))}
            if axes.row_hz is not None:
                numbers |= {"column_s": self.window.start_s + axes.column_s, "row_hz": axes.row_hz}
        return numbers

    def _write_figure(self, file: Path, kind: str) -> Path:
        from phoropter.deploy.explain.drawing import draw_explanation

        with atomic_write(file) as aside:
            draw_explanation(self, aside, kind)
        return file


def scale_to_one(values: NDArray[np.floating]) -> tuple[FloatArray, float]:
    """Values not below 0 → the same divided by their maximum, and the maximum; zeros stay zeros."""
    highest = float(values.max())
    return (values / highest if highest > 0 else np.zeros_like(values)).astype(np.float32), highest

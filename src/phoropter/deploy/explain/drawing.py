"""Figures of an Explanation: the map over the picture, and of a recording along the trace, in seconds and the units it has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from phoropter.deploy.explain.explained_parts import BranchMap, ExplainedWindow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEAT_MAP = "YlOrRd"  # from its middle on: seen on white paper and on black, and ordered by lightness for printing in grey
DPI = 130


class DrawnExplanation(Protocol):
    """What of an Explanation is drawn (explanation.py, which draws itself by this module)."""

    @property
    def name(self) -> str: ...
    @property
    def map(self) -> NDArray[np.float32]: ...
    @property
    def target(self) -> int: ...
    @property
    def predicted(self) -> int: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def probabilities(self) -> NDArray[np.float64]: ...
    @property
    def method(self) -> str: ...
    @property
    def shown(self) -> NDArray[np.uint8]: ...
    @property
    def branches(self) -> Mapping[str, BranchMap]: ...
    @property
    def window(self) -> ExplainedWindow | None: ...
    @property
    def time_s(self) -> NDArray[np.float64] | None: ...
    @property
    def time_map(self) -> NDArray[np.float32] | None: ...
    def overlay(self) -> Image.Image: ...


def lay_map_over(shown: NDArray[np.uint8], heat: NDArray[np.float32]) -> Image.Image:
    """(S, S, 3) uint8 and (S, S) from 0 to 1 → an RGB image: the picture faded, with colour as opaque as the map is high."""
    from matplotlib import colormaps

    opacity = 0.65 * np.clip(heat, 0, 1)[..., None]
    colours = np.asarray(colormaps[HEAT_MAP](0.35 + 0.5 * np.clip(heat, 0, 1)))[..., :3] * 255
    faded = 0.35 * shown + 0.65 * shown.astype(np.float64).mean(2, keepdims=True)  # so that the map alone has strong colours
    return Image.fromarray(np.rint((1 - opacity) * faded + opacity * colours).astype(np.uint8))


def draw_explanation(explanation: DrawnExplanation, file: Path | IO[bytes], kind: str, dpi: int = DPI) -> None:
    """Writes the figure as "png", "jpg" or "svg"."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context({"font.size": 8, "axes.titlesize": 8, "svg.fonttype": "path", "svg.hashsalt": "phoropter"}):
        figure = Figure(layout="constrained")
        FigureCanvasAgg(figure)
        if explanation.window is None:
            _draw_picture(figure, explanation)
        else:
            draw_window(figure, explanation, explanation.window)
        figure.suptitle(title_figure(explanation), fontsize=9)
        figure.savefig(file, format=kind, dpi=dpi, metadata={"Date": None} if kind == "svg" else None)


def title_figure(explanation: DrawnExplanation) -> str:
    """`7.png: evidence for dog (0.91); the answer is cat (0.93)`."""
    target, answer = explanation.target, explanation.predicted
    name = explanation.name.rsplit("/", 1)[-1]
    text = f"{name}: evidence for {explanation.classes[target]} ({explanation.probabilities[target]:.2f})"
    if target != answer:
        text += f"; the answer is {explanation.classes[answer]} ({explanation.probabilities[answer]:.2f})"
    return text if explanation.map.any() else f"{text}; no evidence was found"


def _draw_picture(figure: Figure, explanation: DrawnExplanation) -> None:
    """The picture, the map over it, and the maps of the branches where there are several."""
    several = len(explanation.branches) > 1
    panels: list[tuple[str, Any]] = [("as shown to the network", explanation.shown)]
    panels.append(("all branches by their shares" if several else explanation.method, explanation.overlay()))
    for name, branch in explanation.branches.items() if several else ():
        panels.append((f"{name}\n{branch.method}, share {branch.weight:.0%}", lay_map_over(explanation.shown, branch.map)))
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure.set_size_inches(2.3 * columns, 2.7 * rows)
    for axes in figure.subplots(rows, columns, squeeze=False).ravel():
        axes.set_axis_off()
    for axes, (title, picture) in zip(figure.axes, panels, strict=False):
        axes.imshow(np.asarray(picture), interpolation="nearest")
        axes.set_title(title)


def draw_window(figure: Figure, explanation: DrawnExplanation, window: ExplainedWindow) -> None:
    """Draws each channel over the seconds with the map along time behind it; below, the picture with the map, in s and Hz."""
    channels = [name for name in window.signals if name != "baseline"]
    branches = list(explanation.branches.items()) if len(explanation.branches) > 1 else []
    rows = len(channels) + 1 + len(branches)
    figure.set_size_inches(7, 1.5 * len(channels) + 2.2 * (1 + len(branches)))
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False, height_ratios=[1.0] * len(channels) + [1.6] * (1 + len(branches)))
    for at, (place, name) in enumerate(zip(axes[:, 0], channels, strict=False)):
        _draw_trace(place, explanation, window, name)
        place.set_title("" if at else "evidence along time: the darker, the more")
    pictures = [(explanation.method, explanation.map)]
    pictures += [(f"{name}, {b.method}, share {b.weight:.0%}", b.map) for name, b in branches]
    for place, (title, heat) in zip(axes[len(channels) :, 0], pictures, strict=True):
        _draw_rendered(place, explanation, window, heat)
        place.set_title(title)
    axes[-1, 0].set_xlabel("time in the recording (s)")


def _draw_trace(axes: Axes, explanation: DrawnExplanation, window: ExplainedWindow, channel: str) -> None:
    seconds, along = explanation.time_s, explanation.time_map
    assert seconds is not None and along is not None
    axes.imshow(
        along[None], aspect="auto", extent=(window.start_s, window.stop_s, 0, 1), transform=axes.get_xaxis_transform(),
        cmap="Oranges", vmin=0, vmax=1.6, interpolation="nearest", zorder=0,
    )  # fmt: skip
    axes.plot(seconds, window.signals[channel], color="#1b2733", linewidth=0.8)
    if channel == "FHR" and "baseline" in window.signals:
        axes.plot(seconds, window.signals["baseline"], color="#1b2733", linewidth=0.8, linestyle=":")
    unit = window.units[list(window.signals).index(channel)]
    axes.set_ylabel(f"{channel} ({unit})" if unit else channel)
    axes.set_xlim(window.start_s, window.stop_s)
    _fit_heights(axes, [np.asarray(line.get_ydata()) for line in axes.lines])


def _fit_heights(axes: Axes, drawn: list[NDArray[np.floating]]) -> None:
    """The lowest to the highest value drawn, and a little more: the coloured ground would count as 0 to 1."""
    values = np.concatenate(drawn)
    values = values[np.isfinite(values)]
    if len(values):
        margin = 0.06 * float(np.ptp(values)) or 0.5
        axes.set_ylim(float(values.min()) - margin, float(values.max()) + margin)


def _draw_rendered(axes: Axes, explanation: DrawnExplanation, window: ExplainedWindow, heat: NDArray[np.float32]) -> None:
    """The rendered picture with the map over it; columns at their seconds, rows at their frequencies where they have some."""
    picture = np.asarray(lay_map_over(explanation.shown, heat))
    column_s, row_hz = window.start_s + window.axes.column_s, window.axes.row_hz
    if row_hz is None:
        extent = (window.start_s, window.stop_s, 0.0, 1.0)
        axes.imshow(picture, aspect="auto", extent=extent, interpolation="nearest")
        axes.set_yticks([])
        axes.set_ylabel("picture")
        return
    edges = [_cell_edges(np.asarray(values)) for values in (column_s, row_hz)]
    axes.pcolorfast(edges[0], edges[1], picture)
    if row_hz[-1] > 0 and not np.allclose(np.diff(row_hz), row_hz[1] - row_hz[0]):
        axes.set_yscale("log")
    axes.set_ylabel("frequency (Hz)")
    axes.set_xlim(window.start_s, window.stop_s)
    axes.set_ylim(max(min(edges[1]), 0), max(edges[1]))


def _cell_edges(middles: NDArray[np.float64]) -> NDArray[np.float64]:
    """(S,) middles → (S + 1,) edges half-way between them."""
    between = (middles[1:] + middles[:-1]) / 2
    return np.concatenate([[2 * middles[0] - between[0]], between, [2 * middles[-1] - between[-1]]])

"""A contact sheet of windows of recordings: each image under the signal it was rendered from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError, join_words
from phoropter.core.files import atomic_write
from phoropter.data.dataset import Dataset
from phoropter.data.recordings.dataset import RenderedPictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHEET_COLUMNS, SHEET_ROWS = 4, 3
FIGURE_EXTENSIONS = (".png", ".svg", ".pdf")


def check_preview_file(file: Path) -> None:
    """Raises DataError for a file that does not end in .png, .svg or .pdf."""
    if file.suffix.lower() not in FIGURE_EXTENSIONS:
        raise DataError(f"{file}: the preview should end in {join_words(FIGURE_EXTENSIONS)}")


def write_contact_sheet(dataset: Dataset, file: Path) -> Path:
    """Writes a sheet of twelve windows, the classes in turn; the same dataset always gives the same windows.

    Raises DataError for a dataset of images, and for a file that does not end in .png, .svg or .pdf.
    """
    if not isinstance(dataset.pictures, RenderedPictures):
        raise DataError(f"{dataset.name} is a dataset of images; a preview shows windows of recordings")
    check_preview_file(file)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    chosen = dataset.order_by_turns("preview")[: SHEET_COLUMNS * SHEET_ROWS]
    rows: list[int] = chosen[np.argsort(dataset.label_sets[chosen], kind="stable")].tolist()
    units = {stage.channel: stage.unit for stage in dataset.pictures.trace_stages(rows[0])}
    panels = list(dict.fromkeys(units.values()))  # channels of one unit share a panel
    heights = [*[0.9] * len(panels), 2.5]
    blocks = -(-len(rows) // SHEET_COLUMNS)
    figure = Figure(figsize=(2.6 * SHEET_COLUMNS, (sum(heights) + 0.6) * blocks), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(heights) * blocks, SHEET_COLUMNS, squeeze=False, height_ratios=heights * blocks)
    for axis in axes.ravel():
        axis.set_axis_off()
    for place, row in enumerate(rows):
        top, column = len(heights) * (place // SHEET_COLUMNS), place % SHEET_COLUMNS
        axes[top][column].set_title(f"{dataset.ids[row]}\n{dataset.describe_label(row) or 'no label'}", fontsize=7, pad=9)
        traces, span = dataset.pictures.source_signals(row), find_span(dataset, row)
        for number, unit in enumerate(panels):
            shown = {channel: values for channel, values in traces.items() if units[channel] == unit}
            draw_traces(axes[top + number][column], shown, span, unit, names_time=number == len(panels) - 1)
        axes[top + len(panels)][column].imshow(dataset.read(row), interpolation="nearest")
    with atomic_write(file) as aside:
        figure.savefig(aside, format=file.suffix[1:].lower(), dpi=110)
    return file


def find_span(dataset: Dataset, row: int) -> tuple[float, float]:
    """Start and end of a row in seconds of its recording; of a recording shown whole, from 0 to its length."""
    assert isinstance(dataset.pictures, RenderedPictures)
    if dataset.spans is not None:
        return float(dataset.spans[row][0]), float(dataset.spans[row][1])
    first = next(iter(dataset.pictures.source_signals(row).values()))
    return 0.0, len(first) / dataset.pictures.rate_hz


def draw_traces(
    axis: Axes, traces: Mapping[str, NDArray[np.floating]], span: tuple[float, float], unit: str, *, names_time: bool
) -> None:
    """Channels of one unit over the time in their recording, with axes; their names stand above the axis, in their colours.

    span: in seconds, shown in minutes from three on · names_time: the axis of time has numbers, too
    """
    per, word = (60.0, "min") if span[1] - span[0] >= 180 else (1.0, "s")
    axis.set_axis_on()
    for place, (channel, values) in enumerate(traces.items()):
        (line,) = axis.plot(np.linspace(span[0] / per, span[1] / per, len(values)), values, linewidth=0.5)
        axis.annotate(
            channel, (0.01 + 0.25 * place, 1.0), xycoords="axes fraction", va="bottom", fontsize=5.5, color=line.get_color()
        )
    axis.set_xlim(span[0] / per, span[1] / per)
    axis.locator_params(nbins=3)
    axis.tick_params(labelsize=5.5, length=2, pad=1, labelbottom=names_time)
    axis.annotate(
        unit, (0, 1.0), (-3, 0), xycoords="axes fraction", textcoords="offset points", va="bottom", ha="right", fontsize=5.5
    )
    if names_time:
        axis.set_xlabel(word, fontsize=5.5, labelpad=1)
    axis.spines[["top", "right"]].set_visible(False)

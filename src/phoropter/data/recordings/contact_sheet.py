"""A contact sheet of windows of recordings: each image under the signal it was rendered from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phoropter.core.errors import DataError, join_words
from phoropter.core.files import atomic_write
from phoropter.data.dataset import Dataset
from phoropter.data.recordings.dataset import RenderedPictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHEET_COLUMNS, SHEET_ROWS = 4, 3
FIGURE_EXTENSIONS = (".png", ".svg", ".pdf")


def write_contact_sheet(dataset: Dataset, file: Path) -> Path:
    """Writes a sheet of twelve windows, the classes in turn; the same dataset always gives the same windows.

    Raises DataError for a dataset of images, and for a file that does not end in .png, .svg or .pdf.
    """
    if not isinstance(dataset.pictures, RenderedPictures):
        raise DataError(f"{dataset.name} is a dataset of images; a preview shows windows of recordings")
    if file.suffix.lower() not in FIGURE_EXTENSIONS:
        raise DataError(f"{file}: the preview should end in {join_words(FIGURE_EXTENSIONS)}")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    chosen = dataset.order_by_turns("preview")[: SHEET_COLUMNS * SHEET_ROWS]
    rows: list[int] = chosen[np.argsort(dataset.label_sets[chosen], kind="stable")].tolist()
    figure = Figure(figsize=(2.6 * SHEET_COLUMNS, 3.6 * -(-len(rows) // SHEET_COLUMNS)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        2 * -(-len(rows) // SHEET_COLUMNS), SHEET_COLUMNS, squeeze=False, height_ratios=[1, 2.4] * -(-len(rows) // SHEET_COLUMNS)
    )
    for axis in axes.ravel():
        axis.set_axis_off()
    for place, row in enumerate(rows):
        top, column = 2 * (place // SHEET_COLUMNS), place % SHEET_COLUMNS
        _draw_trace(axes[top][column], dataset, dataset.pictures, row)
        axes[top + 1][column].imshow(dataset.read(row), interpolation="nearest")
    with atomic_write(file) as aside:
        figure.savefig(aside, format=file.suffix[1:].lower(), dpi=110)
    return file


def _draw_trace(axis: Axes, dataset: Dataset, pictures: RenderedPictures, row: int) -> None:
    axis.set_title(f"{dataset.ids[row]}\n{dataset.describe_label(row) or 'no label'}", fontsize=7)
    traces: dict[str, Any] = pictures.source_signals(row)
    for channel, values in traces.items():
        axis.plot(np.linspace(0, 1, len(values)), values, linewidth=0.5, label=channel)
    if len(traces) > 1:
        axis.legend(fontsize=5, loc="lower left", frameon=False)
    axis.set_xlim(0, 1)

"""A sheet of what a study does to its data: some rows as recorded or in their files, and at every step to a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from phoropter.core.files import atomic_write
from phoropter.data.recordings.contact_sheet import check_preview_file, draw_traces
from phoropter.study.spec import StudySpec
from phoropter.study.treatments.drawn_treatments import draw_treatments


def write_treatment_sheet(parts: Sequence[StudySpec], file: Path) -> Path:
    """Writes the sheet of the first part and others with the same source: a line for each step, the same rows in each.

    Raises DataError for a file that does not end in .png, .svg or .pdf, and what `draw_treatments` raises.
    """
    check_preview_file(file)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = draw_treatments(parts)
    heights = [1.1 if step.traces else 2.4 for step in drawn.steps]
    figure = Figure(figsize=(2.2 * len(drawn.rows), sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(drawn.steps), len(drawn.rows), squeeze=False, height_ratios=heights)
    last_trace = max((number for number, step in enumerate(drawn.steps) if step.traces), default=-1)
    for number, (line, step) in enumerate(zip(axes, drawn.steps, strict=True)):
        for axis in line:
            axis.set_axis_off()
        for axis, samples, row in zip(line, step.traces, drawn.rows, strict=False):
            draw_traces(axis, {"": samples}, row.span or (0.0, 1.0), "", names_time=number == last_trace)
        for axis, picture in zip(line, step.pictures, strict=False):
            axis.imshow(picture, interpolation="nearest")
        unit = f", {step.unit}" if step.unit else ""
        line[0].set_title(f"{step.channel} {step.title}".strip() + unit, loc="left", fontsize=8)
    with atomic_write(file) as aside:
        figure.savefig(aside, format=file.suffix[1:].lower(), dpi=110)
    return file

"""The flow of exclusions as boxes: what was found, to the right what was left out and why, at the end the rows of each class."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from phoropter.report.figures.comparison import FULL_WIDTH, PANEL_WIDTH
from phoropter.report.render.svg import INK, MUTED, RenderedFigure, draw_wide_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINE, _PADDING, _GAP = 0.165, 0.1, 0.34  # inches: a line of text, around it in a box, between two boxes
_MARGIN = 3 / 72  # inches that the layout leaves around the axes
_CHARACTER = 0.066  # inches that a character takes at most, on average


@dataclass(frozen=True)
class FlowBox:
    """A box of the main column. text: its lines · left_out: the lines of the box to its right, below it; none where all go on"""

    text: tuple[str, ...]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Columns:
    """Where the boxes stand, in inches: the width of the figure, of the main column, and where the right one begins."""

    width: float
    main: float
    right: float

    def wrap_lines(self, lines: Sequence[str], width: float) -> list[str]:
        room = int((width - 2 * _PADDING) / _CHARACTER)
        return [part for line in lines for part in textwrap.wrap(line, room, subsequent_indent=" ")]

    def place_boxes(self, boxes: Sequence[FlowBox]) -> tuple[list[tuple[float, list[str], list[str]]], float]:
        """((top of a box, its lines, those of the box to its right) in inches from above, the height of all)."""
        placed, at = [], 0.05
        for box in boxes:
            text, left_out = self.wrap_lines(box.text, self.main), self.wrap_lines(box.left_out, self.width - self.right)
            placed.append((at, text, left_out))
            at += _measure_height(text) + (_measure_height(left_out) + _GAP if left_out else _GAP)
        return placed, at - _GAP + 0.05


_WIDE, _NARROW = _Columns(FULL_WIDTH, 3.6, 4.4), _Columns(PANEL_WIDTH, 1.62, 1.86)


def _measure_height(lines: Sequence[str]) -> float:
    return len(lines) * _LINE + 2 * _PADDING


def draw_exclusion_flow(boxes: Sequence[FlowBox], caption: str, alt: str) -> RenderedFigure:
    """The boxes from above, joined by arrows; of those that are left out one points to the right. alt: for screen readers"""
    wide, narrow = ((columns.width, columns.place_boxes(boxes)[1]) for columns in (_WIDE, _NARROW))
    small = (narrow, lambda f: _paint_boxes(f, boxes, _NARROW))
    return draw_wide_figure("exclusions", caption, alt, wide, lambda f: _paint_boxes(f, boxes, _WIDE), small)


def _paint_boxes(figure: Figure, boxes: Sequence[FlowBox], columns: _Columns) -> None:
    placed, height = columns.place_boxes(boxes)
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_xlim(_MARGIN, columns.width - _MARGIN)
    axes.set_ylim(height - _MARGIN, _MARGIN)
    middle = 0.05 + columns.main / 2
    for place, (top, text, left_out) in enumerate(placed):
        bottom = top + _measure_height(text)
        _paint_box(axes, 0.05, top, columns.main, text, INK)
        if place + 1 < len(placed):
            _paint_arrow(axes, (middle, bottom), (middle, placed[place + 1][0]))
        if left_out:
            beside = bottom + _GAP / 2
            _paint_box(axes, columns.right, beside, columns.width - columns.right - 0.05, left_out, MUTED)
            level = beside + _measure_height(left_out) / 2
            _paint_arrow(axes, (middle, level), (columns.right, level))


def _paint_box(axes: Axes, left: float, top: float, width: float, lines: Sequence[str], color: str) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((left, top), width, _measure_height(lines), fill=False, edgecolor=MUTED, linewidth=0.8))
    for number, line in enumerate(lines):
        indent = _CHARACTER * (len(line) - len(line.lstrip()))
        at = top + _PADDING + _LINE * (number + 0.5)
        axes.text(left + _PADDING + indent, at, line.strip(), color=color, va="center", ha="left")


def _paint_arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    style = {"arrowstyle": "-|>", "color": MUTED, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 8}
    axes.annotate("", end, start, arrowprops=style)

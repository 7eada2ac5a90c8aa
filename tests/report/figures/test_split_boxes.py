"""Box plots over splits: quartiles as NumPy computes them, whiskers and outliers by Tukey's rule, none of few splits."""

from __future__ import annotations

import re

import numpy as np
import pytest
from matplotlib.figure import Figure

from phoropter.report.figures import split_boxes
from phoropter.report.figures.comparison import LeaderboardEntry
from phoropter.report.figures.split_boxes import split_box_figure
from phoropter.report.render.metric_format import MetricFormat

ACCURACY = MetricFormat("Accuracy", True)
VALUES = np.array([0.70, 0.71, 0.72, 0.73, 0.74, 0.75, 0.95])


def entry(name: str, values: np.ndarray) -> LeaderboardEntry:
    return LeaderboardEntry(name, 0.7, 0.6, 0.8, values)


def test_a_box_has_the_quartiles_and_its_outliers(monkeypatch: pytest.MonkeyPatch) -> None:
    painted: list[Figure] = []

    def keep_figure(name: str, caption: str, alt: str, rows: int, paint: object, legend: int = 0) -> str:
        painted.append(Figure())
        paint(painted[-1], False)  # type: ignore[operator]
        return alt

    monkeypatch.setattr(split_boxes, "draw_row_figure", keep_figure)
    alt = str(split_box_figure([entry("net", VALUES)], ACCURACY))
    assert re.findall(r"[0-9.]+ %", alt) == [f"{np.percentile(VALUES, q) * 100:.1f} %" for q in (50, 25, 75)]
    (axes,) = painted[0].axes
    drawn = [np.asarray(line.get_xdata(), float) for line in axes.get_lines()]
    ends = sorted(float(x) for line in drawn[:2] for x in line)
    assert ends[0] == pytest.approx(70.0) and ends[-1] == pytest.approx(75.0), "whiskers end at the last value within 1.5 lengths"
    assert any(line.size == 1 and line[0] == pytest.approx(95.0) for line in drawn), "the far value is drawn by itself"


def test_few_splits_have_no_box() -> None:
    assert split_box_figure([entry("net", VALUES), entry("other", VALUES[:4])], ACCURACY) is None
    assert split_box_figure([entry("net", np.zeros(0))], ACCURACY) is None
    drawn = split_box_figure([entry("a <b>", VALUES), entry("other", VALUES)], ACCURACY)
    assert drawn is not None and "no interval" in drawn.caption

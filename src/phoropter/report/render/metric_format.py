"""Formats values of metrics and names of candidates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phoropter.report.render.svg import SERIES_COLORS
from phoropter.report.render.table import Column, ColumnKind, one_line
from phoropter.results.metrics.metric_record import MetricRecord


@dataclass(frozen=True)
class MetricFormat:
    """How the values of one metric are shown. percent: × 100."""

    title: str
    percent: bool = False
    higher_is_better: bool = True
    is_proper_name: bool = False

    @classmethod
    def from_metric(cls, metric: MetricRecord) -> MetricFormat:
        return cls(metric.title, metric.percent, metric.higher_is_better, metric.is_proper_name)

    @property
    def inline_title(self) -> str:
        """The title within a sentence: in lower case unless it is a proper name."""
        return self.title if self.is_proper_name else lower_first_letter(self.title)

    @property
    def display_factor(self) -> float:
        return 100.0 if self.percent else 1.0

    @property
    def axis_label(self) -> str:
        return f"{self.title}, %" if self.percent else self.title

    def format_value(self, value: float) -> str:
        if not np.isfinite(value):
            return "–"
        return f"{value * 100:.1f} %" if self.percent else f"{value:.3f}"

    def format_signed(self, value: float) -> str:
        """A difference with its sign and without its unit, for a bound: `−1.8`; what rounds to 0 has no sign."""
        return f"{value * self.display_factor:z.{1 if self.percent else 3}f}".replace("-", "\u2212")

    def describe_gain(self, value: float) -> str:
        """A difference with its sign, unit and metric: `1.8 points of accuracy`, `0.052 in log loss`."""
        number = self.format_signed(value)
        unit = ("point of" if number == "1.0" else "points of") if self.percent else "in"
        return f"{number} {unit} {self.inline_title}"

    def format_difference(self, value: float) -> str:
        """A difference without its sign: `1.8 points`."""
        number = f"{abs(value) * self.display_factor:.{1 if self.percent else 3}f}"
        return f"{number} point{'' if number == '1.0' else 's'}" if self.percent else number


def lower_first_letter(text: str) -> str:
    return text[:1].lower() + text[1:]


def shorten_name(name: str, limit: int = 34) -> str:
    """A name cut in the middle to at most `limit` characters, to fit beside an axis."""
    name = one_line(name)
    return name if len(name) <= limit else name[: limit - 12] + "…" + name[-11:]


def series_color(index: int) -> str:
    return SERIES_COLORS[index % len(SERIES_COLORS)]


def metric_column(metric: MetricRecord) -> Column:
    """Percentages with one decimal, other metrics with three."""
    explain = "higher is better" if metric.higher_is_better else "lower is better"
    return Column(metric.title, "percent" if metric.percent else "number", explain, 1 if metric.percent else 3)


def difference_kind(metric: MetricRecord) -> tuple[ColumnKind, int]:
    """The kind and digits of a column of differences: points with one decimal, of other metrics three."""
    return ("points", 1) if metric.percent else ("signed", 3)

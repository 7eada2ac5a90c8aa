"""How a metric's values and a candidate's name are printed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from phoropter.report.render.svg import SERIES_COLORS
from phoropter.report.render.table import one_line
from phoropter.results.metrics.registry import Metric

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class MetricFormat:
    """How values of one metric are written on an axis. percent: × 100 · better: which way is better, in a word."""

    title: str
    percent: bool = False
    higher_is_better: bool = True

    @classmethod
    def from_metric(cls, metric: Metric) -> MetricFormat:
        return cls(metric.title, metric.percent, metric.higher_is_better)

    @property
    def inline_title(self) -> str:
        """Within a sentence: lower case unless it is a name."""
        first = self.title.split()[0]
        return self.title if first[:2].isupper() or first in ("Brier", "Cohen's", "Matthews") else lower_first_letter(self.title)

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

    def format_difference(self, value: float) -> str:
        """A difference without its sign: `1.8 points`."""
        number = f"{abs(value) * self.display_factor:.{1 if self.percent else 3}f}"
        return f"{number} point{'' if number == '1.0' else 's'}" if self.percent else number


def lower_first_letter(text: str) -> str:
    return text[:1].lower() + text[1:]


def shorten_name(name: str, limit: int = 34) -> str:
    """A name that fits beside an axis."""
    name = one_line(name)
    return name if len(name) <= limit else name[: limit - 12] + "…" + name[-11:]


def series_color(index: int) -> str:
    return SERIES_COLORS[index % len(SERIES_COLORS)]

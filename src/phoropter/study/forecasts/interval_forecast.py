"""How wide a candidate's interval will be, before anything is computed: from the rows, units and classes that are tested.

What data will show is guessed: how good the candidate is, and how alike the answers to the rows of one unit are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from phoropter.results.intervals.interval_rules import MIN_UNITS, student_quantile
from phoropter.results.metrics.metric_record import MetricRecord
from phoropter.results.metrics.registry import METRICS
from phoropter.study.forecasts.power_forecast import AREA, INTRACLASS, PlannedSize, area_variance, count_tested_rows, measure_plan
from phoropter.study.plan import Plan

RIGHT = 0.8  # share of rows that a candidate gets right
_FACTORS = (2, 4)


def forecast_interval(planned: Plan) -> list[str]:
    """A sentence for `phoropter plan`; none for metrics whose variance has no guess, and where units are too few."""
    metric = METRICS.get(planned.study.metric_names[0])
    size = measure_plan(planned, metric) if metric is not None else None
    if metric is None or size is None or size.n_units < MIN_UNITS:
        return []
    class_rows, scale = count_tested_rows(planned), 100.0 if metric.percent else 1.0
    widths = [expected_half_width(metric, class_rows, size, factor) * scale for factor in (1, *_FACTORS)]
    shown = [f"± {width:.1f}" if metric.percent else f"± {width:.3f}" for width in widths]
    level = f"{RIGHT * 100:.0f} %" if metric.percent else f"{AREA:g}"
    alike = f" and rows of one {size.unit.singular} correlate by {INTRACLASS:g}" if size.n_units < size.n_rows else ""
    unit, points = size.unit, " points" if metric.percent else ""
    more = ", ".join(
        f"with {unit.count(size.n_units * factor)} {width}" for factor, width in zip(_FACTORS, shown[1:], strict=True)
    )
    return [
        f"the 95 % interval of a candidate will be about {shown[0]}{points} over {unit.count(size.n_units)}, if its "
        f"{metric.title} is {level}{alike}; {more}"
    ]


def expected_half_width(metric: MetricRecord, class_rows: Sequence[int], size: PlannedSize, factor: int = 1) -> float:
    """Of a 95 % interval over `factor` times as many units. class_rows: rows of each class that one round tests."""
    rows = [n * factor for n in class_rows]
    if metric.mean_over_rows:
        variance = RIGHT * (1 - RIGHT) / sum(rows)
    elif metric.percent:  # classes count alike
        variance = float(np.mean([RIGHT * (1 - RIGHT) / n for n in rows])) / len(rows)
    else:
        variance = area_variance(*rows)
    return student_quantile(0.95, size.n_units * factor - 1) * float(np.sqrt(variance * size.design_effect))

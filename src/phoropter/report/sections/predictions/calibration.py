"""Discrimination and calibration: ROC curves, the reliability diagram, and temperature scaling (Guo et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from phoropter.report.figures.comparison import Curve
from phoropter.report.figures.predictions import reliability_diagram, roc_curve_figure
from phoropter.report.render.metric_format import metric_column
from phoropter.report.render.section import ContentBlock, Section
from phoropter.report.render.svg import RenderedFigure
from phoropter.report.render.table import CellValue, Column, MeanStd, Table, TableRow
from phoropter.report.sections.candidate_values import PROBABILITY_METRICS, mean_std_over_runs
from phoropter.report.summary.collect import (
    FALSE_POSITIVE_RATES,
    MAX_RANKED_CLASSES,
    compute_roc_curves,
    fit_temperature_scaling,
)
from phoropter.report.summary.model import StudySummary, TemperatureScaling
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.metrics.registry import METRICS

MAX_CURVE_CANDIDATES = 4  # candidates whose ROC and reliability curves are drawn


def calibration_section(inputs: ReportInput) -> Section:
    summary = inputs.summary
    candidates = summary.candidates[:MAX_CURVE_CANDIDATES]
    roc = _roc_figure(inputs)
    blocks: list[ContentBlock] = [roc] if roc else []
    bins = [(c.name, c.confidence_bins[c.confidence_bins[:, 0] > 0]) for c in candidates]
    curves = [Curve(name, b[:, 1] / b[:, 0], b[:, 2] / b[:, 0], np.zeros(len(b))) for name, b in bins]
    blocks.append(reliability_diagram(curves, [b[:, 0] for _, b in bins]))
    scalings = {c.name: scaling for c in candidates if (scaling := fit_temperature_scaling(inputs.store, c))}
    blocks.append(calibration_table(summary, scalings))
    return Section("calibration", "Discrimination and calibration", (), tuple(blocks))


def _roc_figure(inputs: ReportInput) -> RenderedFigure | None:
    """None where there are many classes, or no run in which every class occurs."""
    summary = inputs.summary
    if len(summary.classes) > MAX_RANKED_CLASSES:
        return None
    curves, areas = [], []
    for candidate in summary.candidates[:MAX_CURVE_CANDIDATES]:
        values, area = compute_roc_curves(inputs.store, candidate)
        if len(values):
            band = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(len(FALSE_POSITIVE_RATES))
            curves.append(Curve(candidate.name, FALSE_POSITIVE_RATES, values.mean(axis=0), band))
            areas.append(area)
    return roc_curve_figure(curves, areas, len(summary.classes) == 2, summary.classes[-1]) if curves else None


def calibration_table(summary: StudySummary, scalings: Mapping[str, TemperatureScaling]) -> Table:
    """Metrics of the predicted probabilities. scalings: by candidate, for those with inner validation rows."""
    names = [m for m in summary.metrics if m in PROBABILITY_METRICS]
    columns = [Column("Candidate"), *(metric_column(METRICS[m]) for m in names)]
    rows: list[list[CellValue]] = [[c.name, *(mean_std_over_runs(c, m) for m in names)] for c in summary.candidates]
    note = "Calibration error (ECE): mean absolute difference between confidence and accuracy over bins of confidence."
    if scalings:
        columns += [Column("Temperature", "number", "mean over runs", 2), Column("ECE, scaled", "number", "calibration error", 3)]
        for row in rows:
            scaling = scalings.get(str(row[0]))
            row += [MeanStd(scaling.temperature, scaling.temperature_std), scaling.calibration_error] if scaling else [None, None]
        note += " Scaled: logits divided by a temperature that was fitted on the inner validation rows of each run."
    return Table(
        "calibration",
        "Discrimination and calibration of each candidate",
        tuple(columns),
        tuple(TableRow(tuple(r)) for r in rows),
        note,
    )

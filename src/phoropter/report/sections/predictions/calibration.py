"""Discrimination and calibration: ROC curves, reliability diagrams, and temperature scaling (Guo et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from phoropter.report.figures.comparison import Curve
from phoropter.report.figures.predictions import reliability_diagram, roc_curve_figure
from phoropter.report.render.metric_format import metric_column
from phoropter.report.render.section import ContentBlock, Section
from phoropter.report.render.svg import RenderedFigure
from phoropter.report.render.table import CellValue, Column, IntervalBounds, MeanStd, Table, TableRow
from phoropter.report.sections.candidate_values import (
    PROBABILITY_METRICS,
    describe_estimands,
    mean_std_over_runs,
    within_split_column,
)
from phoropter.report.summary.collect import MAX_RANKED_CLASSES
from phoropter.report.summary.curves import FALSE_POSITIVE_RATES, compute_roc_curves, fit_temperature_scaling
from phoropter.report.summary.model import CandidateResults, StudySummary, TemperatureScaling
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.metrics.registry import METRICS
from phoropter.results.metrics.sufficient_sums import N_BINS
from phoropter.results.stats.calibration_error import CalibrationEstimate

MAX_CURVE_CANDIDATES = 4  # candidates whose ROC and reliability curves are drawn
_INTERVAL = "95\u00a0%\u00a0interval"


def calibration_section(inputs: ReportInput) -> Section:
    summary = inputs.summary
    candidates = summary.candidates[:MAX_CURVE_CANDIDATES]
    roc = _roc_figure(inputs)
    blocks: list[ContentBlock] = [roc] if roc else []
    blocks += [_reliability_figure({c.name: c.calibration for c in candidates}, "")]
    if len(summary.classes) == 2:
        blocks.append(_reliability_figure({c.name: c.positive_calibration for c in candidates}, summary.classes[1]))
    scalings = {c.name: scaling for c in candidates if (scaling := fit_temperature_scaling(inputs.store, c))}
    blocks.append(calibration_table(summary, scalings))
    return Section("calibration", "Discrimination and calibration", (), tuple(blocks))


def _reliability_figure(estimates: Mapping[str, CalibrationEstimate | None], positive: str) -> RenderedFigure:
    bins = {name: e.bins[e.bins[:, 0] > 0] for name, e in estimates.items() if e is not None}
    curves = [Curve(name, b[:, 1] / b[:, 0], b[:, 2] / b[:, 0], np.zeros(len(b))) for name, b in bins.items()]
    return reliability_diagram(curves, [b[:, 0] for b in bins.values()], positive)


def _roc_figure(inputs: ReportInput) -> RenderedFigure | None:
    """None where there are many classes, or no split in which every class occurs."""
    summary = inputs.summary
    estimand = summary.estimands.get("roc_auc")
    if len(summary.classes) > MAX_RANKED_CLASSES or estimand is None:
        return None
    curves, areas, count = [], [], 0
    for candidate in summary.candidates[:MAX_CURVE_CANDIDATES]:
        values = compute_roc_curves(inputs.store, candidate, estimand)
        if len(values):
            band = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(len(FALSE_POSITIVE_RATES))
            curves.append(Curve(candidate.name, FALSE_POSITIVE_RATES, values.mean(axis=0), band))
            areas.append(candidate.metric_mean("roc_auc"))
            count = max(count, len(values))
    if not curves:
        return None
    parts = "splits" if estimand.kind == "per-split" else "repeats, each with all its held-out rows together"
    how = f"Mean over {count} {parts}; the band is one standard deviation of the first candidate."
    if count == 1:
        how = "All held-out rows together."
    return roc_curve_figure(curves, areas, summary.classes[1] if len(summary.classes) == 2 else "", how)


def calibration_table(summary: StudySummary, scalings: Mapping[str, TemperatureScaling]) -> Table:
    """Metrics of the predicted probabilities, the baseline last. scalings: by candidate, for those with inner validation rows."""
    names = [m for m in summary.metrics if m in PROBABILITY_METRICS]
    two = len(summary.classes) == 2
    columns = [Column("Candidate")]
    for name in names:
        columns += [metric_column(METRICS[name])]
        columns += [within] if (within := within_split_column(summary, name)) else []
    columns += _error_columns("", "")
    if two:
        columns += _error_columns(f" of {summary.classes[1]}", f"of the probability of {summary.classes[1]}")
        columns += [Column("Slope", "number", "of the label on the predicted log-odds; 1 is right", 2)]
        columns += [Column("Intercept", "number", "0 is right", 2)]
    if scalings:
        columns.append(Column("Temperature", "number", "mean over runs", 2))
        columns += _error_columns(", scaled", "after temperature scaling")
        columns += _error_columns(f" of {summary.classes[1]}, scaled", "after temperature scaling") if two else []
    rows = []
    for candidate in [*summary.candidates, summary.baseline]:
        cells: list[CellValue] = [candidate.name, *_metric_cells(summary, candidate, names)]
        cells += _error_cells([candidate.calibration, *([candidate.positive_calibration] if two else [])])
        cells += [*(candidate.calibration_line or (None, None))] if two else []
        cells += _scaling_cells(scalings.get(candidate.name), two) if scalings else []
        rows.append(TableRow(tuple(cells), "baseline" if candidate is summary.baseline else "plain"))
    return Table(
        "calibration",
        "Discrimination and calibration of each candidate",
        tuple(columns),
        tuple(rows),
        _table_note(summary, names, bool(scalings)),
    )


def _error_columns(of: str, explain: str) -> list[Column]:
    return [
        Column(f"ECE{of}, debiased", "number", explain or "calibration error without the bias of few rows", 3),
        Column(f"{_INTERVAL} of ECE{of}", "number", "", 3),
    ]


def _error_cells(estimates: Sequence[CalibrationEstimate | None]) -> list[CellValue]:
    cells: list[CellValue] = []
    for e in estimates:
        cells += [None, None] if e is None else [e.debiased, IntervalBounds(e.low, e.high)]
    return cells


def _metric_cells(summary: StudySummary, candidate: CandidateResults, names: Sequence[str]) -> list[CellValue]:
    cells: list[CellValue] = []
    for name in names:
        cells.append(mean_std_over_runs(candidate, name))
        if within_split_column(summary, name):
            cells.append(candidate.within_splits.get(name, (None,))[0])
    return cells


def _scaling_cells(scaling: TemperatureScaling | None, two: bool) -> list[CellValue]:
    if scaling is None:
        return [None] * (5 if two else 3)
    temperature: CellValue = MeanStd(scaling.temperature, scaling.temperature_std)
    return [temperature, *_error_cells([scaling.calibration, *([scaling.positive] if two else [])])]


def _table_note(summary: StudySummary, names: Sequence[str], scaled: bool) -> str:
    note = (
        f"{describe_estimands(summary, names)} Calibration error (ECE): mean absolute difference between confidence and accuracy "
        f"over {N_BINS} bins of confidence, those of the diagram; it is above 0 for a perfectly calibrated candidate too, the "
        "more so the fewer its rows. Debiased: what is left of it without that."
    )
    if scaled:
        note += (
            " Scaled: logits divided by a temperature that was fitted on the inner validation rows of each run, then as before."
        )
    return note

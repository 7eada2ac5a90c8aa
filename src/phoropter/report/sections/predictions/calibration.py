"""Discrimination and calibration: ROC curves, reliability diagrams, and temperature scaling (Guo et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from phoropter.report.figures.comparison import Curve
from phoropter.report.figures.predictions import reliability_diagram, roc_curve_figure
from phoropter.report.render.metric_format import metric_column
from phoropter.report.render.section import ContentBlock, Section
from phoropter.report.render.svg import RenderedFigure
from phoropter.report.render.table import INTERVAL_TITLE, CellValue, Column, IntervalBounds, MeanStd, Table, TableRow, one_line
from phoropter.report.sections.candidate_values import (
    PROBABILITY_METRICS,
    describe_estimands,
    mean_std_over_runs,
    within_split_column,
)
from phoropter.report.sections.clinical.prior_table import LINE_COLUMNS, line_cells, prior_table
from phoropter.report.summary.collect import MAX_RANKED_CLASSES
from phoropter.report.summary.curves import FALSE_POSITIVE_RATES, compute_roc_curves, fit_temperature_scaling
from phoropter.report.summary.model import CandidateResults, StudySummary, TemperatureScaling
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.metrics.registry import METRICS
from phoropter.results.metrics.sufficient_sums import N_BINS
from phoropter.results.stats.calibration_error import CalibrationEstimate

MAX_CURVE_CANDIDATES = 4  # candidates whose ROC and reliability curves are drawn


def calibration_section(inputs: ReportInput) -> Section:
    summary = inputs.summary
    candidates = summary.candidates[:MAX_CURVE_CANDIDATES]
    roc = _roc_figure(inputs)
    blocks: list[ContentBlock] = [roc] if roc else []
    two_classes = len(summary.classes) == 2 and not summary.is_multi_label
    judged = "each label" if summary.is_multi_label else ""
    blocks += [_reliability_figure({c.name: c.calibration for c in candidates}, judged)]
    if two_classes:
        blocks.append(_reliability_figure({c.name: c.positive_calibration for c in candidates}, summary.classes[1]))
    scalings = {}
    if not summary.is_multi_label:  # one temperature for several labels would serve none of them
        scalings = {c.name: scaling for c in candidates if (scaling := fit_temperature_scaling(inputs.store, c))}
    blocks.append(calibration_table(summary, scalings))
    if two_classes:
        blocks.append(class_calibration_table(summary, scalings))
        blocks += [corrected] if (corrected := prior_table(inputs)) else []
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
    positive = summary.classes[1] if len(summary.classes) == 2 and not summary.is_multi_label else ""
    parts = "splits" if estimand.kind == "per-split" else "repeats, each with all its held-out rows together"
    how = f"Mean over {count} {parts}; the band is one standard deviation of the first candidate."
    if count == 1:
        how = "All held-out rows together."
    return roc_curve_figure(curves, areas, positive, how)


def calibration_table(summary: StudySummary, scalings: Mapping[str, TemperatureScaling]) -> Table:
    """Metrics of the predicted probabilities, the baseline last. scalings: by candidate, for those with inner validation rows."""
    names = [m for m in summary.metrics if m in PROBABILITY_METRICS]
    columns = [Column("Candidate")]
    for name in names:
        columns += [metric_column(METRICS[name])]
        columns += [within] if (within := within_split_column(summary, name)) else []
    columns += _error_columns("")
    if scalings:
        columns += [Column("Temperature", "number", "mean over runs", 2), *_error_columns(", scaled")]
    rows = []
    for candidate in [*summary.candidates, summary.baseline]:
        scaling = scalings.get(candidate.name)
        cells: list[CellValue] = [candidate.name, *_metric_cells(summary, candidate, names), *_error_cells(candidate.calibration)]
        if scalings:
            cells += [None if scaling is None else MeanStd(scaling.temperature, scaling.temperature_std)]
            cells += _error_cells(None if scaling is None else scaling.calibration)
        rows.append(TableRow(tuple(cells), "baseline" if candidate is summary.baseline else "plain"))
    caption, note = "Discrimination and calibration of each candidate", _table_note(summary, names, bool(scalings))
    return Table("calibration", caption, tuple(columns), tuple(rows), note)


def class_calibration_table(summary: StudySummary, scalings: Mapping[str, TemperatureScaling]) -> Table:
    """Of two classes: the calibration of the second one's probability."""
    positive = one_line(summary.classes[1])
    columns = [
        Column("Candidate"),
        Column("ECE", "number", "plain, as the points of the diagram show it", 3),
        *_error_columns(""),
    ]
    columns += [*LINE_COLUMNS, *(_error_columns(", scaled") if scalings else [])]
    rows = []
    for candidate in [*summary.candidates, summary.baseline]:
        found, scaling = candidate.positive_calibration, scalings.get(candidate.name)
        cells: list[CellValue] = [candidate.name, None if found is None else found.error, *_error_cells(found)]
        cells += line_cells(candidate.calibration_line)
        cells += _error_cells(None if scaling is None else scaling.positive) if scalings else []
        rows.append(TableRow(tuple(cells), "baseline" if candidate is summary.baseline else "plain"))
    note = (
        f"Slope and intercept: logistic regression of ‘is {positive}’ on its predicted log-odds, over all held-out rows; the "
        f"intervals are over {summary.unit_word.plural}."
    )
    return Table("calibration-of-class", f"Calibration of the probability of {positive}", tuple(columns), tuple(rows), note)


def _error_columns(of: str) -> list[Column]:
    return [Column(f"ECE{of}, debiased", "number", "", 3), Column(f"{INTERVAL_TITLE} of ECE{of}", "number", "", 3)]


def _error_cells(estimate: CalibrationEstimate | None) -> list[CellValue]:
    return [None, None] if estimate is None else [estimate.debiased, IntervalBounds(estimate.low, estimate.high)]


def _metric_cells(summary: StudySummary, candidate: CandidateResults, names: Sequence[str]) -> list[CellValue]:
    cells: list[CellValue] = []
    for name in names:
        cells.append(mean_std_over_runs(candidate, name))
        if within_split_column(summary, name):
            cells.append(candidate.within_splits.get(name, (None,))[0])
    return cells


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

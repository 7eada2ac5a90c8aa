"""Calibration of the positive class after correcting for how often a recipe showed it, and the shift to the stated prevalence."""

from __future__ import annotations

import numpy as np

from phoropter.report.render.table import INTERVAL_TITLE, CellValue, Column, IntervalBounds, Table, TableRow, one_line
from phoropter.report.summary.clinical.prior_shift import shift_candidate_priors
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.clinical.calibration_line import CalibrationLine

LINE_COLUMNS = (
    Column("Slope", "number", "1 is right; below, the probabilities are too extreme", 2),
    Column(f"{INTERVAL_TITLE} of slope", "number", "", 2),
    Column("Intercept", "number", "0 is right", 2),
    Column(f"{INTERVAL_TITLE} of intercept", "number", "", 2),
)


def line_cells(line: CalibrationLine | None) -> list[CellValue]:
    """The cells under LINE_COLUMNS."""
    if line is None:
        return [None] * 4
    (slope, *of_slope), (intercept, *of_intercept) = line.slope, line.intercept
    return [slope, IntervalBounds(*of_slope), intercept, IntervalBounds(*of_intercept)]


def prior_table(inputs: ReportInput) -> Table | None:
    """A row for each candidate whose recipe draws or weights classes otherwise than they are; None where there is none."""
    summary, column = inputs.summary, inputs.clinical.positive
    if column is None:
        return None
    prevalence = inputs.clinical.spec.prevalence
    rows = []
    for candidate in summary.candidates:
        found = shift_candidate_priors(inputs.store, summary, candidate, column)
        if found is None:
            continue
        shares = (found.trained, found.data, found.observed, found.predicted, found.corrected)
        error = found.calibration
        cells: list[CellValue] = [candidate.name, *shares, *line_cells(found.line), error.debiased]
        cells.append(IntervalBounds(error.low, error.high))
        rows.append(TableRow((*cells, *([] if prevalence is None else [_log_odds(prevalence) - _log_odds(found.trained)]))))
    if not rows:
        return None
    columns = (
        Column("Candidate"),
        Column("Trained on", "percent", "share of the positive class as the loss saw it"),
        Column("Training rows", "percent", "share of the positive class among them"),
        Column("Observed", "percent", "share of the positive class among held-out rows"),
        Column("Predicted", "percent", "mean probability of the positive class"),
        Column("Corrected", "percent", "the same after the correction"),
        *LINE_COLUMNS,
        Column("ECE, debiased", "number", "", 3),
        Column(f"{INTERVAL_TITLE} of ECE", "number", "", 3),
        *([] if prevalence is None else [Column("Shift to prevalence", "signed", "to add to the log-odds as predicted", 2)]),
    )
    positive = one_line(summary.classes[column])
    note = (
        "Undersampling and class weights make a model predict for a world in which the classes are as often as it met them. "
        "Corrected: odds times the ratio of the classes' odds among the training rows and as the loss saw them (Elkan 2001); no "
        "held-out label is used. Slope, intercept and error are those after the correction."
    )
    caption = f"Probability of {positive}, corrected for undersampling and class weights"
    return Table("prior-correction", caption, columns, tuple(rows), note)


def _log_odds(share: float) -> float:
    return float(np.log(share / (1 - share)))

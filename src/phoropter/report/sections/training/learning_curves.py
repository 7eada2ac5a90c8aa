"""Learning curves: loss and accuracy by epoch, and the trends fitted to them."""

from __future__ import annotations

import numpy as np

from phoropter.report.figures.comparison import MAX_CURVES, Curve, learning_curve_figure
from phoropter.report.render.metric_format import MetricFormat
from phoropter.report.render.section import ContentBlock, Section
from phoropter.report.sections.training.trends import build_trend_blocks
from phoropter.report.summary.model import CandidateResults
from phoropter.report.summary.report_input import ReportInput

_HISTORY_COLUMNS: tuple[tuple[str, MetricFormat], ...] = (
    ("train_loss", MetricFormat("Training loss", False, False)),
    ("validation_loss", MetricFormat("Validation loss", False, False)),
    ("train_accuracy", MetricFormat("Training accuracy", True)),
    ("validation_accuracy", MetricFormat("Validation accuracy", True)),
)


def learning_curve_section(inputs: ReportInput) -> Section | None:
    """None where no candidate was trained for more than one epoch."""
    summary = inputs.summary
    figures: list[ContentBlock] = []
    for column, scale in _HISTORY_COLUMNS:
        recorded = [c for c in summary.candidates if column in c.history]
        curves = [curve for c in recorded[:MAX_CURVES] if (curve := _mean_curve(c, column)) is not None]
        if any(len(c.x) > 1 for c in curves):
            figures.append(learning_curve_figure(curves, column.replace("_", "-"), scale, len(recorded) - len(curves)))
    if not figures:
        return None
    text, blocks = build_trend_blocks(summary)
    return Section("learning-curves", "Learning curves", text, (*figures, *blocks))


def _mean_curve(candidate: CandidateResults, column: str) -> Curve | None:
    """Over the epochs that all runs have; None where there are none."""
    rows = candidate.history[column]
    epochs = min(len(r) for r in rows)
    if not epochs:
        return None
    values = np.array([r[:epochs] for r in rows])
    band = values.std(axis=0, ddof=1) if len(rows) > 1 else np.zeros(epochs)
    return Curve(candidate.name, np.arange(1.0, epochs + 1), values.mean(axis=0), band)

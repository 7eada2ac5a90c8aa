"""Learning curves: loss, accuracy and validation error by epoch, and the trends fitted to them."""

from __future__ import annotations

import numpy as np

from phoropter.report.figures.comparison import MAX_CURVES, Curve, learning_curve_figure
from phoropter.report.render.metric_format import MetricFormat
from phoropter.report.render.section import ContentBlock, Section
from phoropter.report.render.wording import list_names
from phoropter.report.sections.training.trends import build_trend_blocks
from phoropter.report.summary.model import CandidateResults
from phoropter.report.summary.report_input import ReportInput

_VALIDATION_ERROR = "validation_error"  # 1 - validation_accuracy
_HISTORY_COLUMNS: tuple[tuple[str, MetricFormat], ...] = (
    ("train_loss", MetricFormat("Training loss", False, False)),
    ("validation_loss", MetricFormat("Validation loss", False, False)),
    ("train_accuracy", MetricFormat("Training accuracy", True)),
    (_VALIDATION_ERROR, MetricFormat("Validation error", True, False)),
)


def learning_curve_section(inputs: ReportInput) -> Section | None:
    """None where no candidate was trained for more than one epoch."""
    summary = inputs.summary
    figures: list[ContentBlock] = []
    for column, scale in _HISTORY_COLUMNS:
        curves = [curve for c in summary.candidates if (curve := _mean_curve(c, column)) is not None]
        if curves:
            left_out = max(0, len(curves) - MAX_CURVES)
            figures.append(learning_curve_figure(curves[:MAX_CURVES], column.replace("_", "-"), scale, left_out))
    if not figures:
        return None
    solved = [c.name for c in summary.candidates if not any(_mean_curve(c, column) for column, _ in _HISTORY_COLUMNS)]
    without = (f"Without a curve, because it was not trained by epochs: {list_names(solved)}.",) if solved else ()
    text, blocks = build_trend_blocks(summary)
    return Section("learning-curves", "Learning curves", (*without, *text), (*figures, *blocks))


def _mean_curve(candidate: CandidateResults, column: str) -> Curve | None:
    """Over the epochs that all runs have; None where there are fewer than two, which are no curve."""
    name = "validation_accuracy" if column == _VALIDATION_ERROR else column
    rows = candidate.history.get(name) or []
    epochs = min((len(r) for r in rows), default=0)
    if epochs < 2:
        return None
    values = np.array([r[:epochs] for r in rows])
    values = 1 - values if column == _VALIDATION_ERROR else values
    band = values.std(axis=0, ddof=1) if len(rows) > 1 else np.zeros(epochs)
    return Curve(candidate.name, np.arange(1.0, epochs + 1), values.mean(axis=0), band)

"""Feature embedding: t-SNE of the penultimate features of the first candidate (van der Maaten & Hinton 2008)."""

from __future__ import annotations

import numpy as np

from phoropter.report.figures.predictions import compute_tsne, embedding_figure
from phoropter.report.render.section import Section
from phoropter.report.summary.report_input import ReportInput

MIN_TSNE_ROWS, MAX_TSNE_ROWS = 10, 1200
MAX_GROUPS = 60  # beyond, colours by group cannot be told apart


def embedding_section(inputs: ReportInput) -> Section | None:
    """None where features were not stored, or are all equal."""
    summary = inputs.summary
    first = summary.candidates[0]
    predictions = inputs.store.run(first.runs[0].key).load_predictions()
    if predictions is None or predictions.features is None or len(predictions.features) < MIN_TSNE_ROWS:
        return None
    n_rows = len(predictions.labels)
    rows = np.unique(np.linspace(0, n_rows - 1, min(MAX_TSNE_ROWS, n_rows)).astype(np.int64))
    features = predictions.features[rows].astype(np.float64)
    if not np.isfinite(features).all() or not np.ptp(features, axis=0).any():
        return None  # a collapsed network: all features are equal and t-SNE is undefined
    xy = compute_tsne(predictions.features[rows])
    figures = [embedding_figure(xy, predictions.labels[rows], summary.classes, "class", first.name)]
    if predictions.groups is not None:
        names, member = np.unique(predictions.groups[rows], return_inverse=True)
        if 1 < len(names) <= MAX_GROUPS:
            word = summary.group_word.singular
            figures.append(embedding_figure(xy, member.astype(np.int64), [str(n) for n in names], word, first.name))
    return Section("embedding", "Feature embedding (t-SNE)", (), tuple(figures))

"""Feature embedding: t-SNE of the penultimate features of the best single network and of the best fusion, side by side.

van der Maaten & Hinton 2008. Features are those of one run of each, the first of the plan.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from phoropter.core.files import cache_dir
from phoropter.report.figures.predictions import embedding_figure
from phoropter.report.figures.tsne import load_or_compute_tsne
from phoropter.report.render.section import Section
from phoropter.report.render.svg import RenderedFigure
from phoropter.report.render.wording import list_names
from phoropter.report.summary.model import CandidateResults, StudySummary
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.store import Predictions, Store

MIN_TSNE_ROWS, MAX_TSNE_ROWS = 10, 1200
MAX_GROUPS = 60  # beyond, colours by group cannot be told apart


def embedding_section(inputs: ReportInput) -> Section | None:
    """None where features were not stored, or are all equal."""
    summary = inputs.summary
    shown = _choose_candidates(inputs.store, summary)
    if not shown:
        return None
    by_class: list[RenderedFigure] = []
    by_group: list[RenderedFigure] = []
    for place, (candidate, predictions) in enumerate(shown):
        ending = "" if place == 0 else f"-{place + 1}"
        rows = _spread_rows(len(predictions.labels))
        assert predictions.features is not None  # chosen for having them
        xy = load_or_compute_tsne(predictions.features[rows], cache_dir(inputs.store.folder))
        by_class.append(embedding_figure(xy, predictions.labels[rows], summary.classes, "class", candidate.name, ending))
        if predictions.groups is not None:
            names, member = np.unique(predictions.groups[rows], return_inverse=True)
            if 1 < len(names) <= MAX_GROUPS:
                groups, word = [str(n) for n in names], summary.group_word.singular
                by_group.append(embedding_figure(xy, member.astype(np.int64), groups, word, candidate.name, ending))
    both = list_names([c.name for c, _ in shown])
    text = (f"The best single network and the best fusion whose features were stored: {both}.",) if len(shown) > 1 else ()
    return Section("embedding", "Feature embedding (t-SNE)", text, (*by_class, *by_group))


def _choose_candidates(store: Store, summary: StudySummary) -> list[tuple[CandidateResults, Predictions]]:
    """The best single network and the best fusion with stored features that differ between rows, the better one first."""
    found: dict[bool, tuple[CandidateResults, Predictions]] = {}
    for candidate in summary.candidates:
        is_fusion = candidate.joins_networks
        if is_fusion in found:
            continue
        predictions = store.run(candidate.runs[0].key).load_predictions()
        if predictions is not None and _has_features(predictions):
            found[is_fusion] = (candidate, predictions)
        if len(found) == 2:
            break
    return list(found.values())


def _spread_rows(n_rows: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, n_rows - 1, min(MAX_TSNE_ROWS, n_rows)).astype(np.int64))


def _has_features(predictions: Predictions) -> bool:
    """Whether they are enough, finite and not all equal: of a collapsed network they are, and t-SNE is undefined."""
    if predictions.features is None or len(predictions.features) < MIN_TSNE_ROWS:
        return False
    features = predictions.features[_spread_rows(len(predictions.labels))].astype(np.float64)
    return bool(np.isfinite(features).all() and np.ptp(features, axis=0).any())

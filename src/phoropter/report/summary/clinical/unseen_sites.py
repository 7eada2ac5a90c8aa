"""The answers on sites that no model of theirs was trained on: of each site with its interval, and the spread between sites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phoropter.report.summary.model import CandidateResults, StudySummary
from phoropter.results.clinical.site_spread import SiteSpread, estimate_site_spread
from phoropter.results.intervals.bootstrap_intervals import bootstrap_interval
from phoropter.results.intervals.interval_rules import ConfidenceInterval
from phoropter.results.stats import compare
from phoropter.results.stats.compare import CandidateScores, Design
from phoropter.results.stats.pairs.answers import Comparison
from phoropter.results.store import Predictions, Store

BY_SITE = "leave-one-site-out"


@dataclass(frozen=True, eq=False)
class UnseenSites:
    """intervals: site → the ranking metric with its interval over groups, else rows · counts: site → rows, of one model or the
    ensemble · spread: between sites; None where there are too few
    """

    intervals: Mapping[str, ConfidenceInterval]
    counts: Mapping[str, int]
    spread: SiteSpread | None


def answer_unseen_sites(store: Store, summary: StudySummary, candidate: CandidateResults) -> Predictions | None:
    """One answer for each row of a site that was not trained on: the mean probability of all models that did not meet it.

    Rows of the external part, else, where sites are left out one by one, the tested ones. None where there are neither.
    """
    runs = [store.run(line.key) for line in candidate.runs]
    external = [part for run in runs if (part := run.load_predictions("external")) is not None]
    if external:
        return compare.ensemble_predictions(external)
    if summary.protocol_config.get("split") != BY_SITE:
        return None
    rounds: dict[tuple[int, int], list[Predictions]] = {}
    for line, run in zip(candidate.runs, runs, strict=True):
        if (part := run.load_predictions()) is not None:
            rounds.setdefault(line.split[:2], []).append(part)
    return compare.ensemble_predictions([_join_parts(parts) for parts in rounds.values()])


def _join_parts(parts: list[Predictions]) -> Predictions:
    """The test parts of one round, one after another."""

    def join(name: str) -> NDArray[np.str_] | None:
        columns = [getattr(part, name) for part in parts]
        return None if any(column is None for column in columns) else np.concatenate(columns)

    ids, labels, logits = (np.concatenate([getattr(part, name) for part in parts]) for name in ("ids", "labels", "logits"))
    return Predictions(ids, labels, logits, join("groups"), join("sites"))


def measure_unseen_sites(summary: StudySummary, answers: Predictions) -> UnseenSites | None:
    """The ranking metric at each site. None where rows name no site, or the metric cannot be computed here."""
    metric = summary.ranking_metric
    if answers.sites is None or metric.unavailable:
        return None
    intervals, counts = {}, {}
    for site in np.unique(answers.sites):
        here = answers.sites == site
        units = None if answers.groups is None else answers.groups[here]
        interval = bootstrap_interval(metric.name, answers.labels[here], answers.probabilities[here], units)
        intervals[str(site)], counts[str(site)] = interval, int(here.sum())
    return UnseenSites(intervals, counts, estimate_site_spread(metric, intervals))


def compare_on_unseen_sites(summary: StudySummary, answers: Mapping[str, Predictions]) -> list[Comparison]:
    """Every pair of candidates on the same rows: DeLong or McNemar of independent rows, else a test that exchanges units."""
    metric = summary.metrics[0]
    tested = []
    for name, found in answers.items():
        value = summary.ranking_metric.compute_value(found.labelled)
        tested.append(CandidateScores(name, {("unseen", 0): value}, {("unseen", 0): found}, {("unseen", 0): 0}))
    return compare.compare_all_pairs(tested, metric, Design("one test set")) if len(tested) > 1 else []

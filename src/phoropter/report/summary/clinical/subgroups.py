"""The ranking metric of candidates in the subgroups that the results folder names."""

from __future__ import annotations

from collections.abc import Sequence

from phoropter.report.summary.model import CandidateResults, StudySummary
from phoropter.results.clinical.levels import Aggregation
from phoropter.results.clinical.subgroups import SubgroupResults, measure_subgroups
from phoropter.results.stats.held_out_rows import join_answers
from phoropter.results.store import Store
from phoropter.results.subgroup_file import StoredSubgroups, load_subgroups


def collect_subgroups(
    store: Store, summary: StudySummary, candidates: Sequence[CandidateResults]
) -> dict[str, dict[str, SubgroupResults]]:
    """Candidate → column → its subgroups; empty where the study states none, or the metric cannot be computed here."""
    if summary.ranking_metric.unavailable:
        return {}
    stored = load_subgroups(store.folder)
    return {c.name: _measure_candidate(store, summary, c, stored) for c in candidates} if stored.columns else {}


def _measure_candidate(
    store: Store, summary: StudySummary, candidate: CandidateResults, stored: StoredSubgroups
) -> dict[str, SubgroupResults]:
    loaded = [(store.run(line.key).load_predictions(), line.split[:2]) for line in candidate.runs]
    known = [(part, name) for part, name in loaded if part is not None]
    rows, names = join_answers([Aggregation("row").apply_to(part) for part, _ in known], [name for _, name in known])
    columns = stored.find_rows(names)
    return {column: measure_subgroups(summary.metrics[0], rows, members) for column, members in columns.items()}

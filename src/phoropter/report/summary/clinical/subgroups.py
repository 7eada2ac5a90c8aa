"""The ranking metric of a candidate in the subgroups that the results folder names."""

from __future__ import annotations

from phoropter.report.summary.model import CandidateResults, StudySummary
from phoropter.results.clinical.levels import Aggregation
from phoropter.results.clinical.subgroups import SubgroupResults, measure_subgroups
from phoropter.results.stats.held_out_rows import join_answers
from phoropter.results.store import Store
from phoropter.results.subgroup_file import find_subgroups


def collect_subgroups(store: Store, summary: StudySummary, candidate: CandidateResults) -> dict[str, SubgroupResults]:
    """Column → its subgroups; empty where the study states none, or the metric cannot be computed here."""
    if summary.ranking_metric.unavailable or not (store.folder / "subgroups.npz").exists():
        return {}
    loaded = [(store.run(line.key).load_predictions(), line.split[:2]) for line in candidate.runs]
    known = [(part, name) for part, name in loaded if part is not None]
    rows, names = join_answers([Aggregation("row").apply_to(part) for part, _ in known], [name for _, name in known])
    columns = find_subgroups(store.folder, names)
    return {column: measure_subgroups(summary.metrics[0], rows, members) for column, members in columns.items()}

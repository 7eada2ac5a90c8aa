"""The order of runs under a budget of time: the first fold of every candidate before the second of any. No torch here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from phoropter.study.plan import Plan, PlannedRun


def order_by_folds(planned: Plan, runs: Iterable[PlannedRun]) -> list[PlannedRun]:
    """Runs of a plan, in the order in which a study that may not end should compute them.

    A study that stops after any of them has compared as many candidates as it can on the same rows. What a run needs comes before
    it, and shares of a learning curve come last.
    """
    ranks: dict[str, int] = {}
    counts: Counter[str] = Counter()
    for run in (*planned.compared, *(r for r in planned.side_runs if r.role == "learning-curve")):
        ranks[run.key] = counts[run.candidate.name] + (0 if run.role == "compared" else len(planned.runs))
        counts[run.candidate.name] += 1
    for run in reversed(planned.runs):  # whoever needs a run stands behind it; trials have the rank of the run they are for
        for key in run.waits_for:
            ranks[key] = min(ranks.get(key, ranks[run.key]), ranks[run.key])
    places = {run.key: place for place, run in enumerate(planned.runs)}
    return sorted(runs, key=lambda run: (ranks[run.key], places[run.key]))

"""The questions of a study answered from its store: planned contrasts, main effects of its sweeps, and the winner's value.

Each candidate's predictions are read once for each metric that a question needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from phoropter.report.summary.compare import SharedContributions
from phoropter.report.summary.guessing import find_uninformed
from phoropter.report.summary.model import StudySummary
from phoropter.results.questions.contrasts import ContrastAnswer, answer_contrasts
from phoropter.results.questions.planned import Contrast, PlannedCandidate, main_effects
from phoropter.results.questions.selection import SelectedBest, correct_selected_best
from phoropter.results.stats.compare import Design
from phoropter.results.stats.pairs.unit_contributions import UnitContributions
from phoropter.results.store import Store

MAX_MAIN_EFFECTS = 60  # levels beyond this are left to the sweep's own table


@dataclass(frozen=True)
class QuestionAnswers:
    """planned: in the order of the study file, the primary one first · main_effects: every level of every swept factor against
    the factor's first, and every family against the first, exploratory · best: the value of the best candidate, corrected for
    the choice; None where there is none
    """

    planned: tuple[ContrastAnswer, ...] = ()
    main_effects: tuple[ContrastAnswer, ...] = ()
    best: SelectedBest | None = None


NO_ANSWERS = QuestionAnswers()


def answer_questions(
    store: Store, summary: StudySummary, design: Design, shared: SharedContributions | None = None
) -> QuestionAnswers:
    """design: of the ranking metric, as the pairs are tested by it · shared: where what was read for the pairs is found again"""
    shared = shared or SharedContributions(store, summary)
    settled = [Contrast.from_plain(plain) for plain in summary.study.get("contrasts", ())]
    planned = [contrast for contrast in settled if contrast.role != "exploratory" and contrast.metric in summary.metrics]
    complete = {c.name for c in summary.candidates if c.is_complete}
    families = [contrast for contrast in settled if contrast.role == "exploratory" and complete.issuperset(contrast.candidates)]
    swept = [PlannedCandidate(c.name, c.base_name, (), "", c.settings) for c in summary.candidates if c.is_complete]
    effects = main_effects(_in_order_of_plan(swept, summary), summary.metrics[0])[:MAX_MAIN_EFFECTS]
    effects += families
    metrics = dict.fromkeys([summary.metrics[0], *(contrast.metric for contrast in planned)])
    designs = {name: _design_for(name, summary, design) for name in metrics}
    contributions = {name: shared.read_all(name, designs[name].pooled) for name in metrics}
    answers = answer_contrasts([*planned, *effects], contributions, designs)
    best = _correct_best(summary, contributions[summary.metrics[0]])
    uninformed = {c.name for c in find_uninformed(summary, design)}  # by the ranking metric: of others nothing is known
    asked = [a.withdraw_lead(uninformed) if a.contrast.metric == summary.metrics[0] else a for a in answers[: len(planned)]]
    return QuestionAnswers(tuple(asked), tuple(answers[len(planned) :]), best)


def _in_order_of_plan(candidates: Sequence[PlannedCandidate], summary: StudySummary) -> list[PlannedCandidate]:
    """So that the first level of a factor is the first of the study file, not that of the best candidate."""
    order = {str(item["candidate"]): number for number, item in reversed(list(enumerate(summary.study["plan"])))}
    return sorted(candidates, key=lambda c: order[c.name])


def _design_for(metric: str, summary: StudySummary, design: Design) -> Design:
    """The equivalence margin is one of the ranking metric."""
    pooled = summary.estimands[metric].kind == "pooled"
    return replace(design, pooled=pooled, margin=design.margin if metric == summary.metrics[0] else None)


def _correct_best(summary: StudySummary, known: dict[str, UnitContributions]) -> SelectedBest | None:
    """Over the complete candidates, which were tested on the same rows."""
    complete = [known[c.name] for c in summary.candidates if c.is_complete and c.name in known]
    if len({one.layout.key for one in complete}) != 1:
        return None
    values = np.array([one.values.mean() for one in complete])
    influences = np.stack([one.mean_influences for one in complete])
    return correct_selected_best(values, influences, summary.ranking_metric.higher_is_better)

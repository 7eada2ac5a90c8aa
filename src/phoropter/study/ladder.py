"""`strategy: ladder`: every candidate by a probe, then only the best few in full. No torch.

The first rung solves a logistic regression on each frozen backbone (recipe `logistic`), on all splits of the protocol. Who climbs
is decided by the loss on inner folds of the training rows, averaged over the splits; predictions of held-out rows have no say.
Under k folds a row held out of one split is a training row of the others: the choice is made once for the study and is not blind
to every held-out label, so it may flatter those it keeps a little. That, and what was not tried in full, is said in study.json
under `ladder`.

Left out: choosing anew in every split, after which candidates would have been tried on different splits and not be comparable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from phoropter.core.errors import SpecError, listing
from phoropter.models.spec import HeadSpec
from phoropter.results.store import Store
from phoropter.study.spec import Ladder, Question
from phoropter.training.candidate import Candidate
from phoropter.training.recipe import recipe_of

METRIC = "inner log-loss"
NOTE = (
    "Chosen by the mean log-loss on inner folds of the training rows of every split; predictions on held-out rows had no say. "
    "Under k folds the training rows of all splits together are all rows, so the choice may be slightly optimistic."
)


def climbs(question: Question) -> bool:
    """Whether the question is a ladder whose next rung is not settled yet."""
    return question.study.strategy is not None and not question.rungs


def climb(question: Question, compute: Callable[[Question], Store]) -> Store:
    """Computes a ladder rung by rung, all in one results folder; a rung that is there already costs nothing."""
    store = compute(first_rung(question))
    return compute(second_rung(question, store))


def first_rung(question: Question) -> Question:
    """Every candidate, as a probe. Raises SpecError for what a ladder cannot try."""
    return _with(question, probes(question), [_first(question, {}, ())])


def second_rung(question: Question, store: Store) -> Question:
    """The probes, and the best of them by what the store says of the first rung, in full."""
    ladder = _ladder(question)
    scores = inner_losses(question, store)
    kept = sorted(scores, key=lambda name: (scores[name], name))[: ladder.keep]
    full = [c for c in in_full(question) if c.name in kept]
    left = [c.name for c in question.candidates if c.name not in kept]
    rung = {
        "rung": 2,
        "title": f"the best {len(kept)} of {len(scores)} by {_words(ladder)}",
        "tried": [c.name for c in full],
        "kept": [c.name for c in full],
        "metric": question.study.metrics[0],
        "scores": {},
        "note": f"Not tried in full: {', '.join(left) or 'none'}. Probes need not rank as fine-tuned networks would.",
    }
    return _with(question, probes(question) + full, [_first(question, scores, kept), rung])


def settled(question: Question, store: Store) -> Question:
    """The question as far as its ladder can be foreseen: the second rung once the first is done."""
    if not climbs(question):
        return question
    done = store.folder.is_dir() and len(inner_losses(question, store)) == len(question.candidates)
    return second_rung(question, store) if done else first_rung(question)


def probes(question: Question) -> list[Candidate]:
    """Each candidate of the study as a probe, called `NAME probe`."""
    if question.study.sweep:
        raise SpecError(f"{question.source.name}: strategy ladder and sweep contradict each other; leave one of them out")
    logistic = recipe_of("logistic", None)
    made = []
    for candidate in question.candidates:
        if candidate.fusion or candidate.teaching or candidate.frozen or candidate.head.kind == "own":
            raise SpecError(
                f"{question.source.name}: strategy ladder tries single backbones, and '{candidate.name}' is none to be trained; "
                "leave it out, or leave strategy out"
            )
        crop = candidate.recipe.crop
        changes = {"name": f"{candidate.name} probe", "frozen": True, "head": HeadSpec(), "recipe": logistic.with_(crop=crop)}
        made.append(candidate.model_copy(update=changes))
    return made


def in_full(question: Question) -> list[Candidate]:
    """Each candidate of the study as the second rung would train it."""
    then = recipe_of(_ladder(question).then, question.recipe, question.source, ("strategy",))
    return [c.model_copy(update={"recipe": then}) for c in question.candidates]


def inner_losses(question: Question, store: Store) -> dict[str, float]:
    """Candidate → the first rung's loss on inner folds, mean over the splits; of those whose every split is done."""
    of_probe: dict[str, list[float]] = {}
    for run in store.runs():
        losses = run.record.get("convex", {}).get("inner_loss")
        if losses:
            of_probe.setdefault(run.candidate, []).append(min(losses.values()))
    most = max((len(found) for found in of_probe.values()), default=0)
    scores = {c.name: of_probe.get(f"{c.name} probe", []) for c in question.candidates}
    return {name: sum(found) / len(found) for name, found in scores.items() if found and len(found) == most}


def said(question: Question) -> list[str]:
    """The ladder in sentences, for the plan."""
    ladder = question.study.strategy
    if ladder is None:
        return []
    names = [c["tried"] for c in question.rungs]
    lines = [f"ladder, rung 1: {len(names[0])} candidates, each by a logistic probe on every split"]
    if len(names) > 1:
        return [*lines, f"ladder, rung 2: {listing(names[1])} by {_words(ladder)}; {question.rungs[1]['note']}"]
    return [
        *lines,
        f"ladder, rung 2: the best {ladder.keep} by {_words(ladder)}, on top of what follows; known after rung 1",
    ]


def _first(question: Question, scores: dict[str, float], kept: Sequence[str]) -> dict[str, Any]:
    return {
        "rung": 1,
        "title": "every candidate by a logistic probe",
        "tried": [c.name for c in question.candidates],
        "kept": list(kept),
        "metric": METRIC,
        "scores": {name: round(value, 6) for name, value in scores.items()},
        "note": NOTE,
    }


def _ladder(question: Question) -> Ladder:
    assert question.study.strategy is not None
    return question.study.strategy


def _words(ladder: Ladder) -> str:
    return recipe_of(ladder.then).preset or "a recipe of its own"


def _with(question: Question, candidates: list[Candidate], rungs: list[dict[str, Any]]) -> Question:
    return replace(question, study=question.study.model_copy(update={"candidates": candidates}), rungs=tuple(rungs))

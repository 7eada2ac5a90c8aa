"""`strategy: ladder`: every candidate by a probe, then only the best few in full. No torch.

The first rung solves a logistic regression on each frozen backbone (recipe `logistic`), on all splits of the protocol. Who climbs
is decided by the loss on inner folds of the training rows, averaged over the splits; predictions of held-out rows have no say.
Under k folds a row held out of one split is a training row of the others: the choice is made once for the study and is not blind
to every held-out label, so it may flatter those it keeps a little. That, and what was not tried in full, is said in study.json
under `ladder`.

With a budget the best are taken in their order for as long as they fit, by the plan's estimate. An estimate changes with what has
been measured and with what is done already, so the choice is made once and kept in DIR/ladder.json.

Left out: choosing anew in every split, after which candidates would have been tried on different splits and not be comparable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from phoropter.core.errors import PhoropterError, SpecError, join_words
from phoropter.core.files import digest, write_json
from phoropter.models.spec import HeadSpec
from phoropter.results.store import Store, read_bounded_json
from phoropter.study.cost import estimate_resources
from phoropter.study.plan import plan_study
from phoropter.study.progress import format_duration
from phoropter.study.spec import ScreeningSpec, StudySpec
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.candidates.presets import parse_recipe

PROBE_METRIC = "inner log-loss"
SELECTION_NOTE = (
    "Chosen by the mean log-loss on inner folds of the training rows of every split; predictions on held-out rows had no say. "
    "Under k folds the training rows of all splits together are all rows, so the choice may be slightly optimistic."
)

RANKING_CAVEAT = "Probes need not rank as fine-tuned networks would."


def needs_screening(study: StudySpec) -> bool:
    """Whether the study is a ladder whose next rung is not settled yet."""
    return study.screening is not None and not study.context.screening_rungs


def run_screening(study: StudySpec, compute: Callable[[StudySpec], Store], cache: Path | None = None) -> Store:
    """Computes a ladder rung by rung, all in one results folder; a rung that is there already costs nothing."""
    store = compute(first_rung(study))
    settled = second_rung(study, store, cache)
    write_json(store.folder / _CHOICE_FILE, settled.screening_rungs[1]["choice"])
    store = compute(settled)
    scores = _mean_final_scores(settled, store)
    first, second = settled.screening_rungs
    store.write_study(store.study | {"ladder": [first, {**second, "scores": scores}]})
    return store


def first_rung(study: StudySpec) -> StudySpec:
    """Every candidate, as a probe. Raises SpecError for what a ladder cannot try."""
    return _replace_candidates(study, make_probe_candidates(study), [_describe_first_rung(study, {}, ())])


def second_rung(study: StudySpec, store: Store, cache: Path | None = None) -> StudySpec:
    """The probes, and the best of them by what the store says of the first rung, in full, as far as the budget goes."""
    ladder = _screening_spec(study)
    scores = mean_inner_losses(study, store)
    choice = _choose_finalists(study, store, scores, cache)
    kept = choice["kept"]
    full = [c for c in make_full_candidates(study) if c.name in kept]
    left = [c.name for c in study.parsed_candidates if c.name not in kept]
    rung = {
        "rung": 2,
        "title": f"the best {len(kept)} of {len(scores)} by {_name_final_recipe(ladder)}",
        "tried": [c.name for c in full],
        "kept": [c.name for c in full],
        "metric": study.metrics[0],
        "scores": {},
        "note": f"Not tried in full: {', '.join(left) or 'none'}. {_describe_budget(choice)}{RANKING_CAVEAT}",
        "choice": choice,
    }
    return _replace_candidates(
        study, make_probe_candidates(study) + full, [_describe_first_rung(study, scores, kept), rung]
    )


def _choose_finalists(study: StudySpec, store: Store, scores: dict[str, float], cache: Path | None) -> dict[str, Any]:
    """Who climbs: `kept`; with a budget also how many `seconds` each of the best was thought to take. Made once."""
    ladder = _screening_spec(study)
    best = sorted(scores, key=lambda name: (scores[name], name))[: ladder.keep]
    of = {
        "best": best,
        "budget_h": ladder.budget_h,
        "asked": digest([scores, [c.identity() for c in make_full_candidates(study)]]),
    }
    try:
        before = dict(read_bounded_json(store.folder / _CHOICE_FILE))
    except (OSError, ValueError, PhoropterError):
        before = {}
    if {k: before.get(k) for k in of} == of:
        return before
    if ladder.budget_h is None:
        return {**of, "kept": best, "seconds": {}}
    seconds = estimate_full_seconds(study, store, cache)
    kept: list[str] = []
    spent = 0.0
    for name in best:
        spent += seconds[name]
        if kept and spent > ladder.budget_h * 3600:
            break
        kept.append(name)
    return {**of, "kept": kept, "seconds": {name: round(seconds[name], 6) for name in best}}


_CHOICE_FILE = "ladder.json"


def estimate_full_seconds(study: StudySpec, store: Store, cache: Path | None = None) -> dict[str, float]:
    """Candidate → about how long it would take in full on all splits, as the plan estimates it, without what is there."""
    alone = {c.name: _replace_candidates(study, [c], []) for c in make_full_candidates(study)}
    return {name: estimate_resources(plan_study(one, cache), store, cache).seconds for name, one in alone.items()}


def _describe_budget(choice: dict[str, Any]) -> str:
    """What the budget was thought to suffice for, in a sentence or two; nothing where there is none."""
    if choice["budget_h"] is None:
        return ""
    seconds, kept = choice["seconds"], choice["kept"]
    taken = ", ".join(f"{name} about {format_duration(seconds[name])}" for name in kept)
    words = f"The budget is {choice['budget_h']:g} h: {taken}"
    if sum(seconds[name] for name in kept) > choice["budget_h"] * 3600:
        words += ", which is more than the budget, but one is tried"
    out = ", ".join(f"{name} about {format_duration(seconds[name])}" for name in choice["best"] if name not in kept)
    return f"{words}. {f'Among the best and beyond the budget: {out}. ' if out else ''}"


def _mean_final_scores(study: StudySpec, store: Store) -> dict[str, float]:
    """The second rung's candidates → the mean of the study's first metric over their runs."""
    name = study.metrics[0]
    found: dict[str, list[float]] = {candidate: [] for candidate in study.context.screening_rungs[1]["tried"]}
    for run in store.runs():
        value = run.record["metrics"].get(name)
        if run.candidate_name in found and value is not None:
            found[run.candidate_name].append(float(value))
    return {candidate: round(sum(values) / len(values), 6) for candidate, values in found.items() if values}


def resolve_rungs(study: StudySpec, store: Store, cache: Path | None = None) -> StudySpec:
    """The study as far as its ladder can be foreseen: the second rung once the first is done."""
    if not needs_screening(study):
        return study
    done = store.folder.is_dir() and len(mean_inner_losses(study, store)) == len(study.parsed_candidates)
    return second_rung(study, store, cache) if done else first_rung(study)


def make_probe_candidates(study: StudySpec) -> list[Candidate]:
    """Each candidate of the study as a probe, called `NAME probe`."""
    if study.sweep:
        raise SpecError(f"{study.source.name}: strategy ladder and sweep contradict each other; leave one of them out")
    logistic = parse_recipe("logistic", None)
    made = []
    for candidate in study.parsed_candidates:
        if candidate.fusion or candidate.teaching or candidate.frozen or candidate.head.kind == "pretrained":
            raise SpecError(
                f"{study.source.name}: strategy ladder tries single backbones, and '{candidate.name}' is none to be trained; "
                "leave it out, or leave strategy out"
            )
        crop = candidate.recipe.crop
        changes = {
            "name": f"{candidate.name} probe",
            "frozen": True,
            "head": HeadSpec(),
            "recipe": logistic.with_changes(crop=crop),
        }
        made.append(candidate.model_copy(update=changes))
    return made


def make_full_candidates(study: StudySpec) -> list[Candidate]:
    """Each candidate of the study as the second rung would train it."""
    then = parse_recipe(_screening_spec(study).final_recipe, study.parsed_recipe, study.source, ("strategy",))
    return [c.model_copy(update={"recipe": then}) for c in study.parsed_candidates]


def mean_inner_losses(study: StudySpec, store: Store) -> dict[str, float]:
    """Candidate → the first rung's loss on inner folds, mean over the splits; of those whose every split is done."""
    of_probe: dict[str, list[float]] = {}
    for run in store.runs():
        losses = run.record.get("convex", {}).get("inner_loss")
        if losses:
            of_probe.setdefault(run.candidate_name, []).append(min(losses.values()))
    most = max((len(found) for found in of_probe.values()), default=0)
    scores = {c.name: of_probe.get(f"{c.name} probe", []) for c in study.parsed_candidates}
    return {name: sum(found) / len(found) for name, found in scores.items() if found and len(found) == most}


def describe_rungs(
    study: StudySpec, asked: StudySpec | None = None, store: Store | None = None, cache: Path | None = None
) -> list[str]:
    """The ladder in sentences, for the plan.

    asked: the study before it was settled, with the store: then it is also said what the second rung takes at most
    """
    ladder = study.screening
    if ladder is None:
        return []
    names = [c["tried"] for c in study.context.screening_rungs]
    lines = [f"ladder, rung 1: {len(names[0])} candidates, each by a logistic probe on every split"]
    if len(names) > 1:
        return [
            *lines,
            f"ladder, rung 2: {join_words(names[1])} by {_name_final_recipe(ladder)}; {study.context.screening_rungs[1]['note']}",
        ]
    most = ""
    if asked is not None and store is not None:
        dearest = sorted(estimate_full_seconds(asked, store, cache).values())[-ladder.keep :]
        most = f", at most about {format_duration(sum(dearest))}"
    within = "" if ladder.budget_h is None else f" that fit into {ladder.budget_h:g} h (at least one)"
    words = f"ladder, rung 2: the best {ladder.keep} by {_name_final_recipe(ladder)}{within}{most}, on top of what follows; known after rung 1"
    return [*lines, words]


def _describe_first_rung(study: StudySpec, scores: dict[str, float], kept: Sequence[str]) -> dict[str, Any]:
    return {
        "rung": 1,
        "title": "every candidate by a logistic probe",
        "tried": [c.name for c in study.parsed_candidates],
        "kept": list(kept),
        "metric": PROBE_METRIC,
        "scores": {name: round(value, 6) for name, value in scores.items()},
        "note": SELECTION_NOTE,
    }


def _screening_spec(study: StudySpec) -> ScreeningSpec:
    assert study.screening is not None
    return study.screening


def _name_final_recipe(ladder: ScreeningSpec) -> str:
    return parse_recipe(ladder.final_recipe).preset or "a recipe of its own"


def _replace_candidates(study: StudySpec, candidates: list[Candidate], rungs: list[dict[str, Any]]) -> StudySpec:
    return replace(study, study=study.model_copy(update={"candidates": candidates}), screening_rungs=tuple(rungs))

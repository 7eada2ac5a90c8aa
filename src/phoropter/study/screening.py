"""Screening: every candidate is tried by a probe, then only the best few in full (successive halving with two rungs). No torch.

The first rung solves a logistic regression on each frozen backbone (recipe `logistic`), on all splits of the protocol. The
finalists are chosen by the loss on inner folds of the training rows, averaged over the splits; predictions on held-out rows are
not used. Under k-fold a row held out of one split is a training row of the others: the choice is made once for the study and is
not blind to every held-out label, so it may favour the finalists a little. study.json records that, and what was not tried in
full, under `screening`.

With a budget the best are taken in their order for as long as they fit, by the plan's estimate. An estimate changes with what has
been measured and with what is done already, so the choice is made once and kept in DIR/screening.json.

Left out: choosing anew in every split, after which candidates would have been tried on different splits and not be comparable.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from phoropter.core.durations import format_duration
from phoropter.core.errors import SpecError, StoreError, join_words
from phoropter.core.files import digest
from phoropter.core.storage.sealed_json import read_json_object, write_sealed_json
from phoropter.models.spec import HeadSpec
from phoropter.results.store import Store
from phoropter.study.cost import estimate_resources
from phoropter.study.plan import plan_study
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
    """Whether a study asks for a screening whose rungs are not settled yet."""
    return study.screening is not None and not study.context.screening_rungs


def iterate_rungs(study: StudySpec, store: Store, cache: Path | None = None) -> Iterator[StudySpec]:
    """The studies to compute one after another in one results folder: the rungs of a screening, else the study itself.

    The second rung follows from what the store holds of the first; afterwards the final scores are recorded.
    """
    if not needs_screening(study):
        yield study
        return
    yield first_rung(study)
    settled = second_rung(study, store, cache)
    first, second = settled.context.screening_rungs
    write_sealed_json(store.folder / _CHOICE_FILE, second["choice"])
    yield settled
    store.write_study(store.study | {"screening": [first, {**second, "scores": _mean_final_scores(settled, store)}]})


def first_rung(study: StudySpec) -> StudySpec:
    """The study with every candidate as a probe. Raises SpecError for candidates that cannot be screened."""
    return _replace_candidates(study, make_probe_candidates(study), [_describe_first_rung(study, {}, ())])


def second_rung(study: StudySpec, store: Store, cache: Path | None = None) -> StudySpec:
    """The study with the probes, and the best of them by the first rung in the store in full, as far as the budget goes."""
    screening = _screening_spec(study)
    scores = mean_inner_losses(study, store)
    choice = _choose_finalists(study, store, scores, cache)
    kept = choice["kept"]
    finalists = [c for c in make_full_candidates(study) if c.name in kept]
    left_out = [c.name for c in study.parsed_candidates if c.name not in kept]
    rung = {
        "rung": 2,
        "title": f"the best {len(kept)} of {len(scores)} by {_name_final_recipe(screening)}",
        "tried": [c.name for c in finalists],
        "kept": [c.name for c in finalists],
        "metric": study.metric_names[0],
        "scores": {},
        "note": f"Not tried in full: {', '.join(left_out) or 'none'}. {_describe_budget(choice)}{RANKING_CAVEAT}",
        "choice": choice,
    }
    return _replace_candidates(study, make_probe_candidates(study) + finalists, [_describe_first_rung(study, scores, kept), rung])


def _choose_finalists(study: StudySpec, store: Store, scores: dict[str, float], cache: Path | None) -> dict[str, Any]:
    """The finalists (`kept`); with a budget also the estimated `seconds` of each of the best. Made once."""
    screening = _screening_spec(study)
    best = sorted(scores, key=lambda name: (scores[name], name))[: screening.keep]
    basis = {
        "best": best,
        "budget_h": screening.budget_h,
        "inputs": digest([scores, [c.identity() for c in make_full_candidates(study)]]),
    }
    before = _read_choice(store)
    if {k: before.get(k) for k in basis} == basis:
        return before
    if screening.budget_h is None:
        return {**basis, "kept": best, "seconds": {}}
    seconds = estimate_full_seconds(study, store, cache)
    kept: list[str] = []
    total = 0.0
    for name in best:
        total += seconds[name]
        if kept and total > screening.budget_h * 3600:
            break
        kept.append(name)
    return {**basis, "kept": kept, "seconds": {name: round(seconds[name], 6) for name in best}}


_CHOICE_FILE = "screening.json"


class _ChoiceShape(BaseModel):
    """screening.json: the finalists, and the estimated seconds of each of the best."""

    kept: list[str]
    seconds: dict[str, float]


def _read_choice(store: Store) -> dict[str, Any]:
    """The choice that was made before; nothing where there is none, or a damaged one: it is made again."""
    try:
        choice, _ = read_json_object(store.folder / _CHOICE_FILE, StoreError)
        _ChoiceShape.model_validate(choice)
    except (StoreError, ValidationError):
        return {}
    return choice


def estimate_full_seconds(study: StudySpec, store: Store, cache: Path | None = None) -> dict[str, float]:
    """Candidate → estimated seconds of its missing runs in full on all splits."""
    single = {c.name: _replace_candidates(study, [c], []) for c in make_full_candidates(study)}
    return {name: estimate_resources(plan_study(one, cache), store, cache).seconds for name, one in single.items()}


def _describe_budget(choice: dict[str, Any]) -> str:
    """What the budget suffices for, in a sentence or two; empty without a budget."""
    if choice["budget_h"] is None:
        return ""
    seconds, kept = choice["seconds"], choice["kept"]
    estimates = ", ".join(f"{name} about {format_duration(seconds[name])}" for name in kept)
    words = f"The budget is {choice['budget_h']:g} h: {estimates}"
    if sum(seconds[name] for name in kept) > choice["budget_h"] * 3600:
        words += ", which is more than the budget, but one is tried"
    beyond = ", ".join(f"{name} about {format_duration(seconds[name])}" for name in choice["best"] if name not in kept)
    return f"{words}. {f'Among the best and beyond the budget: {beyond}. ' if beyond else ''}"


def _mean_final_scores(study: StudySpec, store: Store) -> dict[str, float]:
    """The second rung's candidates → the mean of the study's first metric over their runs."""
    scores: dict[str, list[float]] = {candidate: [] for candidate in study.context.screening_rungs[1]["tried"]}
    for run in store.runs():
        value = run.record["metrics"].get(study.metric_names[0])
        if run.candidate_name in scores and value is not None:
            scores[run.candidate_name].append(float(value))
    return {candidate: round(sum(values) / len(values), 6) for candidate, values in scores.items() if values}


def resolve_rungs(study: StudySpec, store: Store, cache: Path | None = None) -> StudySpec:
    """The study as far as its screening is settled: the second rung once the first is done, else the first."""
    if not needs_screening(study):
        return study
    done = store.folder.is_dir() and len(mean_inner_losses(study, store)) == len(study.parsed_candidates)
    return second_rung(study, store, cache) if done else first_rung(study)


def make_probe_candidates(study: StudySpec) -> list[Candidate]:
    """Each candidate of the study as a probe, called `NAME probe`."""
    if study.sweep:
        raise SpecError(f"{study.source.name}: screening and sweep contradict each other; leave one of them out")
    logistic = parse_recipe("logistic", None)
    probes = []
    for candidate in study.parsed_candidates:
        no_network = candidate.table is not None
        if no_network or candidate.fusion or candidate.distillation or candidate.frozen or candidate.head.kind == "pretrained":
            raise SpecError(
                f"{study.source.name}: screening tries single backbones that are trained, and '{candidate.name}' is not one; "
                "leave it out, or leave screening out"
            )
        center_crop = candidate.recipe.center_crop
        changes = {
            "name": f"{candidate.name} probe",
            "frozen": True,
            "head": HeadSpec(),
            "recipe": logistic.with_changes(center_crop=center_crop).with_features_of(candidate.recipe),
        }
        probes.append(candidate.model_copy(update=changes))
    return probes


def make_full_candidates(study: StudySpec) -> list[Candidate]:
    """Each candidate of the study as the second rung trains it."""
    final_recipe = _screening_spec(study).final_recipe
    recipe = parse_recipe(final_recipe, study.parsed_recipe, study.source, ("screening", "final_recipe"))
    return [c.model_copy(update={"recipe": recipe}) for c in study.parsed_candidates]


def mean_inner_losses(study: StudySpec, store: Store) -> dict[str, float]:
    """Candidate → the first rung's loss on inner folds, mean over the splits; only candidates with every split done."""
    losses_by_probe: dict[str, list[float]] = {}
    for run in store.runs():
        losses = run.record.get("logistic", {}).get("inner_loss")
        if losses:
            losses_by_probe.setdefault(run.candidate_name, []).append(min(losses.values()))
    n_splits = max((len(losses) for losses in losses_by_probe.values()), default=0)
    scores = {c.name: losses_by_probe.get(f"{c.name} probe", []) for c in study.parsed_candidates}
    return {name: sum(losses) / len(losses) for name, losses in scores.items() if losses and len(losses) == n_splits}


def describe_rungs(
    study: StudySpec, unsettled: StudySpec | None = None, store: Store | None = None, cache: Path | None = None
) -> list[str]:
    """The screening in sentences, for the plan; none for a study without one.

    unsettled: the study before its rungs were resolved; given with the store, the second rung's longest duration is estimated
    """
    screening = study.screening
    if screening is None:
        return []
    rungs = study.context.screening_rungs
    final_recipe = _name_final_recipe(screening)
    lines = [f"screening, rung 1: {len(rungs[0]['tried'])} candidates, each by a logistic probe on every split"]
    if len(rungs) > 1:
        return [*lines, f"screening, rung 2: {join_words(rungs[1]['tried'])} by {final_recipe}; {rungs[1]['note']}"]
    longest = ""
    if unsettled is not None and store is not None:
        slowest = sorted(estimate_full_seconds(unsettled, store, cache).values())[-screening.keep :]
        longest = f", at most about {format_duration(sum(slowest))}"
    within = "" if screening.budget_h is None else f" that fit into {screening.budget_h:g} h (at least one)"
    best = f"the best {screening.keep} by {final_recipe}{within}{longest}"
    return [*lines, f"screening, rung 2: {best}, in addition to what follows; known after rung 1"]


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


def _name_final_recipe(screening: ScreeningSpec) -> str:
    return parse_recipe(screening.final_recipe).preset or "a recipe of its own"


def _replace_candidates(study: StudySpec, candidates: list[Candidate], rungs: list[dict[str, Any]]) -> StudySpec:
    return study.model_copy(update={"candidates": candidates}).with_context(screening_rungs=tuple(rungs))

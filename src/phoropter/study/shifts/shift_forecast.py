"""What evaluating on corrupted rows will take, in the words of `phoropter plan`. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from phoropter.core.durations import format_duration
from phoropter.core.files import digest
from phoropter.models import catalog
from phoropter.results.store import Store
from phoropter.study.forecasts.measured_speeds import load_measured_speeds, settle_device
from phoropter.study.plan import Plan, PlannedRun
from phoropter.study.shifts.asked_answers import AskedAnswers


@dataclass(frozen=True)
class ShiftForecast:
    """images: that networks will be shown, each corrupted version counted · seconds: what that takes · n_runs: to be evaluated
    n_levels: at most so many corrupted versions each · retrained: finished runs among them that are trained again, because their
    models were not kept
    """

    images: int = 0
    seconds: float = 0.0
    n_runs: int = 0
    n_levels: int = 0
    retrained: tuple[PlannedRun, ...] = ()


def forecast_shift(planned: Plan, store: Store, cache: Path, device: str = "cpu") -> ShiftForecast:
    """The cost of the answers that are missing, beside that of the missing runs; corrupting the rows is not counted."""
    asked, speeds, kind = AskedAnswers(planned, store.folder), load_measured_speeds(cache), settle_device(device)
    done = {run.key for run in planned.runs if run.key in store}
    waiting = [r for r in planned.runs if asked.can_answer(r) and (r.key not in done or asked.is_incomplete(r))]
    images, most, seconds, counted = 0, 0, 0.0, set[str]()
    for run in waiting:
        every = asked.list_corruptions(run.image_set)
        lacking = asked.find_missing(run, asked.find_folder(run.key)) if run.key in done else every
        levels, most = len(lacking), max(most, len(lacking))
        for backbone in () if run.candidate.is_ensemble else run.candidate.backbones:
            rows = len(run.split.test) * run.candidate.recipe.imbalance.n_bags
            if run.candidate.stores_features:  # a pass that all its splits, heads and seeds share
                own = run.split.seed if backbone.depends_on_seed else 0
                name = digest([run.image_set.identity, backbone.plain(), own, run.candidate.recipe.center_crop])
                rows = 0 if name in counted else len(asked.list_tested_rows(run.image_set))
                counted.add(name)
            images += rows * levels
            seconds += rows * levels * speeds.image_seconds(backbone, catalog.resolve_side(backbone, planned.study.base), kind)
    retrained = tuple(r for r in waiting if r.key in done and _has_no_model(r, store))
    return ShiftForecast(images, seconds, len(waiting), most, retrained)


def describe_shift(planned: Plan, store: Store, cache: Path, device: str = "cpu") -> list[str]:
    """Lines of the plan; none for a study without `shift`."""
    if planned.study.shift is None:
        return []
    forecast = forecast_shift(planned, store, cache, device)
    if not forecast.n_runs:
        return ["shift: all runs that can answer have answered for all corrupted versions of the test rows"]
    levels = f"{forecast.n_levels} corrupted version{'s' if forecast.n_levels > 1 else ''} of the test rows"
    lines = [
        f"shift: {forecast.n_runs} runs answer for {levels}: {forecast.images:,} images through networks, about "
        f"{format_duration(forecast.seconds)} beside the time above"
    ]
    if forecast.retrained:
        lines.append(
            f"shift: {len(forecast.retrained)} finished runs are trained again for it, because their models were not kept "
            "(save_models: all keeps them)"
        )
    return lines


def _has_no_model(run: PlannedRun, store: Store) -> bool:
    table = run.candidate.table
    is_network = not run.candidate.is_ensemble if table is None else table.is_signal_network
    return is_network and store.run(run.key).bundle_folder is None

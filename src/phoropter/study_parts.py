"""Parts of a study file, read and run one after another: what several commands share."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phoropter.console import make_console, make_warning_console, print_line, print_results

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from phoropter.core.errors import DataError, StoreError, UserError, WeightsError
    from phoropter.report.render.kept_report import WrittenReport
    from phoropter.results.store import Store
    from phoropter.study.plan import Plan
    from phoropter.study.scheduling.time_budget import TimeBudget
    from phoropter.study.spec import StudySpec


def trust_if(trust_code: bool, study: str = "") -> AbstractContextManager[None]:
    """Within it, `module:NAME` is imported if `trust_code`, from the study file's folder (default: the current one) first."""
    if not trust_code:
        return nullcontext()
    from phoropter.core import extensions

    return extensions.trust_code(Path(study).expanduser().resolve().parent if study and Path(study).exists() else None)


@contextmanager
def trust_results_if(trust_code: bool, *folders: Path) -> Iterator[None]:
    """Within it, `module:NAME` is imported if `trust_code`: from the current folder, then from those of the results' studies.

    folders: results folders, or run folders and bundles inside them. What their study.json says is trusted by `trust_code` alone.
    """
    from phoropter.core import extensions

    with ExitStack() as stack:
        if trust_code:
            for folder in folders:
                if study_folder := _recorded_study_folder(folder):
                    stack.enter_context(extensions.trust_code(study_folder))
            stack.enter_context(extensions.trust_code())
        yield


def _recorded_study_folder(folder: Path) -> Path | None:
    """The folder of the study file, as the run wrote it; None where it is not recorded or is no longer there."""
    from phoropter.core.errors import StoreError
    from phoropter.results.store import Store

    here = folder.resolve()
    results = next((p for p in (here, *here.parents[:3]) if (p / "study.json").is_file()), here)
    try:
        recorded = Store(results).study.get("study_folder")
    except StoreError:  # the command itself says what is wrong with the folder
        return None
    place = Path(recorded) if isinstance(recorded, str) else Path()
    return place if place.is_absolute() and place.is_dir() else None


def warn_of_missing_metrics(*folders: Path) -> None:
    """Prints a line to stderr for each custom metric whose code was not at hand when the report of these folders was written."""
    import click

    from phoropter.core.extensions import is_code_trusted
    from phoropter.results.metrics.registry import METRICS
    from phoropter.results.store import Store

    described = {str(d["name"]): d for folder in folders for d in Store(folder).study.get("custom_metrics", ())}
    for name, entry in described.items():
        if reason := METRICS[name].unavailable:
            reference = entry.get("reference")
            hint = f"; say --trust-code if you have read {reference}" if reference and not is_code_trusted() else ""
            click.echo(f"warning: {reason}: its recorded values are shown without intervals{hint}", err=True)


def check_device(device: str) -> None:
    """Raises SpecError for a device that is not there. Planning loads no torch for `auto` and `cpu`, which always are."""
    if device not in ("auto", "cpu"):
        from phoropter.training.loop.devices import resolve_device

        resolve_device(device)


def read_parts(
    study: str, out: Path | None, smoke: bool, settings: Sequence[str] = (), only: Sequence[str] = ()
) -> list[tuple[StudySpec, Path]]:
    """The parts of a study, each with its results folder. settings: of `--set`, KEY=VALUE each · only: of `--part`; (): all"""
    from phoropter.study.smoke_scale import make_smoke_version
    from phoropter.study.spec import read_study

    parts = read_study(study, settings, only)
    default = Path("runs") / (Path(study).stem if len(parts) > 1 else parts[0].name)
    if smoke:
        default = default.with_name(default.name + "-smoke")
    folder = out or default
    placed = [(part, folder / part.name if len(parts) > 1 else folder) for part in parts]
    kept = _choose_parts(placed, only) if only else placed
    return [(make_smoke_version(part) if smoke else part, place) for part, place in kept]


def _choose_parts(parts: list[tuple[StudySpec, Path]], names: Sequence[str]) -> list[tuple[StudySpec, Path]]:
    """Those of some names; a part under two protocols has the name of both. Raises SpecError for a name that none has."""
    from phoropter.core.errors import SpecError, did_you_mean, join_words

    known = {part.name: {part.name, part.context.compared_study or part.name} for part, _ in parts}
    for name in names:
        if not any(name in of for of in known.values()):
            hint = did_you_mean(name, known) or f"; its parts are {join_words(known)}"
            raise SpecError(f"--part {name or repr(name)}: the study has no such part{hint}")
    return [(part, folder) for part, folder in parts if known[part.name].intersection(names)]


def describe_other_study(store: Store, planned: Plan) -> StoreError | None:
    """The error with which `run` would refuse a results folder that holds another study; None where it would not."""
    from phoropter.core.errors import StoreError
    from phoropter.study.records.other_study import raise_on_other_study

    try:
        earlier = store.study if (store.folder / "study.json").exists() else {}
    except StoreError:  # `run` says what is wrong with it, and writes it anew
        return None
    try:
        raise_on_other_study(earlier, planned, store)
    except StoreError as error:
        return error
    return None


def compare_parts(one: Path, other: Path) -> None:
    """Writes the comparison of two parts into the folder that holds both; does nothing where one has no finished run."""
    from phoropter.report.comparison_page import write_comparison_page
    from phoropter.results.store import Store

    if not all(any(True for _ in Store(folder).runs()) for folder in (one, other)):
        return
    to, page = make_console(), write_comparison_page(one, other, one.parent / "report")
    print_line(to, "\n" + (page.parent / "conclusion.txt").read_text(encoding="utf-8").strip())
    print_line(to, f"\nreport: {page}")


def for_each_part(parts: list[tuple[StudySpec, Path]], action: Callable[[StudySpec, Path], Any]) -> list[Any]:
    """Applies an action to every part. Raises for parts whose data or weights cannot be used after the others are done."""
    from phoropter.core.errors import DataError, WeightsError

    results: list[Any] = []
    errors: dict[str, DataError | WeightsError] = {}
    for part, folder in parts:
        try:
            results.append(action(part, folder))
        except (DataError, WeightsError) as error:
            errors[part.name] = error
    if errors:
        raise next(iter(errors.values())) if len(parts) == 1 else _join_errors(errors, len(parts))
    return results


def _join_errors(errors: Mapping[str, DataError | WeightsError], count: int) -> UserError:
    """The first error of several of `count` parts, with the one command that fetches the weights that any of them misses."""
    from phoropter.core.errors import DataError, WeightsError
    from phoropter.models.weights.weight_files import explain_fetching
    from phoropter.study.variants.unusable_weights import UnusableWeightsError

    (name, first), *others = errors.items()
    missing = [e.missing if isinstance(e, UnusableWeightsError) else () for e in errors.values()]
    names = list(dict.fromkeys(chain.from_iterable(missing)))
    more = f" (and {len(others)} more of {count} parts)" if others else ""
    remedy = f"; for the weights of all parts {explain_fetching(names)}" if len(names) > len(missing[0]) else ""
    kind = DataError if isinstance(first, DataError) else WeightsError
    return kind(f"part {name}: {first}{more}{remedy}")


@dataclass(frozen=True)
class HowToRun:
    """Where and how a study runs, as the options of `run` say.

    add: also into a folder of another study · keys: of the runs to compute; None: all · places: fields of executors.Places
    budget: of time, which all parts of a study share
    """

    device: str = "auto"
    jobs: int = 1
    add: bool = False
    keys: frozenset[str] | None = None
    places: Mapping[str, Any] = field(default_factory=dict)
    budget: TimeBudget | None = None

    @property
    def takes_any_place(self) -> bool:
        """Whether it says nothing that a folder which holds all runs would have to be checked against."""
        here = self.places.get("devices") is None and self.places.get("executor", "local") == "local"
        return here and self.device in ("auto", "cpu") and self.keys is None


def run_and_report(study: StudySpec, folder: Path, how: HowToRun) -> int:
    """Runs one study and writes its report; returns how many runs failed.

    Of a folder that holds all of it, nothing is loaded that computes, and a page that is up to date is not written again.
    Raises BudgetSpent once the report of what was finished in time is written.
    """
    from phoropter.core.files import cache_dir
    from phoropter.report.render.kept_report import keep_report, read_kept_report
    from phoropter.results.store import Store
    from phoropter.study.progress import describe_failures
    from phoropter.study.records.completion import is_complete
    from phoropter.training.loop.stop_signals import BudgetSpent

    to, store = make_console(), Store(folder)
    for change in study.context.smoke_changes:
        print_line(to, f"smoke test: {change}")
    spent: BudgetSpent | None = None
    if not (how.takes_any_place and is_complete(study, store, cache_dir(folder))):
        try:
            _execute_with_progress(study, folder, how)
        except BudgetSpent as stop:
            spent = stop
    failures = store.read_failures()
    for line in describe_failures(failures.values()):
        print_line(make_warning_console(), line)
    if (store.folder / "study.json").exists() and any(True for _ in store.runs()):
        if (written := read_kept_report(folder)) is None:
            written, is_final = _write_report_with_maps(folder)
            if is_final:
                keep_report(folder, written)
        print_results(to, written)
        if study.save_models != "none" and not failures and not spent and not _is_led_by_table(study, written):
            print_line(
                to, f"next: phoropter refit {folder} -o BUNDLE makes one classifier of the first candidate, trained on all rows"
            )
    if spent is not None:
        raise spent
    return len(failures)


def _is_led_by_table(study: StudySpec, written: WrittenReport) -> bool:
    """Whether the first of the leaderboard, or a member of it, has no network of pictures (baseline, metadata …)."""
    from phoropter.study.variants.sweep import SETTINGS_MARK

    tables = {c.name: c.table.kind_word for c in study.parsed_candidates if c.table is not None}
    averages = (c.name for c in study.parsed_candidates if c.is_ensemble and not tables.keys().isdisjoint(c.members))
    refused = {*tables, *averages, *(f"{name} ({kind})" for name, kind in tables.items())}
    return str(written.leaderboard.rows[0].values[0]).partition(SETTINGS_MARK)[0] in refused


def _execute_with_progress(study: StudySpec, folder: Path, how: HowToRun) -> None:
    from phoropter.core.files import cache_dir
    from phoropter.core.processes.garbage import importing_for_good

    with importing_for_good():
        from phoropter.study import executors
        from phoropter.study.display.progress_bars import show_progress
        from phoropter.study.loggers import attach_loggers
        from phoropter.study.worker import ComputeOptions

    with show_progress(study.name, make_console()) as bars, attach_loggers(bars, study.name, folder) as on_progress:
        options = ComputeOptions(how.device, add=how.add, keys=how.keys, folds_first=how.budget is not None)
        cache = cache_dir(folder)
        executor = executors.make_executor(options, cache, executors.Places(how.jobs, **how.places))
        executors.execute_study(study, folder, on_progress, cache=cache, executor=executor, budget=how.budget)


def _write_report_with_maps(folder: Path) -> tuple[WrittenReport, bool]:
    """Writes the page with maps of its first candidate, which are computed where they are not those of today's results.

    Returns also whether the same results will give the same page, and not maps that could not be computed today.
    """
    from phoropter.report.page import create_report, read_report_input
    from phoropter.report.sections.predictions.leader_maps import await_maps, has_current_maps

    inputs = read_report_input(folder)
    if not has_current_maps(folder, inputs.summary):
        from phoropter.refit.leader_maps import compute_leader_maps

        compute_leader_maps(inputs.store, inputs.summary)
    return create_report(inputs), not await_maps(folder)

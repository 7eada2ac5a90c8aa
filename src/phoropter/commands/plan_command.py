"""`phoropter plan`: what a study would compute, for a reader or as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from phoropter.commands.options import (
    StudyName,
    add_option,
    device_option,
    json_option,
    out_option,
    part_option,
    set_option,
    smoke_option,
    trust_option,
    write_document,
)
from phoropter.console import make_console, make_text_table, make_warning_console, print_line, print_plan
from phoropter.study_parts import check_device, describe_other_study, for_each_part, read_parts, trust_if

if TYPE_CHECKING:
    from phoropter.commands.json_shapes import PlannedPart
    from phoropter.study.measuring.measured_plan import MeasuredPlan
    from phoropter.study.spec import StudySpec


@click.command("plan")
@click.argument("study", type=StudyName())
@out_option
@smoke_option
@device_option
@add_option
@set_option
@part_option
@json_option
@click.option("--measure", is_flag=True, help="Time a few real batches of each network, for this process, -j N and GPUs.")
@trust_option
def plan_command(study: str, out: Path | None, smoke: bool, device: str, add: bool, as_json: bool, **others: Any) -> None:
    """Show what STUDY would compute, what is computed already, and about how long it takes.

    With --measure, a few batches of each network are computed on real pictures. Their speeds are kept for later plans.
    """
    from phoropter.data.stores.store_copy import ask_stores_once

    check_device(device)

    def describe_part(part: StudySpec, folder: Path) -> PlannedPart | None:
        how = HowToPlan(device, add, out is not None, as_json, others["measure"])
        return _describe_part(part, folder, how)

    with trust_if(others["trust_code"], study), ask_stores_once():
        parts = read_parts(study, out, smoke, others["settings"], others["only"])
        described = for_each_part(parts, describe_part)
    if as_json:
        import phoropter
        from phoropter.commands.json_shapes import PlanDocument

        write_document(PlanDocument(phoropter=phoropter.__version__, parts=tuple(described)))


@dataclass(frozen=True)
class HowToPlan:
    """stated: whether the results folder was named · others: as the options of `plan`"""

    device: str
    add: bool
    stated: bool
    as_json: bool
    measure: bool


def _describe_part(part: StudySpec, folder: Path, how: HowToPlan) -> PlannedPart | None:
    """Prints the plan of a part, or returns it for JSON."""
    from phoropter.core.files import cache_dir
    from phoropter.results.store import Store
    from phoropter.study import screening
    from phoropter.study.audit import check_leakage
    from phoropter.study.controls.control_folders import describe_controls
    from phoropter.study.cost import estimate_resources
    from phoropter.study.plan import plan_study
    from phoropter.study.shifts.shift_forecast import describe_shift
    from phoropter.study.variants.imported_candidates import add_imported

    part = add_imported(part, folder)
    store, cache, to = Store(folder), cache_dir(folder), make_console(answer=True)
    settled = screening.resolve_rungs(part, store, cache)
    for line in () if how.as_json else screening.describe_rungs(settled, part, store, cache):
        print_line(to, line)
    planned = plan_study(settled, cache)
    other = None if how.add else describe_other_study(store, planned)
    if other and how.stated:
        raise other
    findings = check_leakage(planned, cache)
    measured = None
    if how.measure:
        from phoropter.study.measuring.measured_plan import measure_missing_runs

        measured = measure_missing_runs(planned, store, cache, how.device)
    cost = measured.cost if measured else estimate_resources(planned, store, cache, how.device)
    if how.as_json:
        from phoropter.commands.json_documents import describe_planned_part

        return describe_planned_part(planned, store, cost, findings, other)
    for finding in findings:
        print_line(make_warning_console(), f"{finding.severity}: {finding.words}")
    print_plan(to, planned, cost, store)
    if measured:
        _print_measured(measured)
    for line in describe_shift(planned, store, cache, how.device):
        print_line(to, line)
    for line in describe_controls(settled, folder, cache, how.device):
        print_line(to, line)
    if other:  # the folder was not named here, so the plan may be all that is wanted
        print_line(make_warning_console(), f"run would stop: {other}")
    return None


def _print_measured(measured: MeasuredPlan) -> None:
    """A row for each place where the missing runs may be computed."""
    from phoropter.core.durations import format_duration
    from phoropter.core.files import format_bytes

    to = make_console(answer=True)
    for problem in measured.problems:
        print_line(make_warning_console(), f"not measured: {problem}")
    table = make_text_table(("phoropter run", "about"), ("from", "to", "processes", "memory of each"))
    for place in measured.places:
        times = (format_duration(seconds) for seconds in (place.seconds, place.low, place.high))
        table.add_row(place.words or "(this process)", *times, str(place.processes), format_bytes(place.memory_bytes))
    print_line(to, f"measured in {format_duration(measured.took_s)}, by a few batches of each network:")
    to.print(table)
    if any(place.processes > 1 for place in measured.places):
        print_line(to, "not counted: that several processes slow one another by sharing memory, caches and the disk")
    print_line(to, f"disk: about {format_bytes(measured.result_bytes)} of results, beside the above")

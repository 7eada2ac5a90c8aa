"""`phoropter plan`: what a study would compute, for a reader or as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from phoropter.commands.options import (
    StudyName,
    add_option,
    device_option,
    json_option,
    out_option,
    set_option,
    smoke_option,
    trust_option,
    write_document,
)
from phoropter.console import make_console, make_warning_console, print_line, print_plan
from phoropter.study_parts import check_device, describe_other_study, for_each_part, read_parts, trust_if

if TYPE_CHECKING:
    from phoropter.commands.json_shapes import PlannedPart
    from phoropter.study.spec import StudySpec


@click.command("plan")
@click.argument("study", type=StudyName())
@out_option
@smoke_option
@device_option
@add_option
@set_option
@json_option
@trust_option
def plan_command(
    study: str, out: Path | None, smoke: bool, device: str, add: bool, settings: tuple[str, ...], as_json: bool, trust_code: bool
) -> None:
    """Show what STUDY would compute, what is computed already, and about how long it takes."""
    check_device(device)

    def describe_part(part: StudySpec, folder: Path) -> PlannedPart | None:
        return _describe_part(part, folder, device, add, stated=out is not None, as_json=as_json)

    with trust_if(trust_code, study):
        described = for_each_part(read_parts(study, out, smoke, settings), describe_part)
    if as_json:
        import phoropter
        from phoropter.commands.json_shapes import PlanDocument

        write_document(PlanDocument(phoropter=phoropter.__version__, parts=tuple(described)))


def _describe_part(part: StudySpec, folder: Path, device: str, add: bool, *, stated: bool, as_json: bool) -> PlannedPart | None:
    """Prints the plan of a part, or returns it for JSON. stated: whether the results folder was named"""
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
    for line in () if as_json else screening.describe_rungs(settled, part, store, cache):
        print_line(to, line)
    planned = plan_study(settled, cache)
    other = None if add else describe_other_study(store, planned)
    if other and stated:
        raise other
    findings = check_leakage(planned, cache)
    cost = estimate_resources(planned, store, cache, device)
    if as_json:
        from phoropter.commands.json_documents import describe_planned_part

        return describe_planned_part(planned, store, cost, findings, other)
    for finding in findings:
        print_line(make_warning_console(), f"{finding.severity}: {finding.words}")
    print_plan(to, planned, cost, store)
    for line in describe_shift(planned, store, cache, device):
        print_line(to, line)
    for line in describe_controls(settled, folder, cache, device):
        print_line(to, line)
    if other:  # the folder was not named here, so the plan may be all that is wanted
        print_line(make_warning_console(), f"run would stop: {other}")
    return None

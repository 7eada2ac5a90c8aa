"""`phoropter status` and `phoropter report`: a results folder, for a reader or as JSON."""

from __future__ import annotations

from pathlib import Path

import click

from phoropter.commands.options import ResultsPlace, json_option, trust_option, write_document
from phoropter.console import make_console, print_line
from phoropter.study_parts import trust_results_if, warn_of_missing_metrics


@click.command("status")
@click.argument("folder", type=ResultsPlace())
@json_option
def status_command(folder: Path, as_json: bool) -> None:
    """Show how many runs are done, running, failed and missing in a results FOLDER."""
    from phoropter.report.sections.study.provenance import describe_unplanned_runs
    from phoropter.results.preparation import describe_preparation
    from phoropter.results.store import Store
    from phoropter.study.progress import describe_damaged_runs, describe_failures, make_status_table

    store = Store(folder)
    preparation = describe_preparation(folder)
    is_planned = (folder / "study.json").exists() or not preparation
    if as_json:
        from phoropter.commands.json_documents import make_status_document

        write_document(make_status_document(folder, preparation, is_planned))
        return
    to = make_console(answer=True)
    if preparation:
        print_line(to, f"{folder}: {preparation}")
    if not is_planned:
        print_line(to, "the runs are listed when the images are ready")
        return
    to.print(make_status_table(store))
    for line in describe_damaged_runs(store):
        print_line(to, line)
    if others := describe_unplanned_runs(store):
        print_line(to, f"not read: {others}")
    for line in describe_failures(store.read_failures().values()):
        print_line(to, line)


@click.command("report")
@click.argument("folder", type=ResultsPlace())
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The page (default: FOLDER/report/index.html).")
@click.option("--section", "sections", multiple=True, help="A section of your own, as module:NAME; needs --trust-code.")
@click.option("--maps", is_flag=True, help="First compute where the leader looked, as `run` does at its end.")
@json_option
@trust_option
def report_command(
    folder: Path, out: Path | None, sections: tuple[str, ...], maps: bool, as_json: bool, trust_code: bool
) -> None:
    """Write one page, and its tables and figures, from a results FOLDER."""
    from phoropter.report.custom_section import load_section
    from phoropter.report.page import create_report, read_report_input
    from phoropter.study.progress import describe_damaged_runs

    with trust_results_if(trust_code, folder):
        own = [load_section(name) for name in sections]
        inputs = read_report_input(folder)
        if maps:
            from phoropter.refit.leader_maps import compute_leader_maps

            if reason := compute_leader_maps(inputs.store, inputs.summary):
                print_line(make_console(stderr=as_json), f"no maps of the leader: {reason}")
        written = create_report(inputs, out, own)
        if as_json:
            from phoropter.commands.json_documents import make_report_document

            write_document(make_report_document(written))
        else:
            print_line(make_console(), f"report: {written.page}")
        for line in describe_damaged_runs(inputs.store):
            print_line(make_console(stderr=True, answer=True), f"not in the report: {line}")
        warn_of_missing_metrics(folder)

"""The command line. What a study is made of goes into the study file, not into flags.

Everything heavier than click is imported inside the command that needs it.

Exit codes: 0 done · 1 a run failed, or a fault of ours, with a traceback · 2 a user's mistake, in one line · 3 no room, no
permission or no memory · 130, 143, 129 stopped by Ctrl-C (SIGINT), SIGTERM, SIGHUP. After 3 and above the same command goes on.
"""

from __future__ import annotations

import itertools
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from phoropter import __version__
from phoropter.bundle_commands import device_option, predict_command, refit_command, trust_option
from phoropter.console import (
    format_large_count,
    make_console,
    make_text_table,
    print_line,
    print_plan,
    print_protocol_gap,
)
from phoropter.core.cpu_count import count_usable_cores
from phoropter.explain_command import explain_command
from phoropter.export_command import export_command
from phoropter.serve_command import serve_command
from phoropter.study_parts import (
    check_device,
    compare_parts,
    for_each_part,
    read_parts,
    run_and_report,
    trust_if,
    trust_results_if,
    warn_of_missing_metrics,
)

if TYPE_CHECKING:
    from phoropter.study.spec import StudySpec

# Waiting threads must not spin on a core that others need: measured 4 times faster on a busy machine, no slower on an idle one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

out_option = click.option("-o", "--out", type=click.Path(path_type=Path), help="Results folder (default: runs/NAME).")
smoke_option = click.option(
    "--smoke", is_flag=True, help="A small version of the study, of about ten minutes, to test that it runs."
)
add_option = click.option("--add", is_flag=True, help="Write into a results folder that holds another study; its runs stay.")
jobs_option = click.option("-j", "--jobs", type=click.IntRange(1, 256), default=1, help="Processes that compute runs at once.")


_WHAT_IS_KEPT = "finished runs and checkpoints are kept, and the same command goes on from here"


class _ErrorReportingGroup(click.Group):
    """Turns errors raised on purpose into one line."""

    def invoke(self, ctx: click.Context) -> Any:
        from phoropter.core.errors import PhoropterError

        try:
            return super().invoke(ctx)
        except PhoropterError as error:
            click.echo(f"phoropter: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt as stop:  # a StopRequest, where a study was running, says which signal it was
            signal_name = f" by {stop.signal_name}" if hasattr(stop, "signal_name") else ""
            with suppress(OSError):  # the terminal may be gone
                click.echo(f"\nphoropter: stopped{signal_name}; {_WHAT_IS_KEPT}", err=True)
            ctx.exit(getattr(stop, "exit_code", 130))
        except BrokenPipeError:  # `phoropter … | head`
            sys.stderr.close()
            ctx.exit(0)


@click.group(cls=_ErrorReportingGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", message="phoropter %(version)s")
def main() -> None:
    """Which pretrained vision backbone sees your pictures best?

    Declare a study in a YAML file, or name a shipped one; `run` computes it, `report` writes one page.
    """


main.add_command(refit_command)
main.add_command(predict_command)
main.add_command(explain_command)
main.add_command(serve_command)
main.add_command(export_command)


@main.command()
@click.argument("study")
@out_option
@smoke_option
@device_option
@add_option
@trust_option
def plan(study: str, out: Path | None, smoke: bool, device: str, add: bool, trust_code: bool) -> None:
    """Show what STUDY would compute, what is computed already, and about how long it takes."""
    from phoropter.core.files import cache_dir
    from phoropter.results.store import Store
    from phoropter.study import screening
    from phoropter.study.audit import check_leakage
    from phoropter.study.cost import estimate_resources
    from phoropter.study.plan import plan_study
    from phoropter.study_parts import describe_other_study

    to = make_console()
    check_device(device)

    def print_part(part: StudySpec, folder: Path) -> None:
        store, cache = Store(folder), cache_dir(folder)
        settled = screening.resolve_rungs(part, store, cache)
        for line in screening.describe_rungs(settled, part, store, cache):
            print_line(to, line)
        planned = plan_study(settled, cache)
        other = None if add else describe_other_study(store, planned)
        if other and out:
            raise other
        for finding in check_leakage(planned, cache):
            print_line(to, f"{finding.severity}: {finding.words}")
        print_plan(to, planned, estimate_resources(planned, store, cache, device), store)
        if other:  # the folder was not named here, so the plan may be all that is wanted
            print_line(to, f"run would stop: {other}")

    with trust_if(trust_code, study):
        for_each_part(read_parts(study, out, smoke), print_part)


@main.command()
@click.argument("study")
@out_option
@smoke_option
@device_option
@jobs_option
@add_option
@trust_option
def run(study: str, out: Path | None, smoke: bool, device: str, jobs: int, add: bool, trust_code: bool) -> None:
    """Compute what is missing of STUDY, then write its report. Stop it at any time; the same command resumes.

    Exit codes: 0 done; 1 a run failed; 2 the study cannot be run as it is; 3 the disk is full or read-only, or memory is short:
    free some, and the same command goes on; 130, 143 or 129 it was stopped by Ctrl-C, SIGTERM or SIGHUP.
    """
    from phoropter.training.loop.stop_signals import handle_stop_signals

    with handle_stop_signals(), trust_if(trust_code, study):
        parts = read_parts(study, out, smoke)
        failed = sum(for_each_part(parts, lambda part, folder: run_and_report(part, folder, device, jobs, add)))
        for (one, folder), (other, other_folder) in itertools.pairwise(parts):
            if one.context.compared_study and one.context.compared_study == other.context.compared_study:
                compare_parts(folder, other_folder)
    if failed:
        sys.exit(1)


@main.command()
@click.option("--signals", type=click.Choice(["ecg", "ctg"]), help="Simulated recordings, split at random and by person.")
@out_option
@device_option
@click.option("-j", "--jobs", type=click.IntRange(1, 256), default=lambda: min(4, count_usable_cores()), help="Processes.")
def demo(signals: str | None, out: Path | None, device: str, jobs: int) -> None:
    """A complete study in about a minute: handwritten digits, a small CNN and a small ViT, probed and fine-tuned.

    With --signals, two studies in about two minutes: the same candidates with windows split at random and with people or births
    held out, and the gap between the two results.
    """
    from phoropter.training.loop.stop_signals import handle_stop_signals

    name = f"{signals}-simulated" if signals else "digits"
    parts = read_parts(name, out or Path("runs") / (f"demo-{signals}" if signals else "demo"), smoke=False)
    with handle_stop_signals():
        failed = sum(run_and_report(part, folder, device, jobs) for part, folder in parts)
    if failed:
        sys.exit(1)
    if signals:
        from phoropter.results.store import Store

        print_protocol_gap(make_console(), *(Store(folder) for _, folder in parts))
        compare_parts(parts[0][1], parts[1][1])


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
def status(folder: Path) -> None:
    """Show how many runs are done, running, failed and missing in a results FOLDER."""
    from phoropter.results.preparation import describe_preparation
    from phoropter.results.store import Store
    from phoropter.study.progress import describe_damaged_runs, make_status_table

    store = Store(folder)
    to = make_console()
    preparation = describe_preparation(folder)
    if preparation:
        print_line(to, f"{folder}: {preparation}")
    if preparation and not (folder / "study.json").exists():
        print_line(to, "the runs are listed when the images are ready")
        return
    to.print(make_status_table(store))
    for line in describe_damaged_runs(store):
        print_line(to, line)
    for note in store.read_failures().values():
        print_line(to, f"failed: {note['candidate']} · {note['split']}: {note['error']}")


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The page (default: FOLDER/report/index.html).")
@click.option("--section", "sections", multiple=True, help="A section of your own, as module:NAME; needs --trust-code.")
@click.option("--maps", is_flag=True, help="First compute where the leader looked, as `run` does at its end.")
@trust_option
def report(folder: Path, out: Path | None, sections: tuple[str, ...], maps: bool, trust_code: bool) -> None:
    """Write one page, and its tables and figures, from a results FOLDER."""
    from phoropter.report.custom_section import load_section
    from phoropter.report.page import write_report

    with trust_results_if(trust_code, folder):
        if maps:
            from phoropter.refit.leader_maps import compute_leader_maps

            if reason := compute_leader_maps(folder):
                click.echo(f"no maps of the leader: {reason}")
        click.echo(f"report: {write_report(folder, out, sections=[load_section(name) for name in sections])}")
        warn_of_missing_metrics(folder)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("other", type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="The page (default: FOLDER/report/comparison-with-OTHER/index.html)."
)
@trust_option
def compare(folder: Path, other: Path, out: Path | None, trust_code: bool) -> None:
    """Write one page that compares the results of two studies, FOLDER and OTHER."""
    from phoropter.report.comparison_page import write_comparison_page

    with trust_results_if(trust_code, folder, other):
        click.echo(f"report: {write_comparison_page(folder, other, out)}")
        warn_of_missing_metrics(folder, other)


@main.command()
@click.argument("study")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), default=Path("folds.csv"), help="The CSV file (default: folds.csv)."
)
@trust_option
def folds(study: str, out: Path, trust_code: bool) -> None:
    """Write the splits of STUDY to a CSV file (id, seed, repeat, fold, part), which `protocol: {split: file}` reads."""
    from phoropter.data.spec import open_dataset
    from phoropter.data.splits.protocol import write_folds_file

    with trust_if(trust_code, study):
        parts = read_parts(study, None, smoke=False)
        for part, _ in parts:
            file = out.with_name(f"{out.stem}-{part.name}{out.suffix}") if len(parts) > 1 else out
            count = write_folds_file(open_dataset(part.data, part.base), part.protocol, file, part.base)
            click.echo(f"written: {file} ({count} splits)")


@main.command()
@click.argument("study")
@click.option("--port", type=click.IntRange(0, 65535), default=8350, help="On this machine; 0: any free one.")
def serve_report(study: str, port: int) -> None:
    """Serve the report of STUDY on this machine while it runs: a results folder, a study file, or the name of a shipped study."""
    from phoropter.report.live import server

    folder = Path(study)
    if not folder.is_dir():
        parts = read_parts(study, None, smoke=False)
        folder = parts[0][1].parent if len(parts) > 1 else parts[0][1]
    server.serve_report(folder, port, click.echo)


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--preview", type=click.Path(path_type=Path), help="Write a sheet of windows and their traces (recordings only).")
def inspect(path: Path, preview: Path | None) -> None:
    """Describe the images or recordings at PATH: counts per class, group and site, sizes or durations, problems."""
    from phoropter.data.inspect import detect_data_spec, summarize_dataset
    from phoropter.data.spec import open_dataset
    from phoropter.data.unit_names import name_units

    spec = detect_data_spec(path)
    dataset = open_dataset(spec)
    print_line(make_console(), str(summarize_dataset(dataset, words=name_units(spec, dataset))))
    if preview is not None:
        from phoropter.data.recordings.contact_sheet import write_contact_sheet

        print_line(make_console(), f"preview: {write_contact_sheet(dataset, preview)}")


@main.command()
@click.argument("pattern", default="*")
def backbones(pattern: str) -> None:
    """List networks whose name matches PATTERN (like 'resnet*'): parameters, multiply-adds, input size."""
    from phoropter.core.errors import SpecError, did_you_mean
    from phoropter.models import catalog

    names = catalog.list_architectures(pattern)
    if not names:
        raise SpecError(f"no backbone matches '{pattern}'{did_you_mean(pattern.strip('*'), catalog.list_architectures('*'))}")
    table = make_text_table(("name",), ("parameters", "multiply-adds", "side", "width"))
    for name in names:
        entry = catalog.find_architecture(name)
        numbers = [
            format_large_count(entry.parameters),
            format_large_count(entry.macs),
            str(entry.side),
            str(entry.num_features or ""),
        ]
        table.add_row(name, *numbers)
    make_console().print(table)


@main.command()
def studies() -> None:
    """List the studies that come with phoropter."""
    from phoropter.study.spec import list_shipped_studies, read_study

    to = make_console()
    for name in list_shipped_studies():
        parts = read_study(name)
        to.print(f"[bold]{name}[/bold]", highlight=False)
        about = parts[0].about
        if about:
            for label, text in (("source", about.source), ("expect", about.expect), ("time", about.time), ("data", about.data)):
                if text:
                    print_line(to, f"    {label}: {text}")
        for part in parts if len(parts) > 1 else ():
            print_line(to, f"    part {part.name}: {len(part.parsed_candidates)} candidates")


@main.command()
def doctor() -> None:
    """Check this installation: versions, devices, caches, torchvision's operators."""
    from phoropter.core.files import cache_dir
    from phoropter.models import timm_compat

    to = make_console()
    for name, value in {**timm_compat.describe_installation(), "cache": str(cache_dir())}.items():
        print_line(to, f"{name}: {value}")

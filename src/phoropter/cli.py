"""The command line. What a study is made of goes into the study file, not into flags.

Everything heavier than click is imported inside the command that needs it.

Exit codes: 0 done · 1 a run failed, or a fault of ours, with a traceback · 2 a user's mistake, in one line · 3 no room, no
permission or no memory · 130, 143, 129 stopped by Ctrl-C (SIGINT), SIGTERM or a spent --budget, SIGHUP. After 3 and above the
same command goes on.
"""

from __future__ import annotations

import itertools
import os
import sys
import traceback
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from phoropter import __version__
from phoropter.bundle_commands import predict_command, refit_command
from phoropter.commands.completion_command import completion_command
from phoropter.commands.init_command import init_command
from phoropter.commands.listing_commands import (
    backbones_command,
    doctor_command,
    inspect_command,
    schema_command,
    studies_command,
)
from phoropter.commands.options import (
    StudyName,
    add_option,
    device_option,
    out_option,
    part_option,
    places_options,
    set_option,
    smoke_option,
    trust_option,
)
from phoropter.commands.plan_command import plan_command
from phoropter.commands.results_commands import report_command, status_command
from phoropter.commands.verbosity import add_verbosity_options
from phoropter.commands.weights_command import weights_command
from phoropter.console import is_verbose, make_console, print_line, print_protocol_gap, set_verbosity
from phoropter.core.cpu_count import count_usable_cores
from phoropter.core.language.unit_words import SPLIT
from phoropter.explain_command import explain_command
from phoropter.export_command import export_command
from phoropter.import_command import import_command
from phoropter.operation_commands import (
    cancel_command,
    gc_command,
    merge_command,
    pack_command,
    retry_command,
    submit_command,
    verify_results_command,
)
from phoropter.serve_command import serve_command
from phoropter.study_parts import (
    HowToRun,
    compare_parts,
    for_each_part,
    read_parts,
    run_and_report,
    trust_if,
    trust_results_if,
    warn_of_missing_metrics,
)

# Waiting threads must not spin on a core that others need: measured 4 times faster on a busy machine, no slower on an idle one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


_WHAT_IS_KEPT = "; finished runs and checkpoints are kept, and the same command goes on from here"
_COMMANDS_THAT_GO_ON = ("run", "demo", "retry")


class _ErrorReportingGroup(click.Group):
    """Turns errors raised on purpose into one line."""

    def invoke(self, ctx: click.Context) -> Any:
        from phoropter.core.errors import PhoropterError

        try:
            return super().invoke(ctx)
        except PhoropterError as error:
            if is_verbose():
                traceback.print_exc()
            click.echo(f"phoropter: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt as stop:  # a StopRequest, where a study was running, says what asked
            cause = f" by {stop.cause}" if hasattr(stop, "cause") else ""
            with suppress(OSError):  # the terminal may be gone
                kept = _WHAT_IS_KEPT if cause or ctx.invoked_subcommand in _COMMANDS_THAT_GO_ON else ""
                click.echo(f"\nphoropter: stopped{cause}{kept}", err=True)
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
    set_verbosity(0)


for _command in (
    plan_command,
    status_command,
    report_command,
    inspect_command,
    backbones_command,
    studies_command,
    doctor_command,
    schema_command,
    weights_command,
    init_command,
    completion_command,
    refit_command,
    predict_command,
    explain_command,
    serve_command,
    export_command,
    import_command,
    retry_command,
    submit_command,
    verify_results_command,
    gc_command,
    merge_command,
    cancel_command,
    pack_command,
):
    main.add_command(_command)


@main.command()
@click.argument("study", type=StudyName())
@out_option
@smoke_option
@places_options
@add_option
@set_option
@part_option
@click.option("--budget", metavar="TIME", help="Stop after 3h, 90min …: first folds of all candidates first, then a report.")
@trust_option
def run(study: str, out: Path | None, smoke: bool, how: HowToRun, budget: str | None, **others: Any) -> None:
    """Compute what is missing of STUDY, then write its report. Stop it at any time; the same command resumes.

    Exit codes: 0 done; 1 a run failed; 2 the study cannot be run as it is; 3 the disk is full or read-only, or memory is short:
    free some, and the same command goes on; 130, 143 or 129 it was stopped by Ctrl-C, SIGTERM (or its budget) or SIGHUP.
    """
    from phoropter.study.processes.torchrun_role import take_role
    from phoropter.study.scheduling.time_budget import TimeBudget
    from phoropter.training.loop.stop_signals import handle_stop_signals

    how = replace(how, add=others["add"], budget=None if budget is None else TimeBudget.from_words(budget))
    with handle_stop_signals(), take_role(how.device) as role, trust_if(others["trust_code"], study):
        if not role.computes:  # the first process tells how it ended
            return
        placed = replace(how, places={**how.places, "group": role.group})
        parts = read_parts(study, out, smoke, others["settings"], others["only"])
        failed = sum(for_each_part(parts, lambda part, folder: run_and_report(part, folder, placed)))
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
        failed = sum(run_and_report(part, folder, HowToRun(device, jobs)) for part, folder in parts)
    if failed:
        sys.exit(1)
    if signals:
        from phoropter.results.store import Store

        print_protocol_gap(make_console(), *(Store(folder) for _, folder in parts))
        compare_parts(parts[0][1], parts[1][1])


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
        print_line(make_console(), f"report: {write_comparison_page(folder, other, out)}")
        warn_of_missing_metrics(folder, other)


@main.command()
@click.argument("study", type=StudyName())
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
            print_line(make_console(), f"written: {file} ({SPLIT.count(count)})")


@main.command()
@click.argument("study", type=StudyName())
@click.option("--port", type=click.IntRange(0, 65535), default=8350, help="On this machine; 0: any free one.")
def serve_report(study: str, port: int) -> None:
    """Serve the report of STUDY on this machine while it runs: a results folder, a study file, or the name of a shipped study."""
    from phoropter.report.live import server

    folder = Path(study)
    if not folder.is_dir():
        parts = read_parts(study, None, smoke=False)
        folder = parts[0][1].parent if len(parts) > 1 else parts[0][1]
    server.serve_report(folder, port, click.echo)


add_verbosity_options(main)

"""The command line: small, and quick to say what it can do. What a study is made of goes into the study file, not into flags.

Everything heavier than click is imported inside the command that needs it. A user's mistake ends in one line and exit code 2,
ours in a traceback and exit code 1; Ctrl-C says how to go on and exits with 130.
"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from phoropter import __version__
from phoropter.console import format_large_count, make_console, print_line, print_plan, print_predictions, print_protocol_gap
from phoropter.core.cores import count_usable_cores

if TYPE_CHECKING:
    from collections.abc import Callable

    from phoropter.study.spec import StudyInput

# Threads that wait should not burn a core somebody else needs: measured 4 × faster on a busy machine, no slower on an idle one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

out_option = click.option("-o", "--out", type=click.Path(path_type=Path), help="Results folder (default: runs/NAME).")
smoke_option = click.option("--scale", type=click.Choice(["full", "small"]), default="full", help="small: a ten-minute version.")
device_option = click.option("--device", default="auto", help="cpu, cuda, cuda:1, mps, or auto.")
jobs_option = click.option("-j", "--jobs", type=click.IntRange(1, 256), default=1, help="Processes that compute runs at once.")


class _ErrorReportingGroup(click.Group):
    """Turns errors raised on purpose into one line."""

    def invoke(self, ctx: click.Context) -> Any:
        from phoropter.core.errors import PhoropterError

        try:
            return super().invoke(ctx)
        except PhoropterError as error:
            click.echo(f"phoropter: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("\nphoropter: stopped; finished runs are kept, and the same command goes on from here", err=True)
            ctx.exit(130)
        except BrokenPipeError:  # `phoropter … | head`
            sys.stderr.close()
            ctx.exit(0)


@click.group(cls=_ErrorReportingGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", message="phoropter %(version)s")
def main() -> None:
    """Which pretrained vision backbone sees your pictures best?

    Declare a study in a YAML file, or name a shipped one; `run` computes it, `report` writes one page.
    """


@main.command()
@click.argument("study")
@out_option
@smoke_option
@device_option
def plan(study: str, out: Path | None, scale: str, device: str) -> None:
    """Say what STUDY would compute, what is there already, and about how long it takes."""
    from phoropter.core.files import cache_dir
    from phoropter.results.store import Store
    from phoropter.study import screening
    from phoropter.study.audit import check_leakage
    from phoropter.study.cost import estimate_resources
    from phoropter.study.plan import plan_study

    to = make_console()

    def print_part(asked: StudyInput, folder: Path) -> None:
        question = screening.resolve_rungs(asked, Store(folder), cache_dir(folder))
        for words in screening.describe_rungs(question, asked, Store(folder), cache_dir(folder)):
            print_line(to, words)
        planned = plan_study(question, cache_dir(folder))
        for finding in check_leakage(planned, lambda material: None, cache_dir(folder)):
            print_line(to, f"{finding.severity}: {finding.words}")
        print_plan(to, planned, estimate_resources(planned, Store(folder), cache_dir(folder), device), Store(folder))

    _for_each_part(_read_parts(study, out, scale), print_part)


@main.command()
@click.argument("study")
@out_option
@smoke_option
@device_option
@jobs_option
def run(study: str, out: Path | None, scale: str, device: str, jobs: int) -> None:
    """Compute what is missing of STUDY, then write its report. Stop it at any time; the same command goes on."""
    parts = _read_parts(study, out, scale)
    failed = sum(_for_each_part(parts, lambda question, folder: _run_and_report(question, folder, device, jobs)))
    for one, other in itertools.pairwise(parts):
        if one[0].compared_study and one[0].compared_study == other[0].compared_study:
            _compare_parts(one[1], other[1])
    if failed:
        sys.exit(1)


@main.command()
@click.option("--signals", type=click.Choice(["ecg", "ctg"]), help="Simulated recordings, dealt at random and held out.")
@out_option
@device_option
@click.option("-j", "--jobs", type=click.IntRange(1, 256), default=lambda: min(4, count_usable_cores()), help="Processes.")
def demo(signals: str | None, out: Path | None, device: str, jobs: int) -> None:
    """A whole study in about a minute: handwritten digits, a small CNN and a small ViT, probed and fine-tuned.

    With --signals, two studies in about two minutes: the same candidates with windows dealt at random and with whole people or
    births held out, and the gap between what the two say.
    """
    name = f"{signals}-simulated" if signals else "digits"
    parts = _read_parts(name, out or Path("runs") / (f"demo-{signals}" if signals else "demo"), "full")
    if sum(_run_and_report(question, folder, device, jobs) for question, folder in parts):
        sys.exit(1)
    if signals:
        from phoropter.results.store import Store

        print_protocol_gap(make_console(), *(Store(folder) for _, folder in parts))
        _compare_parts(parts[0][1], parts[1][1])


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
def status(folder: Path) -> None:
    """What is done, under way, failed and missing in a results FOLDER."""
    from phoropter.results.store import Store
    from phoropter.study.progress import make_status_table

    store = Store(folder)
    to = make_console()
    to.print(make_status_table(store))
    for note in store.read_failures().values():
        print_line(to, f"failed: {note['candidate']} · {note['split']}: {note['error']}")


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("other", type=click.Path(path_type=Path), required=False)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The page (default: FOLDER/report/index.html).")
def report(folder: Path, other: Path | None, out: Path | None) -> None:
    """Write one page, and its tables and figures, from a results FOLDER; with an OTHER one, the two side by side.

    Of two studies the page is FOLDER/report/against-OTHER/index.html.
    """
    from phoropter.report.comparison_page import write_comparison_page
    from phoropter.report.page import write_report

    click.echo(f"report: {write_report(folder, out) if other is None else write_comparison_page(folder, other, out)}")


@main.command()
@click.argument("study")
@click.option("--port", type=click.IntRange(0, 65535), default=8350, help="On this machine; 0: any free one.")
def watch(study: str, port: int) -> None:
    """Serve the page of STUDY on this machine while it runs: a results folder, a study file, or the name of a shipped study."""
    from phoropter.report.live.server import serve_report

    folder = Path(study)
    if not folder.is_dir():
        parts = _read_parts(study, None, "full")
        folder = parts[0][1].parent if len(parts) > 1 else parts[0][1]
    serve_report(folder, port, click.echo)


@main.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("paths", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="A CSV file with the probability of every class.")
@click.option("--on-bad-input", type=click.Choice(["stop", "skip"]), help="What cannot be read (default: as its study said).")
@device_option
def predict(bundle: Path, paths: tuple[Path, ...], out: Path | None, on_bad_input: str | None, device: str) -> None:
    """What a BUNDLE that a study kept says of pictures or recordings at PATHS, drawn as those of the study."""
    from phoropter.deploy.predict import load_bundle, predict_paths, write_predictions_csv

    said = predict_paths(load_bundle(bundle), paths, device=device, on_bad_input=on_bad_input)  # type: ignore[arg-type]
    to = make_console()
    print_predictions(to, said)
    for file in write_predictions_csv(said, out) if out else ():
        print_line(to, f"written: {file}")


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--preview", type=click.Path(path_type=Path), help="Write a sheet of windows and their traces (recordings only).")
def data(path: Path, preview: Path | None) -> None:
    """What lies at PATH, pictures or recordings: counts per class, group and site, sizes or durations, problems."""
    from phoropter.data.inspect import detect_data_spec, summarize_dataset
    from phoropter.data.spec import open_dataset

    dataset = open_dataset(detect_data_spec(path))
    print_line(make_console(), str(summarize_dataset(dataset)))
    if preview is not None:
        from phoropter.data.recordings.contact_sheet import write_contact_sheet

        print_line(make_console(), f"preview: {write_contact_sheet(dataset, preview)}")


@main.command()
@click.argument("pattern", default="*")
def backbones(pattern: str) -> None:
    """Networks by PATTERN (like 'resnet*'): parameters, multiply-adds, input size."""
    from rich.table import Table

    from phoropter.core.errors import SpecError, did_you_mean
    from phoropter.models import catalog

    names = catalog.list_architectures(pattern)
    if not names:
        raise SpecError(f"no backbone matches '{pattern}'{did_you_mean(pattern.strip('*'), catalog.list_architectures('*'))}")
    table = Table("name", box=None)
    for column in ("parameters", "multiply-adds", "side", "width"):
        table.add_column(column, justify="right")
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
    """The studies that come with phoropter."""
    from phoropter.study.spec import list_shipped_studies, read_study

    to = make_console()
    for name in list_shipped_studies():
        parts = read_study(name)
        to.print(f"[bold]{name}[/bold]", highlight=False)
        about = parts[0].study.about
        if about:
            for label, text in (("source", about.source), ("expect", about.expect), ("time", about.time), ("data", about.data)):
                if text:
                    print_line(to, f"    {label}: {text}")
        for part in parts if len(parts) > 1 else ():
            print_line(to, f"    part {part.study.name}: {len(part.candidates)} candidates")


@main.command()
def doctor() -> None:
    """Whether this installation is sound: versions, devices, caches, torchvision's operators."""
    from phoropter.core.files import cache_dir
    from phoropter.models import timm_compat

    to = make_console()
    for name, value in {**timm_compat.describe_installation(), "cache": str(cache_dir())}.items():
        print_line(to, f"{name}: {value}")


# ---------------------------------------------------------------------------------------------------------------- pieces


def _read_parts(study: str, out: Path | None, scale: str) -> list[tuple[StudyInput, Path]]:
    """The parts of a study, each with its results folder."""
    from phoropter.study.smoke_scale import make_smoke_version
    from phoropter.study.spec import read_study

    parts = read_study(study)
    named = Path("runs") / Path(study).stem if len(parts) > 1 else Path("runs") / parts[0].study.name
    folder = out or named
    if scale == "small":
        parts = [make_smoke_version(part) for part in parts]
        folder = out or named.with_name(named.name + "-small")
    return [(part, folder / part.study.name if len(parts) > 1 else folder) for part in parts]


def _compare_parts(one: Path, other: Path) -> None:
    """Sets two parts of a study side by side, in the folder that holds both; nothing, where one has no finished run."""
    from phoropter.report.comparison_page import write_comparison_page
    from phoropter.results.store import Store

    if not all(any(True for _ in Store(folder).runs()) for folder in (one, other)):
        return
    to, page = make_console(), write_comparison_page(one, other, one.parent / "report")
    print_line(to, "\n" + (page.parent / "conclusion.txt").read_text(encoding="utf-8").strip())
    print_line(to, f"\nreport: {page}")


def _for_each_part(parts: list[tuple[StudyInput, Path]], do: Callable[[StudyInput, Path], Any]) -> list[Any]:
    """Does it with every part of a study. Raises DataError for parts whose data cannot be used after the others are done."""
    from phoropter.core.errors import DataError

    done, lost = [], []
    for question, folder in parts:
        try:
            done.append(do(question, folder))
        except DataError as error:
            lost.append(f"part {question.study.name}: {error}" if len(parts) > 1 else str(error))
    if lost:
        raise DataError(lost[0] + (f" (and {len(lost) - 1} more of {len(parts)} parts)" if len(lost) > 1 else ""))
    return done


def _run_and_report(question: StudyInput, folder: Path, device: str, jobs: int) -> int:
    """Runs one study and writes its report; how many runs failed."""
    from phoropter.core.files import cache_dir
    from phoropter.study import executors
    from phoropter.study.loggers import attach_loggers
    from phoropter.study.progress import show_progress
    from phoropter.study.worker import ComputeOptions

    to = make_console()
    for change in question.smoke_changes:
        print_line(to, f"scale small: {change}")
    with show_progress(question.study.name, to) as bars, attach_loggers(bars, question.study.name, folder) as watch:
        store = executors.execute_study(question, folder, watch, jobs, ComputeOptions(device), cache_dir(folder))
    failures = store.read_failures()
    for note in failures.values():
        print_line(to, f"failed: {note['candidate']} · {note['split']}: {note['error']}")
    if any(True for _ in store.runs()):
        from phoropter.report.page import write_report

        page = write_report(folder)
        for beside in (Path("tables") / "leaderboard.md", Path("conclusion.txt")):
            print_line(to, "\n" + (page.parent / beside).read_text(encoding="utf-8").strip())
        print_line(to, f"\nreport: {page}")
    return len(failures)

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
from phoropter.console import console, line, millions, print_answers, print_gap, print_plan
from phoropter.core.cores import cores

if TYPE_CHECKING:
    from collections.abc import Callable

    from phoropter.study.spec import Question

# Threads that wait should not burn a core somebody else needs: measured 4 × faster on a busy machine, no slower on an idle one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

Out = click.option("-o", "--out", type=click.Path(path_type=Path), help="Results folder (default: runs/NAME).")
Scale = click.option("--scale", type=click.Choice(["full", "small"]), default="full", help="small: a ten-minute version.")
Device = click.option("--device", default="auto", help="cpu, cuda, cuda:1, mps, or auto.")
Jobs = click.option("-j", "--jobs", type=click.IntRange(1, 256), default=1, help="Processes that compute runs at once.")


class _Group(click.Group):
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


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", message="phoropter %(version)s")
def main() -> None:
    """Which pretrained vision backbone sees your pictures best?

    Declare a study in a YAML file, or name a shipped one; `run` computes it, `report` writes one page.
    """


@main.command()
@click.argument("study")
@Out
@Scale
@Device
def plan(study: str, out: Path | None, scale: str, device: str) -> None:
    """Say what STUDY would compute, what is there already, and about how long it takes."""
    from phoropter.core.files import cache_dir
    from phoropter.results.store import Store
    from phoropter.study import ladder
    from phoropter.study.audit import check_leakage
    from phoropter.study.cost import cost
    from phoropter.study.plan import plan as plan_of

    to = console()

    def say(asked: Question, folder: Path) -> None:
        question = ladder.settled(asked, Store(folder), cache_dir(folder))
        for words in ladder.said(question, asked, Store(folder), cache_dir(folder)):
            line(to, words)
        planned = plan_of(question, cache_dir(folder))
        for finding in check_leakage(planned, lambda material: None, cache_dir(folder)):
            line(to, f"{finding.severity}: {finding.words}")
        print_plan(to, planned, cost(planned, Store(folder), cache_dir(folder), device), Store(folder))

    _each(_questions(study, out, scale), say)


@main.command()
@click.argument("study")
@Out
@Scale
@Device
@Jobs
def run(study: str, out: Path | None, scale: str, device: str, jobs: int) -> None:
    """Compute what is missing of STUDY, then write its report. Stop it at any time; the same command goes on."""
    parts = _questions(study, out, scale)
    failed = sum(_each(parts, lambda question, folder: _run(question, folder, device, jobs)))
    for one, other in itertools.pairwise(parts):
        if one[0].compared and one[0].compared == other[0].compared:
            _compare(one[1], other[1])
    if failed:
        sys.exit(1)


@main.command()
@click.option("--signals", type=click.Choice(["ecg", "ctg"]), help="Simulated recordings, dealt at random and held out.")
@Out
@Device
@click.option("-j", "--jobs", type=click.IntRange(1, 256), default=lambda: min(4, cores()), help="Processes.")
def demo(signals: str | None, out: Path | None, device: str, jobs: int) -> None:
    """A whole study in about a minute: handwritten digits, a small CNN and a small ViT, probed and fine-tuned.

    With --signals, two studies in about two minutes: the same candidates with windows dealt at random and with whole people or
    births held out, and the gap between what the two say.
    """
    name = f"{signals}-simulated" if signals else "digits"
    parts = _questions(name, out or Path("runs") / (f"demo-{signals}" if signals else "demo"), "full")
    if sum(_run(question, folder, device, jobs) for question, folder in parts):
        sys.exit(1)
    if signals:
        from phoropter.results.store import Store

        print_gap(console(), *(Store(folder) for _, folder in parts))
        _compare(parts[0][1], parts[1][1])


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
def status(folder: Path) -> None:
    """What is done, under way, failed and missing in a results FOLDER."""
    from phoropter.results.store import Store
    from phoropter.study.progress import status as status_of

    store = Store(folder)
    to = console()
    to.print(status_of(store))
    for note in store.failures().values():
        line(to, f"failed: {note['candidate']} · {note['split']}: {note['error']}")


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("other", type=click.Path(path_type=Path), required=False)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The page (default: FOLDER/report/index.html).")
def report(folder: Path, other: Path | None, out: Path | None) -> None:
    """Write one page, and its tables and figures, from a results FOLDER; with an OTHER one, the two side by side.

    Of two studies the page is FOLDER/report/against-OTHER/index.html.
    """
    from phoropter.report.page import write_report
    from phoropter.report.two import write_comparison

    click.echo(f"report: {write_report(folder, out) if other is None else write_comparison(folder, other, out)}")


@main.command()
@click.argument("study")
@click.option("--port", type=click.IntRange(0, 65535), default=8350, help="On this machine; 0: any free one.")
def watch(study: str, port: int) -> None:
    """Serve the page of STUDY on this machine while it runs: a results folder, a study file, or the name of a shipped study."""
    from phoropter.report.watch import serve

    folder = Path(study)
    if not folder.is_dir():
        parts = _questions(study, None, "full")
        folder = parts[0][1].parent if len(parts) > 1 else parts[0][1]
    serve(folder, port, click.echo)


@main.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("paths", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="A CSV file with the probability of every class.")
@click.option("--on-bad-input", type=click.Choice(["stop", "skip"]), help="What cannot be read (default: as its study said).")
@Device
def predict(bundle: Path, paths: tuple[Path, ...], out: Path | None, on_bad_input: str | None, device: str) -> None:
    """What a BUNDLE that a study kept says of pictures or recordings at PATHS, drawn as those of the study."""
    from phoropter.deploy.predict import answers, load, write_csv

    said = answers(load(bundle), paths, device=device, on_bad_input=on_bad_input)  # type: ignore[arg-type]
    to = console()
    print_answers(to, said)
    for file in write_csv(said, out) if out else ():
        line(to, f"written: {file}")


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--preview", type=click.Path(path_type=Path), help="Write a sheet of windows and their traces (recordings only).")
def data(path: Path, preview: Path | None) -> None:
    """What lies at PATH, pictures or recordings: counts per class, group and site, sizes or durations, problems."""
    from phoropter.data.spec import open_dataset
    from phoropter.data.summary import open_path, summary

    dataset = open_dataset(open_path(path))
    line(console(), str(summary(dataset)))
    if preview is not None:
        from phoropter.data.preview import preview as write_preview

        line(console(), f"preview: {write_preview(dataset, preview)}")


@main.command()
@click.argument("pattern", default="*")
def backbones(pattern: str) -> None:
    """Networks by PATTERN (like 'resnet*'): parameters, multiply-adds, input size."""
    from rich.table import Table

    from phoropter.core.errors import SpecError, nearest
    from phoropter.models import catalog

    names = catalog.names(pattern)
    if not names:
        raise SpecError(f"no backbone matches '{pattern}'{nearest(pattern.strip('*'), catalog.names('*'))}")
    table = Table("name", box=None)
    for column in ("parameters", "multiply-adds", "side", "width"):
        table.add_column(column, justify="right")
    for name in names:
        entry = catalog.entry(name)
        numbers = [millions(entry.parameters), millions(entry.macs), str(entry.side), str(entry.width or "")]
        table.add_row(name, *numbers)
    console().print(table)


@main.command()
def studies() -> None:
    """The studies that come with phoropter."""
    from phoropter.study.spec import read, shipped

    to = console()
    for name in shipped():
        parts = read(name)
        to.print(f"[bold]{name}[/bold]", highlight=False)
        about = parts[0].study.about
        if about:
            for label, text in (("source", about.source), ("expect", about.expect), ("time", about.time), ("data", about.data)):
                if text:
                    line(to, f"    {label}: {text}")
        for part in parts if len(parts) > 1 else ():
            line(to, f"    part {part.study.name}: {len(part.candidates)} candidates")


@main.command()
def doctor() -> None:
    """Whether this installation is sound: versions, devices, caches, torchvision's operators."""
    from phoropter.core.files import cache_dir
    from phoropter.models import vision

    to = console()
    for name, value in {**vision.state(), "cache": str(cache_dir())}.items():
        line(to, f"{name}: {value}")


# ---------------------------------------------------------------------------------------------------------------- pieces


def _questions(study: str, out: Path | None, scale: str) -> list[tuple[Question, Path]]:
    """The parts of a study, each with its results folder."""
    from phoropter.study.scale import small
    from phoropter.study.spec import read

    parts = read(study)
    named = Path("runs") / Path(study).stem if len(parts) > 1 else Path("runs") / parts[0].study.name
    folder = out or named
    if scale == "small":
        parts = [small(part) for part in parts]
        folder = out or named.with_name(named.name + "-small")
    return [(part, folder / part.study.name if len(parts) > 1 else folder) for part in parts]


def _compare(one: Path, other: Path) -> None:
    """Sets two parts of a study side by side, in the folder that holds both; nothing, where one has no finished run."""
    from phoropter.report.two import write_comparison
    from phoropter.results.store import Store

    if not all(any(True for _ in Store(folder).runs()) for folder in (one, other)):
        return
    to, page = console(), write_comparison(one, other, one.parent / "report")
    line(to, "\n" + (page.parent / "conclusion.txt").read_text(encoding="utf-8").strip())
    line(to, f"\nreport: {page}")


def _each(parts: list[tuple[Question, Path]], do: Callable[[Question, Path], Any]) -> list[Any]:
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


def _run(question: Question, folder: Path, device: str, jobs: int) -> int:
    """Runs one study and writes its report; how many runs failed."""
    from phoropter.core.files import cache_dir
    from phoropter.study import executors
    from phoropter.study.loggers import logged
    from phoropter.study.progress import watching
    from phoropter.study.run import Here

    to = console()
    for change in question.scaled:
        line(to, f"scale small: {change}")
    with watching(question.study.name, to) as bars, logged(bars, question.study.name, folder) as watch:
        store = executors.run(question, folder, watch, jobs, Here(device), cache_dir(folder))
    failures = store.failures()
    for note in failures.values():
        line(to, f"failed: {note['candidate']} · {note['split']}: {note['error']}")
    if any(True for _ in store.runs()):
        from phoropter.report.page import write_report

        page = write_report(folder)
        for beside in (Path("tables") / "leaderboard.md", Path("conclusion.txt")):
            line(to, "\n" + (page.parent / beside).read_text(encoding="utf-8").strip())
        line(to, f"\nreport: {page}")
    return len(failures)

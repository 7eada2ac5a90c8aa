"""The command line: small, and quick to say what it can do. What a study is made of goes into the study file, not into flags.

Everything heavier than click is imported inside the command that needs it. A user's mistake ends in one line and exit code 2,
ours in a traceback and exit code 1; Ctrl-C says how to go on and exits with 130.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from phoropter import __version__

if TYPE_CHECKING:
    from rich.console import Console

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
    from phoropter.study.audit import check_leakage
    from phoropter.study.plan import cost
    from phoropter.study.plan import plan as plan_of

    console = _console()
    for question, folder in _questions(study, out, scale):
        planned = plan_of(question, cache_dir(folder))
        for finding in check_leakage(planned, lambda material: None, cache_dir(folder)):
            _line(console, f"{finding.severity}: {finding.words}")
        _print_plan(console, planned, cost(planned, Store(folder), cache_dir(folder), device), Store(folder))


@main.command()
@click.argument("study")
@Out
@Scale
@Device
@Jobs
def run(study: str, out: Path | None, scale: str, device: str, jobs: int) -> None:
    """Compute what is missing of STUDY, then write its report. Stop it at any time; the same command goes on."""
    failed = 0
    for question, folder in _questions(study, out, scale):
        failed += _run(question, folder, device, jobs)
    if failed:
        sys.exit(1)


@main.command()
@click.option("--signals", type=click.Choice(["ecg", "ctg"]), help="Simulated recordings, dealt at random and held out.")
@Out
@Device
@click.option("-j", "--jobs", type=click.IntRange(1, 256), default=lambda: min(4, os.cpu_count() or 1), help="Processes.")
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

        _print_gap(_console(), [(question, Store(folder)) for question, folder in parts])


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
def status(folder: Path) -> None:
    """What is done, under way, failed and missing in a results FOLDER."""
    from phoropter.results.store import Store
    from phoropter.study.progress import status as status_of

    store = Store(folder)
    console = _console()
    console.print(status_of(store))
    for note in store.failures().values():
        _line(console, f"failed: {note['candidate']} · {note['split']}: {note['error']}")


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The page (default: FOLDER/report/index.html).")
def report(folder: Path, out: Path | None) -> None:
    """Write one page, and its tables and figures, from a results FOLDER."""
    from phoropter.report.page import write_report

    click.echo(f"report: {write_report(folder, out)}")


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--preview", type=click.Path(path_type=Path), help="Write a sheet of windows and their traces (recordings only).")
def data(path: Path, preview: Path | None) -> None:
    """What lies at PATH, pictures or recordings: counts per class, group and site, sizes or durations, problems."""
    from phoropter.data.spec import open_dataset
    from phoropter.data.summary import open_path, summary

    dataset = open_dataset(open_path(path))
    _line(_console(), str(summary(dataset)))
    if preview is not None:
        from phoropter.data.preview import preview as write_preview

        _line(_console(), f"preview: {write_preview(dataset, preview)}")


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
        numbers = [_millions(entry.parameters), _millions(entry.macs), str(entry.side), str(entry.width or "")]
        table.add_row(name, *numbers)
    _console().print(table)


@main.command()
def studies() -> None:
    """The studies that come with phoropter."""
    from phoropter.study.spec import read, shipped

    console = _console()
    for name in shipped():
        parts = read(name)
        console.print(f"[bold]{name}[/bold]", highlight=False)
        about = parts[0].study.about
        if about:
            for label, text in (("source", about.source), ("expect", about.expect), ("time", about.time), ("data", about.data)):
                if text:
                    _line(console, f"    {label}: {text}")
        for part in parts if len(parts) > 1 else ():
            _line(console, f"    part {part.study.name}: {len(part.candidates)} candidates")


@main.command()
def doctor() -> None:
    """Whether this installation is sound: versions, devices, caches, torchvision's operators."""
    from phoropter.core.files import cache_dir
    from phoropter.models import vision

    console = _console()
    for name, value in {**vision.state(), "cache": str(cache_dir())}.items():
        _line(console, f"{name}: {value}")


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


def _run(question: Question, folder: Path, device: str, jobs: int) -> int:
    """Runs one study and writes its report; how many runs failed."""
    from phoropter.core.files import cache_dir
    from phoropter.study import executors
    from phoropter.study.progress import watching
    from phoropter.study.run import Here

    console = _console()
    for change in question.scaled:
        _line(console, f"scale small: {change}")
    with watching(question.study.name, console) as watch:
        store = executors.run(question, folder, watch, jobs, Here(device), cache_dir(folder))
    failures = store.failures()
    for note in failures.values():
        _line(console, f"failed: {note['candidate']} · {note['split']}: {note['error']}")
    if any(True for _ in store.runs()):
        from phoropter.report.page import write_report

        page = write_report(folder)
        for beside in (Path("tables") / "leaderboard.md", Path("conclusion.txt")):
            _line(console, "\n" + (page.parent / beside).read_text(encoding="utf-8").strip())
        _line(console, f"\nreport: {page}")
    return len(failures)


def _print_plan(console: Console, planned: Any, cost: Any, store: Any) -> None:
    from rich.table import Table

    from phoropter.core.files import size_text
    from phoropter.study.progress import duration

    question = planned.question
    material = planned.materials[0]
    for change in question.scaled:
        _line(console, f"scale small: {change}")
    dataset = material.dataset
    _line(console, f"{question.study.name}: {dataset.name}, {len(dataset)} pictures of {len(dataset.classes)} classes")
    splits = {r.split.name: r.split for r in planned.runs}
    sizes = sorted({(len(s.train), len(s.test)) for s in splits.values()})
    _line(console, f"{len(splits)} splits, for example {sizes[0][0]} rows to train on and {sizes[0][1]} to test on")
    table = Table("candidate", "how", box=None)
    for column in ("runs", "done"):
        table.add_column(column, justify="right")
    for candidate in planned.candidates:
        runs = [r for r in planned.runs if r.candidate.name == candidate.name]
        done = sum(r.key in store for r in runs)
        table.add_row(candidate.name, candidate.description.partition(": ")[2], str(len(runs)), str(done))
    console.print(table)
    missing = len(planned.missing(store))
    basis = "at the speed of earlier runs here" if cost.measured else "a guess; the first run makes it a measurement"
    _line(console, f"{missing} of {len(planned.runs)} runs to compute, about {duration(cost.seconds)} ({basis})")
    _line(console, f"disk: {size_text(cost.pixel_bytes)} of pictures, {size_text(cost.feature_bytes)} of features to be written")
    if cost.answer_bytes:
        _line(console, f"teachers' answers: {size_text(cost.answer_bytes)}, about {duration(cost.answer_seconds)}")
    for views, (size, seconds) in (cost.choices or {}).items():
        _line(console, f"    with views {views}: {size_text(size)}, about {duration(seconds)}")


def _print_gap(console: Console, parts: list[tuple[Question, Any]]) -> None:
    """What the first part says of each candidate, what the second says, and how far they lie apart."""
    from rich.table import Table

    from phoropter.results.metrics import metric

    name = parts[0][0].study.metrics[0]
    table = Table("candidate", box=None)
    for heading in ("windows at random", "held out", "gap"):
        table.add_column(heading, justify="right")
    for candidate in [c.name for c in parts[0][0].candidates]:
        dealt, apart = (_pooled(store, candidate, name) for _, store in parts)
        shown = [f"{found.estimate:.3f} [{found.low:.3f}, {found.high:.3f}]" for found in (dealt, apart)]
        table.add_row(candidate, *shown, f"{dealt.estimate - apart.estimate:+.3f}")
    _line(console, f"{metric(name).title}, mean over folds, with 95 % intervals over whole people or births:")
    console.print(table)


def _pooled(store: Any, candidate: str, name: str) -> Any:
    """A metric within each fold, averaged, and its interval by resampling groups."""
    import numpy as np

    from phoropter.results.statistics import Bootstrap

    held_out = [run.predictions() for run in store.runs() if run.candidate == candidate]
    fold = np.repeat(np.arange(len(held_out)), [len(p.ids) for p in held_out])
    columns = ("labels", "groups", "probabilities")
    labels, groups, probabilities = (np.concatenate([getattr(p, name) for p in held_out]) for name in columns)
    return Bootstrap(labels, groups, fold).replicates(name, probabilities).interval()


def _console() -> Console:
    from rich.console import Console

    return Console()


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _millions(count: float | None) -> str:
    return "" if not count else f"{count / 1e6:,.1f} M" if count < 1e9 else f"{count / 1e9:,.2f} G"

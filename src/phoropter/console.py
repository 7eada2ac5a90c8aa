"""Prints the results of commands: a plan, a leaderboard, predictions of a bundle, the gap between two protocols.

In a narrow terminal the names of a table wrap and its numbers never do; columns that have no room are named below it. Output
that goes into a pipe or a file is plain text in lines of any length.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from phoropter.deploy.predictions import BundlePredictions
    from phoropter.report.render.kept_report import WrittenReport
    from phoropter.results.store import Store
    from phoropter.study.cost import ResourceEstimate
    from phoropter.study.plan import Plan


MAX_NAMED = 3  # candidates that one line of a plan names
PIPED_WIDTH = 10_000  # characters of a line outside a terminal, where nothing needs to wrap
MIN_NAME_WIDTH, MIN_HEAD_WIDTH, GAP = 14, 8, 2  # characters: of a name that wraps, of a head that wraps, between columns


_verbosity = 0  # of the command in progress: -1 quiet, 1 verbose


def set_verbosity(level: int) -> None:
    """-1: answers, warnings and errors alone · 0 · 1: also logs and tracebacks. Every command begins at 0."""
    global _verbosity
    _verbosity = level


def is_quiet() -> bool:
    return _verbosity < 0


def is_verbose() -> bool:
    return _verbosity > 0


def make_warning_console() -> Console:
    """For what must be read: standard output, or standard error where that is quiet."""
    return make_console(stderr=is_quiet(), answer=True)


def make_console(*, stderr: bool = False, answer: bool = False) -> Console:
    """A console whose output may end before the command does: `phoropter run STUDY | head` goes on computing, silently.

    stderr: writes to standard error, where standard output carries a table for another program
    answer: for what the command was asked to print, which -q leaves; progress, notes and the paths of written files it does not
    """
    import rich.console

    class LastingConsole(rich.console.Console):
        def on_broken_pipe(self) -> None:  # rich would end the program
            self.quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    out = sys.stderr if stderr else sys.stdout
    return LastingConsole(width=None if out.isatty() else PIPED_WIDTH, stderr=stderr, quiet=is_quiet() and not answer)


@contextmanager
def show_prediction_progress() -> Iterator[Callable[[int, int], None] | None]:
    """Yields a function of (rows done, rows in all): a bar with the time left on standard error. Off a terminal, None."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=make_console(stderr=True), transient=True) as bars:
        task = bars.add_task("predicting", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def print_line(to: Console, text: str) -> None:
    to.print(text, markup=False, highlight=False, soft_wrap=True)


def make_text_table(names: Sequence[str], numbers: Sequence[str] = ()) -> Table:
    """A table without lines: columns of names, which wrap where there is no room, then columns of numbers, which do not."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in names:
        table.add_column(heading, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def print_results(to: Console, report: WrittenReport) -> None:
    """The leaderboard of a report, its conclusion, and where its page is."""
    from rich.text import Text

    from phoropter.report.render.table import format_cell, one_line

    board = report.leaderboard
    texts = [
        [one_line(format_cell(*cell)).replace("\u00a0", " ") for cell in zip(r.values, board.columns, strict=True)]
        for r in board.rows
    ]
    heads, fitting = [], 0
    room = to.width - min(MIN_NAME_WIDTH, max(len(row[0]) for row in texts))
    for place, column in enumerate(board.columns[1:], start=1):
        widest = max(MIN_HEAD_WIDTH, *(len(row[place]) for row in texts))
        title = f"{column.name} {column.unit_text}".strip().replace("\u00a0", " ")
        heads.append(textwrap.fill(title, widest, break_long_words=False))
        room -= GAP + max(widest, *map(len, heads[-1].splitlines()))
        fitting += room >= 0
    table = make_text_table([board.columns[0].name], heads[:fitting])
    styles = {"leader": "bold", "baseline": "italic"}
    for row, cells in zip(board.rows, texts, strict=True):
        table.add_row(*map(Text, cells[: fitting + 1]), style=styles.get(row.role))
    to.print("")
    to.print(table)
    if hidden := [c.name.replace("\u00a0", " ") for c in board.columns[fitting + 1 :]]:
        print_prose(to, f"No room in this terminal for {', '.join(hidden)}: see the page.")
    to.print("")
    for sentence in report.conclusion:
        print_prose(to, sentence)
    print_line(to, f"\nreport: {report.page}")


def print_prose(to: Console, text: str) -> None:
    """Text whose lines break between words."""
    to.print(text, markup=False, highlight=False)


def format_large_count(count: float | None) -> str:
    return "" if not count else f"{count / 1e6:,.1f} M" if count < 1e9 else f"{count / 1e9:,.2f} G"


def print_plan(to: Console, planned: Plan, cost: ResourceEstimate, store: Store) -> None:
    """What a study will compute, a row per candidate, and what the missing runs will take."""
    from phoropter.core.durations import format_duration
    from phoropter.core.files import format_bytes
    from phoropter.study.forecasts.interval_forecast import forecast_interval
    from phoropter.study.forecasts.memory_forecast import describe_memory_saving, describe_shown_sizes, estimate_peak_memory
    from phoropter.study.forecasts.power_forecast import forecast_power
    from phoropter.study.forecasts.side_run_words import describe_side_runs

    study, dataset = planned.study, planned.image_sets[0].dataset
    for change in study.context.smoke_changes:
        print_line(to, f"smoke test: {change}")
    print_line(to, f"{study.name}: {dataset.name}, {len(dataset)} images of {len(dataset.classes)} classes")
    for note in (*dataset.notes, *describe_shown_sizes(planned)):
        print_line(to, f"  {note}")
    sizes = sorted({(len(s.train), len(s.test)) for s in planned.splits})
    splits = f"{len(planned.splits)} split{'s' if len(planned.splits) > 1 else ''}"
    print_line(to, f"{splits}, for example {sizes[0][0]} rows to train on and {sizes[0][1]} to test on")
    for note in study.context.settled_defaults:
        print_line(to, f"  {note}")
    table = make_text_table(("candidate", "how"), ("runs", "done", "time left"))
    counts = planned.count_runs(store)
    for candidate in planned.candidates:
        runs, done = counts[candidate.name]
        left = "" if not cost.by_candidate.get(candidate.name) else format_duration(cost.by_candidate[candidate.name])
        table.add_row(candidate.name, candidate.how, str(runs), str(done), left)
    to.print(table)
    for contrast in planned.contrasts:
        units = len(contrast.units)
        within = f", in {units} pairs" if units > 1 else ""
        print_line(to, f"{contrast.role} question: {contrast.title}, by {contrast.metric}{within}")
    for line in [*describe_side_runs(planned), *forecast_interval(planned), *forecast_power(planned)]:
        print_line(to, line)
    if not (missing := len(planned.missing_runs(store))):
        print_line(to, f"0 of {len(planned.runs)} runs to compute: all are done")
        return
    _print_estimate(to, cost, missing, len(planned.runs))
    print_line(to, f"memory on a processor: at most about {format_bytes(estimate_peak_memory(planned))} in a process (a guess)")
    if saving := describe_memory_saving(planned):
        print_line(to, f"  {saving}")


def _print_estimate(to: Console, cost: ResourceEstimate, missing: int, total: int) -> None:
    from phoropter.core.durations import format_duration
    from phoropter.core.files import format_bytes

    basis = "at the speed of earlier runs here" if cost.measured else "a guess; the first run measures it"
    print_line(to, f"{missing} of {total} runs to compute, about {format_duration(cost.seconds)} on {cost.hardware} ({basis})")
    pixels, features = format_bytes(cost.pixel_bytes), format_bytes(cost.feature_bytes)
    print_line(to, f"disk: {pixels} of images, {features} of features to be written")
    if cost.feature_images:
        counted = (
            f"{cost.feature_images:,} images, each view of an image counted, in {format_duration(cost.feature_seconds)} of it"
        )
        print_line(to, f"frozen backbones compute features of {counted}; all runs share them")
    if cost.worth_compiling:
        named = ", ".join(cost.worth_compiling[:MAX_NAMED])
        named += f" and {len(cost.worth_compiling) - MAX_NAMED} more" if len(cost.worth_compiling) > MAX_NAMED else ""
        print_line(to, f"compile: true would save time (it costs 75 s per network and run, and saves about a tenth): {named}")
    if cost.teacher_logit_bytes:
        size, seconds = format_bytes(cost.teacher_logit_bytes), format_duration(cost.teacher_seconds)
        print_line(to, f"teachers' logits: {size}, about {seconds}")
    if len(set(cost.teacher_cost_by_views.values())) > 1:  # equal where nothing is augmented
        for views, (size_bytes, view_seconds) in cost.teacher_cost_by_views.items():
            print_line(to, f"    with teacher_views {views}: {format_bytes(size_bytes)}, about {format_duration(view_seconds)}")


def print_predictions(to: Console, predictions: BundlePredictions, max_rows: int = 20) -> None:
    """A bundle's predictions: a row per recording, or per image where there are no recordings; then what was left out."""
    from collections import Counter

    from rich.text import Text

    from phoropter.deploy.decision import name_answer

    means = predictions.average_by_recording()
    probabilities = predictions.probabilities if means is None else means.probabilities
    names = [str(name) for name in (predictions.dataset.ids if means is None else means.names)]
    decided = predictions.decide_rows() if means is None else predictions.decide_recordings()
    answers = [name_answer(p, predictions.classes, predictions.multi_label) for p in probabilities]
    kinds = ("image" if means is None else "recording", "class", *(() if decided is None else ("decision",)))
    table = make_text_table(kinds, ("probability",) if means is None else ("windows", "probability"))
    for row, name in enumerate(names[:max_rows]):
        count = [] if means is None else [str(means.counts[row])]
        words = [Text(answers[row]), *([] if decided is None else [Text(decided[row])])]
        table.add_row(Text(name), *words, *count, f"{probabilities[row].max():.3f}")
    to.print(table)
    if len(names) > max_rows:
        print_line(to, f"… and {len(names) - max_rows} more")
    counts = Counter(decided or answers)
    what = "total" if decided is None else "total by decision"
    named = [f"{counts[name]} {name}" for name in dict.fromkeys((*predictions.classes, *counts)) if counts[name]]
    print_line(to, f"{what}: {', '.join(named)}")
    for note in predictions.notes:
        print_line(to, f"note: {note}")
    for problem in predictions.problems:
        print_line(make_warning_console() if is_quiet() else to, f"left out: {problem}")


def print_protocol_gap(to: Console, within_group: Store, group_held_out: Store) -> None:
    """Each candidate's first metric under two protocols, and the gap between them."""
    from phoropter.results.metrics.registry import get_metric, metric_names
    from phoropter.results.stats.optimism import compute_protocol_gaps

    gaps = compute_protocol_gaps(within_group, group_held_out, metric_names(group_held_out.study["study"]["metrics"])[:1])
    table = make_text_table(("candidate",), ("windows at random", "held out", "gap", "95 % interval"))
    for gap in gaps:
        interval = f"{gap.interval.low:+.3f} to {gap.interval.high:+.3f}"
        table.add_row(gap.candidate, f"{gap.within_group:.3f}", f"{gap.group_held_out:.3f}", f"{gap.difference:+.3f}", interval)
    title = get_metric(gaps[0].metric).title
    print_line(to, f"{title} of all held-out rows; the interval of the gap is over people or births:")
    to.print(table)

"""Prints the results of commands: a plan, predictions of a bundle, the gap between two protocols."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from phoropter.deploy.predict import BundlePredictions
    from phoropter.results.store import Store
    from phoropter.study.cost import ResourceEstimate
    from phoropter.study.plan import Plan


def make_console() -> Console:
    """A console whose output may end before the command does: `phoropter run STUDY | head` goes on computing, silently."""
    import rich.console

    class LastingConsole(rich.console.Console):
        def on_broken_pipe(self) -> None:  # rich would end the program
            self.quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    return LastingConsole()


def print_line(to: Console, text: str) -> None:
    to.print(text, markup=False, highlight=False, soft_wrap=True)


def format_large_count(count: float | None) -> str:
    return "" if not count else f"{count / 1e6:,.1f} M" if count < 1e9 else f"{count / 1e9:,.2f} G"


def print_plan(to: Console, planned: Plan, cost: ResourceEstimate, store: Store) -> None:
    """What a study will compute, a row per candidate, and what the missing runs will take."""
    from rich.table import Table

    from phoropter.study.forecasts.power_forecast import forecast_power

    study, dataset = planned.study, planned.image_sets[0].dataset
    for change in study.context.smoke_changes:
        print_line(to, f"smoke test: {change}")
    print_line(to, f"{study.name}: {dataset.name}, {len(dataset)} images of {len(dataset.classes)} classes")
    for note in dataset.notes:
        print_line(to, f"  {note}")
    splits = {r.split.name: r.split for r in planned.runs}
    sizes = sorted({(len(s.train), len(s.test)) for s in splits.values()})
    print_line(to, f"{len(splits)} splits, for example {sizes[0][0]} rows to train on and {sizes[0][1]} to test on")
    for note in study.context.settled_defaults:
        print_line(to, f"  {note}")
    table = Table("candidate", "how", box=None)
    for column in ("runs", "done"):
        table.add_column(column, justify="right")
    for candidate in planned.candidates:
        runs = [r for r in planned.runs if r.candidate.name == candidate.name]
        done = sum(r.key in store for r in runs)
        table.add_row(candidate.name, candidate.description.partition(": ")[2], str(len(runs)), str(done))
    to.print(table)
    for contrast in planned.contrasts:
        units = len(contrast.units)
        within = f", in {units} pairs" if units > 1 else ""
        print_line(to, f"{contrast.role} question: {contrast.title}, by {contrast.metric}{within}")
    for line in forecast_power(planned):
        print_line(to, line)
    _print_estimate(to, cost, len(planned.missing_runs(store)), len(planned.runs))


def _print_estimate(to: Console, cost: ResourceEstimate, missing: int, total: int) -> None:
    from phoropter.core.durations import format_duration
    from phoropter.core.files import format_bytes

    basis = "at the speed of earlier runs here" if cost.measured else "a guess; the first run measures it"
    print_line(to, f"{missing} of {total} runs to compute, about {format_duration(cost.seconds)} ({basis})")
    pixels, features = format_bytes(cost.pixel_bytes), format_bytes(cost.feature_bytes)
    print_line(to, f"disk: {pixels} of images, {features} of features to be written")
    if cost.feature_images:
        print_line(to, f"frozen backbones compute features of {cost.feature_images:,} images, each view of an image counted")
    if cost.worth_compiling:
        names = ", ".join(cost.worth_compiling)
        print_line(to, f"compile: true would save time (it costs 75 s per network and run, and saves about a tenth): {names}")
    if cost.teacher_logit_bytes:
        size, seconds = format_bytes(cost.teacher_logit_bytes), format_duration(cost.teacher_seconds)
        print_line(to, f"teachers' logits: {size}, about {seconds}")
    for views, (size_bytes, view_seconds) in cost.teacher_cost_by_views.items():
        print_line(to, f"    with teacher_views {views}: {format_bytes(size_bytes)}, about {format_duration(view_seconds)}")


def print_predictions(to: Console, predictions: BundlePredictions, max_rows: int = 20) -> None:
    """A bundle's predictions: a row per recording, or per image where there are no recordings; then what was left out."""
    from collections import Counter

    from rich.table import Table
    from rich.text import Text

    means = predictions.average_by_recording()
    probabilities = predictions.probabilities if means is None else means[2]
    names = [str(name) for name in (predictions.dataset.ids if means is None else means[0])]
    table = Table("image" if means is None else "recording", box=None)
    for heading in ([] if means is None else ["windows"]) + ["class", "probability"]:
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for row, name in enumerate(names[:max_rows]):
        count = [] if means is None else [str(means[1][row])]
        likeliest = int(probabilities[row].argmax())
        table.add_row(Text(name), *count, Text(predictions.classes[likeliest]), f"{probabilities[row][likeliest]:.3f}")
    to.print(table)
    if len(names) > max_rows:
        print_line(to, f"… and {len(names) - max_rows} more")
    counts = Counter(predictions.classes[int(k)] for k in probabilities.argmax(1))
    print_line(to, "total: " + ", ".join(f"{counts[name]} {name}" for name in predictions.classes if counts[name]))
    for note in predictions.notes:
        print_line(to, f"note: {note}")
    for problem in predictions.problems:
        print_line(to, f"left out: {problem}")


def print_protocol_gap(to: Console, within_group: Store, group_held_out: Store) -> None:
    """Each candidate's first metric under two protocols, and the gap between them."""
    from rich.table import Table

    from phoropter.results.metrics.registry import get_metric, metric_names
    from phoropter.results.stats.optimism import compute_protocol_gaps

    gaps = compute_protocol_gaps(within_group, group_held_out, metric_names(group_held_out.study["study"]["metrics"])[:1])
    table = Table("candidate", box=None)
    for heading in ("windows at random", "held out", "gap", "95 % interval"):
        table.add_column(heading, justify="right")
    for gap in gaps:
        interval = f"{gap.interval.low:+.3f} to {gap.interval.high:+.3f}"
        table.add_row(gap.candidate, f"{gap.within_group:.3f}", f"{gap.group_held_out:.3f}", f"{gap.difference:+.3f}", interval)
    title = get_metric(gaps[0].metric).title
    print_line(to, f"{title}, mean over folds; the interval of the gap is from a bootstrap over people or births:")
    to.print(table)

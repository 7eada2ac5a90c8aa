"""What commands print: a plan, answers, the gap between two protocols, plain lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from phoropter.results.store import Store


def make_console() -> Console:
    from rich.console import Console

    return Console()


def print_line(to: Console, text: str) -> None:
    to.print(text, markup=False, highlight=False, soft_wrap=True)


def format_large_count(count: float | None) -> str:
    return "" if not count else f"{count / 1e6:,.1f} M" if count < 1e9 else f"{count / 1e9:,.2f} G"


def print_plan(to: Console, planned: Any, cost: Any, store: Any) -> None:
    from rich.table import Table

    from phoropter.core.files import format_bytes
    from phoropter.study.progress import format_duration

    question = planned.question
    material = planned.image_sets[0]
    for change in question.smoke_changes:
        print_line(to, f"scale small: {change}")
    dataset = material.dataset
    print_line(to, f"{question.study.name}: {dataset.name}, {len(dataset)} pictures of {len(dataset.classes)} classes")
    splits = {r.split.name: r.split for r in planned.runs}
    sizes = sorted({(len(s.train), len(s.test)) for s in splits.values()})
    print_line(to, f"{len(splits)} splits, for example {sizes[0][0]} rows to train on and {sizes[0][1]} to test on")
    table = Table("candidate", "how", box=None)
    for column in ("runs", "done"):
        table.add_column(column, justify="right")
    for candidate in planned.candidates:
        runs = [r for r in planned.runs if r.candidate.name == candidate.name]
        done = sum(r.key in store for r in runs)
        table.add_row(candidate.name, candidate.description.partition(": ")[2], str(len(runs)), str(done))
    to.print(table)
    missing = len(planned.missing(store))
    basis = "at the speed of earlier runs here" if cost.measured else "a guess; the first run makes it a measurement"
    print_line(to, f"{missing} of {len(planned.runs)} runs to compute, about {format_duration(cost.seconds)} ({basis})")
    print_line(
        to, f"disk: {format_bytes(cost.pixel_bytes)} of pictures, {format_bytes(cost.feature_bytes)} of features to be written"
    )
    if cost.feature_images:
        print_line(to, f"frozen backbones are asked about {cost.feature_images:,} pictures, each view of a picture counted, once")
    if cost.worth_compiling:
        names = ", ".join(cost.worth_compiling)
        print_line(to, f"compile: true would pay back (75 s a network and run, for about a tenth of the training): {names}")
    if cost.teacher_logit_bytes:
        print_line(
            to, f"teachers' answers: {format_bytes(cost.teacher_logit_bytes)}, about {format_duration(cost.teacher_seconds)}"
        )
    for views, (size, seconds) in (cost.teacher_cost_by_views or {}).items():
        print_line(to, f"    with views {views}: {format_bytes(size)}, about {format_duration(seconds)}")


def print_predictions(to: Console, said: Any, shown: int = 20) -> None:
    """A bundle's answers: a line a recording, or a picture where there are none; then what was left out."""
    from collections import Counter

    from rich.table import Table
    from rich.text import Text

    means = said.average_by_recording()
    probabilities = said.probabilities if means is None else means[2]
    names = [str(name) for name in (said.dataset.ids if means is None else means[0])]
    table = Table("picture" if means is None else "recording", box=None)
    for heading in ([] if means is None else ["windows"]) + ["class", "probability"]:
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for row, name in enumerate(names[:shown]):
        count = [] if means is None else [str(means[1][row])]
        likeliest = int(probabilities[row].argmax())
        table.add_row(Text(name), *count, Text(said.classes[likeliest]), f"{probabilities[row][likeliest]:.3f}")
    to.print(table)
    if len(names) > shown:
        print_line(to, f"… and {len(names) - shown} more")
    counts = Counter(said.classes[int(k)] for k in probabilities.argmax(1))
    print_line(to, "together: " + ", ".join(f"{counts[name]} {name}" for name in said.classes if counts[name]))
    for note in said.notes:
        print_line(to, f"note: {note}")
    for problem in said.problems:
        print_line(to, f"left out: {problem}")


def print_protocol_gap(to: Console, lax: Store, strict: Store) -> None:
    """What either protocol says of each candidate, and how far they lie apart."""
    from rich.table import Table

    from phoropter.results.metrics.registry import get_metric
    from phoropter.results.stats.optimism import compute_protocol_gaps

    found = compute_protocol_gaps(lax, strict, strict.study["study"]["metrics"][:1])
    table = Table("candidate", box=None)
    for heading in ("windows at random", "held out", "gap", "95 % interval"):
        table.add_column(heading, justify="right")
    for each in found:
        between = f"{each.interval.low:+.3f} to {each.interval.high:+.3f}"
        table.add_row(
            each.candidate, f"{each.within_group:.3f}", f"{each.group_held_out:.3f}", f"{each.difference:+.3f}", between
        )
    print_line(
        to, f"{get_metric(found[0].metric).title}, mean over folds; the interval of the gap is over whole people or births:"
    )
    to.print(table)

"""What more data would bring: learning curves over rows or people, and the power law through each."""

from __future__ import annotations

from phoropter.report.figures.size_curves import draw_size_curves
from phoropter.report.render.metric_format import MetricFormat, difference_kind, metric_column
from phoropter.report.render.section import Section
from phoropter.report.render.table import INTERVAL_TITLE, Column, IntervalBounds, Table, TableRow
from phoropter.report.render.wording import list_names
from phoropter.report.summary.data_size.size_curves import CandidateCurve, DataSizes, read_data_sizes
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.data_size.gain import describe_law

MAX_SENTENCES = 3


def data_size_section(inputs: ReportInput) -> Section | None:
    """None where the study trains on the complete training part alone."""
    found = read_data_sizes(inputs.store, inputs.summary)
    if found is None:
        return None
    waiting = f"Not shown, because runs at some share are missing: {list_names(list(found.waiting))}." if found.waiting else ""
    if not found.curves:
        return Section("data-size", "What more data would bring", (waiting,), ())
    scale = MetricFormat.from_metric(inputs.summary.ranking_metric)
    sentences = [describe_gain(each, found, scale) for each in found.curves[:MAX_SENTENCES]]
    figure = draw_size_curves(found.curves, found.unit.plural, scale)
    text = (" ".join(sentences), *([waiting] if waiting else []))
    return Section("data-size", "What more data would bring", text, (figure, tabulate_gains(found), tabulate_sizes(found)))


def describe_gain(each: CandidateCurve, found: DataSizes, scale: MetricFormat) -> str:
    """The sentence for one candidate: what twice as many people would bring, or why that cannot be told."""
    gain, last, title = each.gain, each.curve.sizes[-1], scale.inline_title
    if gain.gain is not None:
        low, high = map(scale.format_signed, (gain.gain.low, gain.gain.high))
        return (
            f"Twice as many {found.unit.plural} to train on, {2 * last:,.0f} in place of {last:,.0f}, would bring {each.name} "
            f"about {scale.format_difference(gain.gain.value)} of {title} (95 % interval {low} to {high})."
        )
    seen = ""
    if gain.seen is not None:
        low, high = map(scale.format_signed, (gain.seen.low, gain.seen.high))
        change = f"{'better' if gain.seen.value >= 0 else 'worse'} by {scale.format_difference(gain.seen.value)}"
        seen = (
            f": from {each.curve.sizes[0]:,.0f} to {last:,.0f} {found.unit.plural} its {title} is {change} (95 % interval of the "
            f"gain {low} to {high})"
        )
    return f"What more {found.unit.plural} would bring {each.name} cannot be told, because {gain.reason}{seen}."


def tabulate_gains(found: DataSizes) -> Table:
    """A row for each candidate: the law through its errors, and what twice as much data would bring."""
    kind, digits = difference_kind(found.curves[0].curve.metric)
    columns = (
        Column("Candidate"),
        Column(f"{found.unit.plural.capitalize()} trained on", "count"),
        Column("Twice as many would bring", kind, "by the power law, in the better direction", digits),
        Column(INTERVAL_TITLE, kind, "", digits),
        Column("Law of the error", "text", f"n is the number of {found.unit.plural}"),
        Column("Remark", "words"),
    )
    rows = []
    for each in found.curves:
        gain = each.gain.gain
        bounds = None if gain is None else IntervalBounds(gain.low, gain.high)
        law = "" if each.gain.law is None else describe_law(each.gain.law)
        remark = each.gain.reason and f"cannot be told: {each.gain.reason}"
        rows.append(TableRow((each.name, each.curve.sizes[-1], None if gain is None else gain.value, bounds, law, remark)))
    note = (
        "Error = a + b n^\u2212c, a and b at least 0, fitted by least squares; the error is the distance of the metric from "
        "its best value. The interval resamples the tested units, the same at all sizes, and adds what training varies by "
        "between splits; the law is fitted to every resample. It is an extrapolation: it holds for more data of the same kind."
    )
    return Table("data-size-gains", "What twice as much data would bring", columns, tuple(rows), note)


def tabulate_sizes(found: DataSizes) -> Table:
    """A row for each candidate and size."""
    metric = metric_column(found.curves[0].curve.metric)
    counted = found.unit.plural.capitalize()
    columns = [Column("Candidate"), Column("Share", "percent", "of the training part", 0), Column(counted, "count")]
    columns += [Column("Rows", "count")] if counted != "Rows" else []
    columns += [metric, Column(INTERVAL_TITLE, metric.kind, "", metric.digits)]
    rows = []
    for each in found.curves:
        for place, share in enumerate(each.shares):
            interval = each.intervals[place]
            sizes = [each.curve.sizes[place], *([each.rows[place]] if counted != "Rows" else [])]
            bounds = IntervalBounds(interval.low, interval.high)
            rows.append(TableRow((each.name, share, *sizes, float(each.curve.values[place]), bounds)))
    note = "Shares are nested: a larger one holds the rows of a smaller one. All sizes are tested on the same rows."
    return Table("data-size", "Learning curves", tuple(columns), tuple(rows), note, max_html_rows=16)

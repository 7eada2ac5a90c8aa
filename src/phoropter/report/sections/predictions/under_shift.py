"""Under shift: the ranking metric on corrupted versions of the test rows, and what each candidate loses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from phoropter.report.figures.comparison import MAX_CURVES
from phoropter.report.figures.shift_curves import ShiftPanel, shift_figure
from phoropter.report.render.metric_format import MetricFormat, difference_kind, metric_column
from phoropter.report.render.section import ContentBlock, FoldedBlocks, Section
from phoropter.report.render.table import INTERVAL_TITLE, Column, IntervalBounds, Table, TableRow, one_line
from phoropter.report.render.wording import count_with_noun, list_names
from phoropter.report.summary.model import StudySummary
from phoropter.report.summary.report_input import ReportInput
from phoropter.report.summary.shift.shift_results import CandidateShift, ShiftResults, collect_shift_results
from phoropter.results.intervals.interval_rules import ConfidenceInterval
from phoropter.results.shift.corruption_kinds import KINDS, Corruption
from phoropter.results.shift.curves import ShiftLoss

AS_IT_IS = "as is"
MAX_NAMED = 4  # candidates of the sentence


def shift_section(inputs: ReportInput) -> Section | None:
    """None where the study asks for no corruption, and where no candidate was evaluated."""
    found = collect_shift_results(inputs.store, inputs.summary)
    if found is None or not found.candidates:
        return None
    scale = MetricFormat.from_metric(inputs.summary.ranking_metric)
    answered = [c for c in found.candidates if c.losses]
    blocks: list[ContentBlock] = []
    if answered:
        blocks.append(shift_figure(_make_panels(found, answered), scale, max(0, len(answered) - MAX_CURVES)))
        blocks += [
            FoldedBlocks(KINDS[kind].title, (loss_table(inputs.summary, answered, kind, levels),))
            for kind, levels in found.by_kind.items()
        ]
    return Section("under-shift", "Under shift", _write_paragraphs(found, answered, scale), tuple(blocks))


def _write_paragraphs(found: ShiftResults, answered: Sequence[CandidateShift], scale: MetricFormat) -> tuple[str, ...]:
    lines = [sentence for sentence in (describe_worst(found, answered, scale),) if sentence]
    lines.append(
        "The trained classifiers answered for corrupted versions of their test rows, the same for every candidate; none was "
        "trained on them, unless its recipe augments its pictures in a like manner."
    )
    if found.tables:
        lines.append(
            f"{list_names([one_line(n) for n in found.tables])} cannot be evaluated: imported features and predictions do not "
            "follow from the rows."
        )
    lacking = {c.name: c.n_missing for c in found.candidates if c.n_missing}
    if lacking:
        counts = [f"{one_line(name)} ({count_with_noun(n, 'run')})" for name, n in lacking.items()]
        lines.append(f"Not evaluated at every level: {list_names(counts)}.")
    if found.n_left_out:
        lines.append(f"{count_with_noun(found.n_left_out, 'candidate')} further down the leaderboard were not looked at here.")
    return tuple(lines)


def describe_worst(found: ShiftResults, answered: Sequence[CandidateShift], scale: MetricFormat) -> str | None:
    """What is lost where the first candidate loses most: `At JPEG quality 30, a loses 4.1 points in accuracy (…); b loses …`."""
    if not answered:
        return None
    first = answered[0]
    known = [c for c in found.corruptions if c.key in first.losses and np.isfinite(first.losses[c.key].loss)]
    if not known:
        return None
    worst = max(known, key=lambda c: first.losses[c.key].loss)
    words = [
        _describe_loss(c.name, c.losses[worst.key], scale, full=c is first)
        for c in answered
        if worst.key in c.losses and np.isfinite(c.losses[worst.key].loss)
    ]
    rest = len(words) - MAX_NAMED
    more = f"; {rest} more {'is' if rest == 1 else 'are'} in the table" if rest > 0 else ""
    return f"At {worst.words}, {'; '.join(words[:MAX_NAMED])}{more}."


def _describe_loss(name: str, loss: ShiftLoss, scale: MetricFormat, full: bool) -> str:
    sign = 1 if loss.loss >= 0 else -1
    verbs = ("loses", "gains") if scale.higher_is_better else ("is worse by", "is better by")
    verb = verbs[0 if sign > 0 else 1]
    low, high = sorted((sign * loss.low, sign * loss.high))
    interval, of = ("95 % interval ", f" in {scale.inline_title}") if full else ("", "")
    known = np.isfinite([low, high]).all()
    shown = f" ({interval}{scale.format_signed(low)} to {scale.format_signed(high)})" if known else ""
    return f"{one_line(name)} {verb} {scale.format_difference(loss.loss)}{of}{shown}"


def _make_panels(found: ShiftResults, answered: Sequence[CandidateShift]) -> list[ShiftPanel]:
    panels = []
    for kind, corruptions in found.by_kind.items():
        record = KINDS[kind]
        place = record.order_levels({c.level for c in corruptions})[1]
        ticks = [record.format_level(c.level) for c in corruptions]
        curves = {}
        for candidate in answered:
            values = [_list_bounds(_find_value(candidate, c)) for c in corruptions]
            values.insert(place, _list_bounds(candidate.clean))
            curves[candidate.name] = np.array(values)
        panels.append(ShiftPanel(record.title, record.unit, [*ticks[:place], AS_IT_IS, *ticks[place:]], curves))
    return panels


def _find_value(candidate: CandidateShift, corruption: Corruption) -> ConfidenceInterval | None:
    loss = candidate.losses.get(corruption.key)
    return None if loss is None else loss.value


def _list_bounds(interval: ConfidenceInterval | None) -> tuple[float, float, float]:
    if interval is None:
        return float("nan"), float("nan"), float("nan")
    return interval.estimate, interval.low, interval.high


def loss_table(summary: StudySummary, answered: Sequence[CandidateShift], kind: str, levels: Sequence[Corruption]) -> Table:
    """A row for each candidate as it is, and for each level: the value, and the paired loss."""
    metric, record = summary.ranking_metric, KINDS[kind]
    column, (signed, digits) = metric_column(metric), difference_kind(metric)
    columns = (
        Column("Candidate"),
        Column("Level", "text", f"{record.unit}; as is: not corrupted"),
        column,
        Column(INTERVAL_TITLE, column.kind, "", column.digits),
        Column("Loss", signed, "against the rows as they are; above 0 is worse", digits),
        Column("95\u00a0% interval of the loss", signed, "", digits),
    )
    rows = []
    for candidate in answered:
        clean = candidate.clean
        rows.append(
            TableRow((candidate.name, AS_IT_IS, clean.estimate, IntervalBounds(clean.low, clean.high), None, None), "baseline")
        )
        for corruption in levels:
            if (loss := candidate.losses.get(corruption.key)) is None:
                continue
            value, bounds = loss.value, IntervalBounds(loss.low, loss.high)
            shown = IntervalBounds(value.low, value.high)
            level = record.format_level(corruption.level)
            rows.append(TableRow((candidate.name, level, value.estimate, shown, loss.loss, bounds)))
    methods = "; ".join(dict.fromkeys(c.clean.method for c in answered))
    note = f"Values: {methods}. Losses: percentiles of paired bootstrap differences of the same units, stretched by Student's t."
    return Table(f"under-{kind.replace('_', '-')}", f"{record.title} ({record.unit})", columns, tuple(rows), note)

"""Planned contrasts: the questions that the study file asks, with their answers; and main effects, which nobody asked for."""

from __future__ import annotations

from collections.abc import Sequence

from phoropter.report.render.metric_format import MetricFormat, difference_kind
from phoropter.report.render.section import Section
from phoropter.report.render.table import CellValue, Column, ColumnKind, IntervalBounds, Table, TableRow
from phoropter.report.render.wording import count_with_noun
from phoropter.report.sections.candidates.pair_words import NO_BETTER_THAN_GUESSING
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.metrics.registry import METRICS
from phoropter.results.questions.contrasts import ContrastAnswer
from phoropter.results.stats.pairs.answers import Answer


def contrasts_section(inputs: ReportInput) -> Section | None:
    """None where the study plans no contrast."""
    planned = inputs.answers.planned
    if not planned:
        return None
    metrics = list(dict.fromkeys(a.contrast.metric for a in planned))
    tables = [_planned_table([a for a in planned if a.contrast.metric == m], m, len(metrics) > 1) for m in metrics]
    units = [_unit_table(a, number) for number, a in enumerate(planned) if len(a.of_units) > 1]
    return Section("contrasts", "Planned contrasts", _explain_contrasts(planned), (*tables, *units))


def _explain_contrasts(planned: Sequence[ContrastAnswer]) -> tuple[str, ...]:
    number = count_with_noun(len(planned), "question")
    text = [
        f"The study file asked {'this' if len(planned) == 1 else 'these'} {number} beforehand. A contrast is the mean difference "
        "over its candidates, paired within each split and candidate. "
        + ("p needs no correction for one question." if len(planned) == 1 else f"p is corrected for the {number} (Holm).")
        + " On new rows: these trained models on other rows like these. Trained again: also other training data of this size. "
        "All other comparisons on this page are exploratory: read them as questions for the next study."
    ]
    notes = dict.fromkeys(f"{a.contrast.title} has no answer: {a.note}." for a in planned if a.note)
    return (*text, *notes)


def _planned_table(answers: Sequence[ContrastAnswer], metric: str, several: bool) -> Table:
    title, kind, digits = _metric_columns(metric)
    columns = (
        Column("Contrast"),
        Column("Difference", kind, f"in {title}: the first side minus the other", digits),
        Column("On new rows", kind, "95 % interval, not corrected", digits),
        Column("p on new rows", "p", "corrected for the planned questions"),
        Column("Verdict on new rows"),
        Column("Trained again", kind, "95 % interval, not corrected", digits),
        Column("p trained again", "p", "corrected for the planned questions"),
        Column("Verdict trained again"),
        Column("Wins", "text", "candidates, or backbones, in which the first side is better; of a single pair, splits"),
    )
    rows = []
    for a in answers:
        cells: list[CellValue] = [f"{a.contrast.title} ({a.contrast.role})", a.difference]
        for answer in (a.rows, a.training):
            cells += [_bounds(answer), answer.p_adjusted, _verdict_word(a, answer)]
        rows.append(TableRow((*cells, _count_wins(a)), "leader" if a.contrast.role == "primary" else "plain"))
    name = f"contrasts-{metric.replace('_', '-')}" if several else "contrasts"
    return Table(name, f"Planned contrasts by {title}", columns, tuple(rows), sortable=False)


def _verdict_word(of: ContrastAnswer, answer: Answer) -> str:
    if not answer.is_tested:
        return "not tested"
    return NO_BETTER_THAN_GUESSING if of.is_guessing and answer.verdict == "cannot tell" else answer.verdict


def _unit_table(answer: ContrastAnswer, number: int) -> Table:
    """The difference of each candidate or backbone."""
    title, kind, digits = _metric_columns(answer.contrast.metric)
    columns = (Column("Candidate"), Column("Difference", kind, f"in {title}, mean over splits", digits))
    units = answer.contrast.units
    rows = tuple(TableRow((unit.title, d)) for unit, d in zip(units, answer.of_units, strict=True))
    return Table(f"contrast-{number + 1}-by-candidate", f"{answer.contrast.title}, candidate by candidate", columns, rows)


def main_effects_table(answers: Sequence[ContrastAnswer], factor: str, what: str) -> Table | None:
    """Every level of a swept factor, or every family, against the first, averaged over all else; None where there are none."""
    effects = [a for a in answers if a.contrast.factor == factor and a.of_units]
    if not effects:
        return None
    title, kind, digits = _metric_columns(effects[0].contrast.metric)
    columns = (
        Column(what),
        Column("Against"),
        Column("Difference", kind, f"in {title}, averaged over all else", digits),
        Column("On new rows", kind, "95 % interval, not corrected", digits),
        Column("Trained again", kind, "95 % interval, not corrected", digits),
        Column("Wins", "text", "candidates in which the first level is better; of families, splits"),
    )
    rows = tuple(
        TableRow((a.contrast.side, a.contrast.against, a.difference, _bounds(a.rows), _bounds(a.training), _count_wins(a)))
        for a in effects
    )
    note = "Exploratory: not planned beforehand, not corrected for their number, and so without a verdict."
    caption = f"Main effects of {what}, paired within split and candidate"
    if factor == "family":
        caption = "Families, each the mean over its candidates, paired within split"
    return Table(f"effects-{factor.replace('.', '-')}", caption, columns, rows, note, max_html_rows=12)


def _bounds(answer: Answer) -> IntervalBounds:
    return IntervalBounds(answer.result.low, answer.result.high)


def _count_wins(answer: ContrastAnswer) -> str | None:
    """`8 of 8`, of the units; where there is one, of the splits."""
    if len(answer.of_units) > 1:
        return f"{answer.n_wins} of {len(answer.of_units)}"
    splits = len(answer.of_splits)
    return f"{answer.n_split_wins} of {count_with_noun(splits, 'split')}" if splits > 1 else None


def _metric_columns(metric: str) -> tuple[str, ColumnKind, int]:
    record = METRICS[metric]
    return MetricFormat.from_metric(record).inline_title, *difference_kind(record)

"""Negative controls: what the same method reaches where nothing can be learnt, or only what it should not learn."""

from __future__ import annotations

from phoropter.report.render.metric_format import MetricFormat
from phoropter.report.render.section import Section
from phoropter.report.render.table import INTERVAL_TITLE, Column, IntervalBounds, RowRole, Table, TableRow
from phoropter.report.summary.controls.control_results import ControlResult
from phoropter.report.summary.model import StudySummary
from phoropter.report.summary.report_input import ReportInput

CONTROL_TITLES = {
    "labels-permuted": "Labels exchanged at random",
    "predict-site": "The {site} in place of the class",
    "predict-group": "The {group} in place of the class",
    "blank-pictures": "Blank pictures",
    "time-shuffled": "Samples in random order",
}
_AT_GUESSING = ("labels-permuted", "blank-pictures")  # a sound study is at guessing


def controls_section(inputs: ReportInput) -> Section | None:
    """None where the study asks for none."""
    if not inputs.controls:
        return None
    sentences = tuple(describe_control(control, inputs.summary) for control in inputs.controls)
    return Section("controls", "Negative controls", sentences, (controls_table(inputs.controls, inputs.summary),))


def describe_failed_controls(controls: tuple[ControlResult, ...], summary: StudySummary) -> tuple[str, ...]:
    """The sentences of controls that show a leak: better than guessing where nothing can be learnt."""
    return tuple(describe_control(c, summary) for c in controls if c.is_above and c.kind in _AT_GUESSING)


def controls_table(controls: tuple[ControlResult, ...], summary: StudySummary) -> Table:
    """A row for each control, in the scale of its metric."""
    columns = (
        Column("Control"),
        Column("Candidate"),
        Column("Metric"),
        Column("Value", "number", "", 3),
        Column(INTERVAL_TITLE, "number", "", 3),
        Column("Guessing", "number", "the value without information, which a sound study reaches where nothing can be learnt", 3),
        Column("In the study", "number", "the same candidate and metric with the true labels, pictures and order", 3),
        Column("Classes", "count"),
        Column("Runs", "count"),
    )
    rows = []
    for c in controls:
        found = None if c.interval is None else c.interval.estimate
        bounds = None if c.interval is None else IntervalBounds(c.interval.low, c.interval.high)
        cells = (_name_control(c, summary), c.candidate or "–", c.metric.title if c.metric else "–", found, bounds, c.guessing)
        role: RowRole = "warning" if c.is_above and c.kind in _AT_GUESSING else "plain"
        rows.append(TableRow((*cells, c.own_value, c.n_classes or None, c.n_runs), role))
    note = "Each control has a results folder of its own, controls/ in the study's, with its folds and predictions."
    return Table("controls", "Negative controls", columns, tuple(rows), note)


def describe_control(control: ControlResult, summary: StudySummary) -> str:
    """What a control shows, in a sentence or two."""
    title = _name_control(control, summary)
    if control.metric is None or control.interval is None:
        return f"{title}: {control.problem or 'its figure is not defined for these rows'}."
    scale = MetricFormat.from_metric(control.metric)
    bounds = f"{scale.format_value(control.interval.low)} to {scale.format_value(control.interval.high)}"
    reached = f"{control.candidate} reaches {scale.inline_title} {scale.format_value(control.interval.estimate)} ({bounds})"
    guessing = "guessing" if control.guessing is None else f"guessing, which reaches {scale.format_value(control.guessing)}"
    meaning = _explain_time(control, scale) if control.kind == "time-shuffled" else _explain(control, summary)
    verdict = "clearly better than" if control.is_above else "not clearly better than"
    incomplete = f" It is not complete: {control.problem}." if control.problem else ""
    return " ".join([f"{title}: {reached}, {verdict} {guessing}. {meaning}{incomplete}", *control.notes])


def _name_control(control: ControlResult, summary: StudySummary) -> str:
    words = {"site": summary.site_word.singular, "group": summary.group_word.singular}
    return CONTROL_TITLES.get(control.kind, control.kind).format(**words)


def _explain(control: ControlResult, summary: StudySummary) -> str:
    site, group = summary.site_word, summary.group_word
    if control.kind == "predict-site":
        apart = f"every {site.singular} is on both sides of its folds" + (
            f", and {group.plural} are kept apart" if summary.has_groups else ""
        )
        if control.is_above:
            return (
                f"Pictures tell the {site.singular} ({apart}), so a shortcut is possible wherever classes are not equally common "
                f"at all {site.plural}: look at each {site.singular} by itself, and test on {site.plural} never trained on."
            )
        return f"No shortcut by {site.singular} was found by this method ({apart})."
    if control.kind == "predict-group":
        apart = f"rows of every {group.singular} are on both sides of its folds"
        if control.is_above:
            return (
                f"Pictures tell the {group.singular} ({apart}): folds that do not keep {group.plural} apart would count "
                f"recognised {group.plural} as recognised classes."
            )
        return f"The {group.singular} was not recognised by this method ({apart})."
    if control.is_above:
        what = "no picture" if control.kind == "blank-pictures" else "no true label"
        return (
            f"There was {what} to learn from, so something else tells the answer, or this is the one study in forty in which "
            "chance does: look for rows of one origin on both sides of a split before believing the figures above."
        )
    return "That is as it should be: there was nothing to learn."


def _explain_time(control: ControlResult, scale: MetricFormat) -> str:
    own = "" if control.own_value is None else f"; with them in order it reaches {scale.format_value(control.own_value)}"
    return f"With the samples of each window in random order their values are left, and not their course{own}."

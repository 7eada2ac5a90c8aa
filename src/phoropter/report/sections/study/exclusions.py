"""Where the rows come from: what the source held, what was left out at each step and why, and what was analysed."""

from __future__ import annotations

from collections.abc import Sequence

from phoropter.core.language.unit_words import UnitWord
from phoropter.report.figures.exclusion_flow import FlowBox, draw_exclusion_flow
from phoropter.report.render.section import Section
from phoropter.report.render.table import CellValue, Column, Table, TableRow, one_line
from phoropter.report.render.wording import list_names
from phoropter.report.summary.model import StudySummary
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.exclusions import ExclusionStep, read_steps

_MORE = UnitWord("more class", "more classes")
MAX_CLASSES = 8  # in the last box
_TITLE = "Where the rows come from"


def exclusions_section(inputs: ReportInput) -> Section | None:
    """None where the results were written before exclusions were counted."""
    summary = inputs.summary
    sentences = describe_exclusions(summary)
    if not sentences:
        return None
    steps = read_steps(summary.study["dataset"]["exclusions"])
    varied = [str(key) for key in (summary.study.get("study") or {}).get("sweep") or () if str(key).startswith("data.")]
    text = [" ".join(sentences)]
    text += [f"The study varies {list_names(varied)}; these are the counts of the first value."] if varied else []
    if not steps:
        return Section("exclusions", _TITLE, tuple(text), ())
    text.append("No candidate has seen a row that was left out, in training or in a test.")
    caption = "From what the source holds to the rows that were analysed; to the right, what was left out and why."
    said = f"{' '.join(sentences)} Analysed: {', '.join(_list_class_counts(summary))}."
    figure = draw_exclusion_flow(list_flow_boxes(steps, summary), caption, said)
    return Section("exclusions", _TITLE, tuple(text), (figure, tabulate_exclusions(steps, summary)))


def describe_exclusions(summary: StudySummary) -> list[str]:
    """A sentence for each step, or one where nothing was left out; none for results written before exclusions were counted."""
    dataset = summary.study.get("dataset") or {}
    if (written := dataset.get("exclusions")) is None:
        return []
    steps = read_steps(written)
    none = f"All {int(dataset['rows']):,} rows that the source has are used; none was left out."
    return [describe_step(step, summary) for step in steps] or [none]


def describe_step(step: ExclusionStep, summary: StudySummary) -> str:
    """`Of 552 recordings 470 were kept, of 470 births; left out: of unknown class (80), shorter than a window (2).`"""
    of_groups = "" if step.groups is None else f", of {summary.group_word.count(step.groups)}"
    if not step.left_out:
        if step.unit == "windows":
            return f"They gave {step.found:,} windows{of_groups}."
        return f"All {step.found:,} {step.unit} were kept{of_groups}."
    reasons = ", ".join(f"{reason} ({count:,})" for reason, count in step.left_out)
    return f"Of {step.found:,} {step.unit} {step.kept:,} were kept{of_groups}; left out: {reasons}."


def list_flow_boxes(steps: Sequence[ExclusionStep], summary: StudySummary) -> list[FlowBox]:
    """The boxes of the figure: one for what is found of each unit, one after each exclusion; the last counts the classes."""
    boxes: list[FlowBox] = []
    for place, step in enumerate(steps):
        kept = [f"{step.kept:,} {step.unit}", *([] if step.groups is None else [f"of {summary.group_word.count(step.groups)}"])]
        new_unit = place == 0 or step.unit != steps[place - 1].unit
        several = len(step.left_out) > 1  # the count of a single reason is the total
        left_out = tuple(f"{reason}: {count:,}" if several else reason for reason, count in step.left_out)
        if new_unit and left_out:
            boxes.append(FlowBox((f"{step.found:,} {step.unit} found" if place == 0 else f"{step.found:,} {step.unit} cut",)))
        if left_out:
            boxes[-1] = FlowBox(boxes[-1].text, (f"Left out: {step.total_left_out:,}", *left_out))
        if left_out or new_unit:
            boxes.append(FlowBox(tuple(kept)))
    last = boxes[-1]
    return [*boxes[:-1], FlowBox((*last.text, *_list_class_counts(summary)))]


def tabulate_exclusions(steps: Sequence[ExclusionStep], summary: StudySummary) -> Table:
    """A row for each reason; kept + left out = found in each, and the next begins with what the last kept."""
    groups = summary.group_word.plural.capitalize()
    columns = (
        Column("Counted"),
        Column("Found", "count"),
        Column("Left out", "count"),
        Column("Reason", "words"),
        Column("Kept", "count"),
        Column(f"{groups} kept", "count", "where it is known whose they are"),
    )
    rows = []
    for step in steps:
        found = step.found
        for reason, count in step.left_out or (("", 0),):
            kept = found - count
            values: tuple[CellValue, ...] = (step.unit, found, count, one_line(reason), kept)
            rows.append(TableRow((*values, step.groups if kept == step.kept else None)))
            found = kept
    return Table("exclusions", "What was left out, step by step", columns, tuple(rows), sortable=False)


def _list_class_counts(summary: StudySummary) -> list[str]:
    dataset = summary.study["dataset"]
    pairs = list(zip(dataset["classes"], dataset["counts"], strict=True))
    more = len(pairs) - MAX_CLASSES
    shown = [f"{one_line(str(name))}: {int(count):,}" for name, count in pairs[:MAX_CLASSES]]
    return shown + ([f"and {_MORE.count(more)}"] if more > 0 else [])

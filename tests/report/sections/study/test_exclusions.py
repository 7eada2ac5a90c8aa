"""Where the rows come from: boxes, table and sentences have the counts of study.json, and these add up."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from phoropter.core.language.unit_words import parse_unit_word
from phoropter.report.figures.exclusion_flow import FlowBox, draw_exclusion_flow
from phoropter.report.render.section import Section
from phoropter.report.render.svg import RenderedFigure
from phoropter.report.render.table import Table
from phoropter.report.sections.study.exclusions import (
    describe_exclusions,
    describe_step,
    exclusions_section,
    list_flow_boxes,
    tabulate_exclusions,
)
from phoropter.results.exclusions import ExclusionStep, make_step

STEPS = (
    make_step("recordings", 470, {"of unknown class": 80, "shorter than a <b>window</b>": 2}, 468),
    make_step("windows", 1405, {}, 468),
    make_step("windows", 1000, {"beyond max_samples of 1,000": 405}, 460),
)


def make_inputs(steps: tuple[ExclusionStep, ...] | None, sweep: dict[str, list[int]] | None = None) -> Any:
    dataset = {"rows": 1000, "classes": ["normal", "high-risk"], "counts": [900, 100]}
    dataset |= {} if steps is None else {"exclusions": [step.plain() for step in steps]}
    return SimpleNamespace(
        summary=SimpleNamespace(study={"dataset": dataset, "study": {"sweep": sweep or {}}}, group_word=parse_unit_word("birth"))
    )


def read_section(steps: tuple[ExclusionStep, ...] | None) -> Section:
    section = exclusions_section(make_inputs(steps))
    assert section is not None
    return section


def test_old_results_have_no_section_and_plain_pictures_one_sentence() -> None:
    assert exclusions_section(make_inputs(None)) is None
    section = read_section(())
    assert section.paragraphs == ("All 1,000 rows that the source has are used; none was left out.",) and not section.blocks


@pytest.mark.parametrize(("classes", "words"), [(9, "and 1 more class"), (10, "and 2 more classes")])
def test_classes_beyond_those_shown_are_counted(classes: int, words: str) -> None:
    summary = make_inputs(()).summary
    summary.study["dataset"] |= {"classes": [f"c{k}" for k in range(classes)], "counts": [100] * classes}
    assert list_flow_boxes(STEPS, summary)[-1].text[-1] == words


def test_a_sentence_for_each_step_and_of_which_variant_they_are() -> None:
    summary = make_inputs(STEPS).summary
    assert describe_exclusions(summary) == [
        "Of 552 recordings 470 were kept, of 468 births; left out: of unknown class (80), shorter than a <b>window</b> (2).",
        "They gave 1,405 windows, of 468 births.",
        "Of 1,405 windows 1,000 were kept, of 460 births; left out: beyond max_samples of 1,000 (405).",
    ]
    assert describe_step(make_step("recordings", 3, {}, 1), summary) == "All 3 recordings were kept, of 1 birth."
    section = exclusions_section(make_inputs(STEPS, {"data.window.length_s": [5, 10], "recipe.lr": [1]}))
    assert section is not None and section.paragraphs[1].startswith("The study varies data.window.length_s; these are the counts")


def test_boxes_go_from_what_was_found_to_the_classes() -> None:
    boxes = list_flow_boxes(STEPS, make_inputs(STEPS).summary)
    assert [box.text[0] for box in boxes] == ["552 recordings found", "470 recordings", "1,405 windows", "1,000 windows"]
    assert boxes[0].left_out == ("Left out: 82", "of unknown class: 80", "shorter than a <b>window</b>: 2")
    assert (
        boxes[1].text[1] == "of 468 births"
        and not boxes[1].left_out
        and boxes[2].left_out == ("Left out: 405", "beyond max_samples of 1,000")
    )
    assert boxes[3].text[1:] == ("of 460 births", "normal: 900", "high-risk: 100")


def test_every_row_of_the_table_adds_up_and_goes_on_from_the_last() -> None:
    table = tabulate_exclusions(STEPS, make_inputs(STEPS).summary)
    rows = [row.values for row in table.rows]
    assert [row[0] for row in rows] == ["recordings", "recordings", "windows", "windows"]
    assert all(found == left_out + kept for _, found, left_out, _, kept, _ in rows)
    assert [row[1] for row in rows] == [552, 472, 1405, 1405] and [row[5] for row in rows] == [None, 468, 468, 460]
    assert table.columns[5].name == "Births kept"


def test_the_figure_draws_every_count_once_and_says_it_to_readers() -> None:
    figure, table = read_section(STEPS).blocks
    assert isinstance(figure, RenderedFigure) and isinstance(table, Table)
    page = str(figure.inline_svg)
    wide, narrow = page.split('<div class="at-narrow">')
    for form in (wide, narrow):
        drawn = [text.strip() for text in re.findall(r"<text[^>]*>(.*?)</text>", form, re.DOTALL)]
        assert sum("552" in text for text in drawn) == 1 and sum("high-risk: 100" in text for text in drawn) == 1
        assert "<b>" not in form and figure.pdf.startswith(b"%PDF")
    for words in (*(describe_step(step, make_inputs(STEPS).summary) for step in STEPS), "high-risk: 100"):
        assert words in figure.alt_text


@pytest.mark.parametrize("lines", [1, 12])
def test_boxes_do_not_overlap_whatever_their_text(lines: int) -> None:
    boxes = [FlowBox(("1 picture",), tuple(f"a reason of some length, number {i}" for i in range(lines))), FlowBox(("2",))]
    figure = draw_exclusion_flow(boxes, "c", "a")
    heights = [float(h) for h in re.findall(r'viewBox="0 0 [\d.]+ ([\d.]+)"', str(figure.inline_svg))]
    assert heights[1] >= heights[0] > 72 * 0.165 * lines, "the narrow form is as high or higher"

"""The section of negative controls: a sentence and a row for each, and a notice where one shows a leak."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from made_controls import make_controlled_study

from phoropter.report.page import collect_notices, read_report_input
from phoropter.report.render.table import Table
from phoropter.report.sections.study.controls import controls_section, describe_control
from phoropter.report.summary.report_input import ReportInput


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> ReportInput:
    return read_report_input(make_controlled_study(tmp_path_factory.mktemp("controlled") / "out").folder)


def test_each_control_has_a_sentence(inputs: ReportInput) -> None:
    section = controls_section(inputs)
    assert section is not None and section.title == "Negative controls"
    permuted, site, blank, time, group = map(str, section.paragraphs)
    assert permuted.startswith("Labels exchanged at random: net reaches accuracy ") and "clearly better than guessing" in permuted
    assert "so something else tells the answer, or this is the one study in forty in which chance does" in permuted
    assert "Pictures tell the site (every site is on both sides of its folds, and groups are kept apart)" in site
    assert "not clearly better than guessing" in blank and "as it should be: there was nothing to learn" in blank
    own = next(c for c in inputs.summary.candidates if c.name == "net").values["accuracy"]
    assert f"; with them in order it reaches {own * 100:.1f} %." in time and "It is not complete: runs are missing." in time
    assert group == "The group in place of the class: it has not been run: run the study again."


def test_rows_that_a_control_leaves_out_are_named(inputs: ReportInput) -> None:
    site = next(c for c in inputs.controls if c.kind == "predict-site")
    assert site.notes == () and describe_control(site, inputs.summary).endswith(
        "look at each site by itself, and test on sites never trained on."
    )
    note = "predict-group leaves out p0: of these no 5 folds can be made."
    assert describe_control(replace(site, notes=(note,)), inputs.summary).endswith(f"never trained on. {note}")


def test_the_table_has_figure_interval_and_guessing(inputs: ReportInput) -> None:
    section = controls_section(inputs)
    assert section is not None
    (table,) = section.blocks
    assert isinstance(table, Table)
    for row, control in zip(table.rows, inputs.controls, strict=True):
        cells = dict(zip((column.name for column in table.columns), row.values, strict=True))
        if control.interval is not None:
            assert cells["Value"] == control.interval.estimate and cells["Guessing"] == control.guessing
        assert (row.role == "warning") == (control.kind == "labels-permuted")


def test_a_leak_stands_at_the_head_of_the_page(inputs: ReportInput) -> None:
    (notice,) = [n for n in collect_notices(inputs.summary, inputs.controls) if "control" in n.title]
    assert notice.title == "A negative control is better than guessing." and len(notice.lines) == 1
    assert notice.lines[0].startswith("Labels exchanged at random")


def test_a_study_without_controls_has_no_section(inputs: ReportInput, tmp_path: Path) -> None:
    assert controls_section(ReportInput(inputs.store, inputs.summary, inputs.comparisons)) is None

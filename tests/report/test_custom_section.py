"""Sections of a user's own: shown in their place, written as files, and refused where they would clash or fail."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from made_study import Made, make_study
from reading_html import Tags

import phoropter as ph
from phoropter.core.errors import SpecError
from phoropter.core.extensions import trust_code
from phoropter.report.custom_section import load_section
from phoropter.report.page import write_report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMALL = Made(accuracies={"a": 0.9, "b": 0.8}, classes=("x", "y"), rows=60, folds=3, seeds=(0,), epochs=2, pictures=0)
MODULE = """
import phoropter as ph

def RUNS(inputs):
    rows = tuple(ph.TableRow((c.name, len(c.runs))) for c in inputs.summary.candidates)
    table = ph.Table("run-counts", "Runs <b>of</b> each candidate", (ph.Column("Candidate"), ph.Column("Runs", "count")), rows)
    return ph.Section("run-counts", "Run counts", ("Counted & shown.",), (table,))

NOT_A_FUNCTION = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_study(tmp_path / "study", SMALL).folder


def accuracy_by_fold(inputs: ph.ReportInput) -> ph.Section:
    """A figure and a table of the same numbers."""
    candidates = inputs.summary.candidates

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for c in candidates:
            axes.plot(c.metric_values("accuracy") * 100, "o-", label=c.name)

    drawing = ph.draw_figure("accuracy-by-fold", "Accuracy of each fold", "One line per candidate.", (3.6, 2.6), paint)
    rows = tuple(ph.TableRow((c.name, *map(float, c.metric_values("accuracy")))) for c in candidates)
    columns = (ph.Column("Candidate"), *(ph.Column(f"Fold {k + 1}", "percent") for k in range(3)))
    return ph.Section("folds", "Accuracy by fold", ("As computed.",), (drawing, ph.Table("by-fold", "By fold", columns, rows)))


def test_a_section_stands_before_the_provenance_with_its_files(folder: Path) -> None:
    page = write_report(folder, sections=[accuracy_by_fold, lambda inputs: None])
    text = page.read_text(encoding="utf-8")
    assert text.index('id="leakage"') < text.index('id="folds"') < text.index('id="provenance"')
    shown = Tags(text).columns("by-fold")
    for run in ph.Store(folder).runs():
        predictions = run.load_predictions()
        assert predictions is not None
        accuracy = float(np.mean(predictions.logits.argmax(1) == predictions.labels)) * 100
        assert shown[run.candidate_name][f"Fold {run.record['split']['fold'] + 1}\u00a0%"] == f"{accuracy:.1f}"
    with (page.parent / "tables" / "by-fold.csv").open(encoding="utf-8") as file:
        assert len(list(csv.reader(file))) == 3
    assert (page.parent / "figures" / "accuracy-by-fold.pdf").read_bytes().startswith(b"%PDF")
    assert not Tags(text).columns("leaderboard").keys() - {"a", "b", "majority-class baseline"}


def _section(id: str = "mine", table: str = "mine") -> Callable[[Any], ph.Section]:
    columns = (ph.Column("Candidate"),)
    return lambda inputs: ph.Section(id, "Mine", (), (ph.Table(table, "Mine", columns, (ph.TableRow(("a",)),)),))


def _failing_section(inputs: ph.ReportInput) -> None:
    raise KeyError("no such metric")


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ([_section(id="cost")], "'cost' is already used on this page"),
        ([_section(table="leaderboard")], "'tables/leaderboard' is already used on this page"),
        ([_section(), _section()], "'mine' is already used on this page"),
        ([_section(table="../outside")], r"got '\.\./outside'"),
        ([_section(id='"><script>')], "expected lower-case letters, digits and hyphens"),
        ([_failing_section], "section _failing_section failed: KeyError: 'no such metric'"),
        ([lambda inputs: "text"], "returned a str, expected a Section or None"),
    ],
)
def test_a_section_that_clashes_or_fails_is_refused_before_anything_is_written(
    folder: Path, sections: list[Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        write_report(folder, sections=sections)
    assert not (folder / "report").exists()


def test_a_section_is_loaded_by_name_only_from_trusted_code(folder: Path, request: pytest.FixtureRequest) -> None:
    (folder / "own_sections.py").write_text(MODULE)
    request.addfinalizer(lambda: sys.modules.pop("own_sections", None))  # a copy of sys.modules would break imports in C
    with pytest.raises(SpecError, match="--trust-code"):
        load_section("own_sections:RUNS")
    with trust_code(folder):
        text = write_report(folder, sections=[load_section("own_sections:RUNS")]).read_text(encoding="utf-8")
        for reference, message in (
            ("own_sections:NOTHING", "has no 'NOTHING'"),
            ("own_sections:NOT_A_FUNCTION", "is a .*, expected a function"),
            ("no_such_module_anywhere:X", "cannot be imported"),
            ("own_sections.py", "expected module:NAME"),
        ):
            with pytest.raises(SpecError, match=message):
                load_section(reference)
    assert Tags(text).tables["run-counts"][1:] == [["a", "3"], ["b", "3"]]
    assert "Runs &lt;b&gt;of&lt;/b&gt; each candidate" in text and "Counted &amp; shown." in text


def test_a_block_of_another_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="section mine: a block is a str, expected a Table, a RenderedFigure or Markup"):
        ph.Section("mine", "Mine", (), ("text",))  # type: ignore[arg-type]

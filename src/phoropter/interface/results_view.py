"""Results: what a finished study says, as DataFrames, figures and files. Everything is computed from the stored predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from phoropter.core.errors import SpecError, StoreError, did_you_mean, join_words
from phoropter.core.language.notebook_html import format_notebook_html
from phoropter.interface import frames
from phoropter.report.figures.predictions import confusion_matrix_figure
from phoropter.report.page import read_report_input, write_report
from phoropter.report.render.section import Section
from phoropter.report.render.svg import RenderedFigure
from phoropter.report.render.table import Table, format_cell
from phoropter.report.sections.candidates.leaderboard import leaderboard_table
from phoropter.report.sections.order import select_builders
from phoropter.report.summary.compare import collect_scores
from phoropter.report.summary.guessing import find_uninformed
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.positive_class import open_results
from phoropter.results.remote_store import open_place
from phoropter.results.stats.compare import compare_all_pairs, correct_for_family
from phoropter.results.store import Run, Store

if TYPE_CHECKING:
    import pandas as pd

    from phoropter.report.custom_section import SectionFunction


Block = TypeVar("Block", Table, RenderedFigure)


@dataclass(frozen=True)
class Results:
    """The finished runs of a study, with their predictions on held-out rows.

    Values, tables and figures are those of the page. They are read once, so a study that is still running needs `ph.open` again.
    Each raises StoreError where the folder holds no finished run.
    """

    store: Store

    @property
    def runs(self) -> list[Run]:
        return list(self.store.runs())

    @property
    def failures(self) -> dict[str, dict[str, Any]]:
        """Run key → what is known of a run that failed: candidate, split, seed, error."""
        return dict(self.store.read_failures())

    @cached_property
    def inputs(self) -> ReportInput:
        """What the page is made of: summary, comparisons, answers to planned questions, operating points."""
        return read_report_input(self.store.folder)

    def to_dataframe(self) -> pd.DataFrame:
        """One row per run: candidate, seed, repeat, fold, and its metrics."""
        return frames.tabulate_runs(self.runs)

    def leaderboard(self) -> pd.DataFrame:
        """One row per candidate, best first: each metric with its standard deviation over splits, runs, parameters, seconds.

        low, high: the 95 % interval of the first metric
        """
        return frames.tabulate_leaderboard(self.inputs.summary)

    def table(self, name: str = "leaderboard") -> pd.DataFrame:
        """A table of the page by the name of its file, unrounded. Raises SpecError, with the names there are, for another."""
        return frames.tabulate_page_table(self._find_block(name, Table, "table"))

    def figure(self, name: str = "leaderboard") -> RenderedFigure:
        """A figure of the page by the name of its file; a notebook shows it. Raises SpecError, with the names there are."""
        return self._find_block(name, RenderedFigure, "figure")

    def list_tables(self) -> pd.DataFrame:
        """The tables of the page: `name`, for `table`; `section` of the page, and `caption`."""
        return self._list_blocks_of_kind(Table)

    def list_figures(self) -> pd.DataFrame:
        """The figures of the page: `name`, for `figure`; `section` of the page, and `caption`."""
        return self._list_blocks_of_kind(RenderedFigure)

    def confusion_figure(self, candidate: str | None = None) -> RenderedFigure:
        """The confusion matrix of any candidate (default: the best); the page draws those of the first ones alone.

        Held-out rows of all runs, as shares of each true class. Raises SpecError for a name that is no candidate, and where rows
        have several labels.
        """
        summary = self.inputs.summary
        by_name = {c.name: c for c in summary.candidates}
        name = _find_name(self.best if candidate is None else candidate, by_name, "candidate")
        if summary.is_multi_label:
            raise SpecError("confusion_figure: rows of this study have several labels, so that no class is taken for another")
        return confusion_matrix_figure(by_name[name].confusion, summary.classes, name, "confusion")

    def compare(self, a: str, b: str) -> pd.DataFrame:
        """Candidate a against b by the first metric: a row for each of the two questions of the page.

        `rows`: these trained models on new rows like these · `training`: trained again on other data of this size. Each has
        difference a - b, low, high (95 %), p, p_adjusted (over all pairs of the study), verdict (about a), test, units, note.
        Raises SpecError for a name that is no candidate of the study.
        """
        names = [c.name for c in self.inputs.summary.candidates]
        a, b = (_find_name(name, names, "candidate") for name in (a, b))
        if a == b:
            raise SpecError(f"compare: '{a}' came twice; expected two different candidates")
        found = [c for c in self.inputs.comparisons.pairs if {c.a, c.b} == {a, b}] or self._compare_untested(a, b)
        return frames.tabulate_comparison(found[0], mirrored=found[0].a != a)

    def predictions(self, part: str = "test") -> pd.DataFrame:
        """One row per prediction: candidate, seed, repeat, fold, id, label, class (the likeliest), p_CLASS of each class, and
        group, site, recording, start_s and stop_s where rows have them.

        part: `test` (held-out rows), `validation` (inner part) or `external` (unseen sites); empty where the study has none
        """
        _find_name(part, frames.PARTS, "part")
        return frames.tabulate_predictions(self._ordered_store.runs(), part)

    def to_parquet(self, path: Path | str) -> Path:
        """Writes the predictions of all runs and parts into one Parquet file, run by run; columns as of `predictions`.

        Raises DiskError; an earlier file is replaced only by a complete one.
        """
        from phoropter.interface.parquet_file import write_parquet_file

        return write_parquet_file(self._ordered_store.runs(), Path(path))

    @property
    def best(self) -> str:
        """The name of the first candidate of the leaderboard. The page says whether it is ahead of the others."""
        return self.inputs.summary.candidates[0].name

    @property
    def bundle(self) -> Path:
        """The folder of the best candidate's trained classifier, for `ph.load`: that of its first run whose model was kept.

        It was trained on the training rows of one split; `phoropter refit` trains one on all rows. Raises StoreError where no
        model was kept.
        """
        kept = (self.store.run(line.key).bundle_folder for line in self.inputs.summary.candidates[0].runs)
        folder = next((found for found in kept if found is not None), None)
        if folder is None:
            raise StoreError(f"{self.store.folder} holds no trained model of '{self.best}': make one by `phoropter refit`")
        return folder

    def report(self, path: Path | str | None = None, *, sections: Sequence[SectionFunction] = ()) -> Path:
        """Writes the page and its tables; returns the page's path (default DIR/report/index.html).

        sections: functions of your own, each called with a `ReportInput`; they return a `Section` to show, or None
        """
        return write_report(self.store.folder, None if path is None else Path(path), sections=sections)

    def __repr__(self) -> str:
        return f"Results({str(self.store.folder)!r})"

    def _repr_html_(self) -> str:
        done, planned, failed = sum(1 for _ in self.store.runs()), len(self.store.study["plan"]), len(self.failures)
        facts = [f"{done:,} of {planned:,} runs", f"{failed:,} failed" if failed else "", str(self.store.folder)]
        title = f"Results of {self.store.study['name']}"
        if not done:
            return format_notebook_html(title, facts)
        board = leaderboard_table(self.inputs.summary)
        rows = [[format_cell(*pair) for pair in zip(row.values, board.columns, strict=True)] for row in board.rows]
        return format_notebook_html(title, facts, [column.header_text for column in board.columns], rows)

    def _find_block(self, name: str, kind: type[Block], word: str) -> Block:
        """The block of this kind and name. Sections are built in turn until it is found, because drawing them takes seconds."""
        passed: dict[str, Block] = {}
        for _, blocks in self._iter_sections():
            passed |= {block.name: block for block in blocks if isinstance(block, kind)}
            if name in passed:
                return passed[name]
        return passed[_find_name(name, passed, word)]

    def _list_blocks_of_kind(self, kind: type[Table] | type[RenderedFigure]) -> pd.DataFrame:
        import pandas as pd

        found = [(b.name, title, b.caption) for title, blocks in self._iter_sections() for b in blocks if isinstance(b, kind)]
        return pd.DataFrame(found, columns=["name", "section", "caption"])

    def _iter_sections(self) -> Iterator[tuple[str, list[Any]]]:
        """Title and blocks of each section, built when it is reached and then kept."""
        for build in select_builders(self.inputs):
            if build not in self._sections:
                section = build(self.inputs)
                self._sections[build] = (section.title, _list_blocks(section)) if section else ("", [])
            yield self._sections[build]

    @cached_property
    def _sections(self) -> dict[Any, tuple[str, list[Any]]]:
        return {}

    @cached_property
    def _ordered_store(self) -> Store:
        return open_results(self.store.folder)

    def _compare_untested(self, a: str, b: str) -> list[Any]:
        """A pair that the page left out, corrected for the same number of pairs as the others."""
        summary, done = self.inputs.summary, self.inputs.comparisons
        by_name = {c.name: c for c in summary.candidates}
        scores = [collect_scores(self.inputs.store, by_name[name], summary.metrics[0]) for name in (a, b)]
        found = compare_all_pairs(scores, summary.metrics[0], done.design)
        found = correct_for_family(found, done.family_size, done.design)
        better = next(name for name in by_name if name in (a, b))
        guessing = {c.name for c in find_uninformed(summary, done.design)}
        return [c.withdraw_lead() if better in guessing else c for c in found]


def open_results_folder(folder: Path | str) -> Results:
    """The results folder of a finished or running study. Raises StoreError where it is none."""
    store = Store(open_place(folder))
    if not (store.folder / "study.json").exists():
        parts = sorted(path.parent.name for path in store.folder.glob("*/study.json"))
        if parts:
            raise StoreError(f"{store.folder} holds the results of several parts: open one of {join_words(parts)} inside it")
    store.study  # noqa: B018  read here, so that another folder is refused at once
    return Results(store)


open = open_results_folder  # its public name: `ph.open`


def _list_blocks(section: Section) -> list[Any]:
    return [*section.iter_blocks(), *section.file_tables]


def _find_name(name: str, known: Any, what: str) -> str:
    """The name itself, or the only known one of which it is the beginning."""
    if name in known:
        return name
    beginning = [each for each in known if each.startswith(f"{name}-")] if what != "candidate" else []
    if len(beginning) == 1:
        return str(beginning[0])
    raise SpecError(f"there is no {what} '{name}': expected one of {join_words(known)}{did_you_mean(str(name), known)}")

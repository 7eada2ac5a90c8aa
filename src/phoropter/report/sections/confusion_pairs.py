"""Confusion matrices beside each other: of the best single network and the best fusion, and of the sides of planned contrasts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from phoropter.report.figures.predictions import confusion_matrix_figure
from phoropter.report.render.section import ContentBlock
from phoropter.report.render.table import one_line
from phoropter.report.render.wording import list_names
from phoropter.report.summary.model import CandidateResults, StudySummary
from phoropter.report.summary.report_input import ReportInput

MAX_CONFUSION_PAIRS = 4  # of one study
_NOTE = Markup('<p class="note">{}</p>')
_OTHER_ROWS = "The two matrices are not of the same rows: some of these candidates lack runs that others have."


@dataclass(frozen=True, eq=False)
class ConfusionPair:
    """What is set beside each other: a title, and the candidates of either side, whose counts are added up."""

    title: str
    sides: tuple[tuple[str, Sequence[CandidateResults]], ...]

    @property
    def names(self) -> tuple[tuple[str, ...], ...]:
        """The candidates of either side, by which equal pairs are known."""
        return tuple(sorted(tuple(c.name for c in candidates) for _, candidates in self.sides))

    @property
    def has_same_rows(self) -> bool:
        """Whether all candidates of both sides have runs on the same rows."""
        tested = [{(run.split, run.test_rows_digest) for run in c.runs} for _, candidates in self.sides for c in candidates]
        return all(rows == tested[0] for rows in tested)


def draw_confusion_pairs(inputs: ReportInput) -> tuple[ContentBlock, ...]:
    """A heading and two matrices for each pair, each pair once, and what is left out; none where there is no pair."""
    pairs: dict[object, ConfusionPair] = {}
    for pair in (*_find_best_of_both(inputs.summary), *_find_contrasts(inputs)):
        pairs.setdefault(pair.names, pair)
    blocks: list[ContentBlock] = []
    for number, pair in enumerate(list(pairs.values())[:MAX_CONFUSION_PAIRS], 1):
        blocks.append(Markup("<h3>{}</h3>").format(one_line(pair.title)))
        if not pair.has_same_rows:
            blocks.append(_NOTE.format(_OTHER_ROWS))
        for ending, (title, candidates) in zip("ab", pair.sides, strict=True):
            counts = sum((c.confusion for c in candidates[1:]), candidates[0].confusion)
            blocks.append(confusion_matrix_figure(counts, inputs.summary.classes, title, f"confusion-pair-{number}{ending}"))
    if rest := [one_line(pair.title) for pair in list(pairs.values())[MAX_CONFUSION_PAIRS:]]:
        blocks.append(_NOTE.format(f"Not drawn, so that the page stays small: {list_names(rest)}."))
    return tuple(blocks)


def _find_best_of_both(summary: StudySummary) -> Iterator[ConfusionPair]:
    networks = [c for c in summary.candidates if not c.table_kind]
    single = next((c for c in networks if not c.joins_networks), None)
    fusion = next((c for c in networks if c.joins_networks), None)
    if single is not None and fusion is not None:
        yield ConfusionPair("Best single network beside best fusion", ((single.name, (single,)), (fusion.name, (fusion,))))


def _find_contrasts(inputs: ReportInput) -> Iterator[ConfusionPair]:
    """Those of which every candidate has answers; the mean of several candidates is shown by the sum of their counts."""
    by_name = {c.name: c for c in inputs.summary.candidates}
    for contrast in (answer.contrast for answer in inputs.answers.planned):
        if not by_name.keys() >= set(contrast.candidates):
            continue
        sides = []
        for title, names in (
            (contrast.side, [name for unit in contrast.units for name in unit.side]),
            (contrast.against, [name for unit in contrast.units for name in unit.against]),
        ):
            once = dict.fromkeys(names)
            many = f", {len(once)} candidates together" if len(once) > 1 else ""
            sides.append((f"{title}{many}", tuple(by_name[name] for name in once)))
        yield ConfusionPair(f"Planned contrast: {contrast.title}", tuple(sides))

"""Two results folders → one page that compares them: the gap between two protocols, or candidates of two studies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import phoropter
from phoropter.report.comparison_sentences import comparison_format, conclude_comparison
from phoropter.report.figures.comparison import draw_row_figure, label_rows
from phoropter.report.page import study_subtitle
from phoropter.report.render.document import Document, Notice, resolve_output_paths
from phoropter.report.render.section import Section
from phoropter.report.render.svg import ACCENT, MUTED, SERIES_COLORS, RenderedFigure
from phoropter.report.render.table import INTERVAL_TITLE, CellValue, Column, ColumnKind, IntervalBounds, Table, TableRow, one_line
from phoropter.report.render.wording import list_names
from phoropter.report.sections.candidate_values import primary_metric_interval
from phoropter.report.sections.candidates.pair_words import NO_BETTER_THAN_GUESSING
from phoropter.report.sections.study import provenance
from phoropter.report.study_pairing import StudyPair, StudySide, describe_other_classes, pair_studies
from phoropter.results.metrics.registry import METRICS
from phoropter.results.stats.optimism import ProtocolGap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_SHOWN = 30  # candidates in the figure


def write_comparison_page(first: Path | str, second: Path | str, out: Path | None = None) -> Path:
    """Compares two studies and returns the path of the page.

    out: as in `write_report`; default FIRST/report/comparison-with-SECOND

    Raises StoreError where the two cannot be compared, DiskError where the page cannot be written.
    """
    studies = pair_studies(first, second)
    page, files = resolve_output_paths(Path(first) / "report" / f"comparison-with-{Path(second).resolve().name}", out)
    names = [one_line(studies.a.label), one_line(studies.b.label)]
    document = Document(
        f"{names[0]} compared with {names[1]}",
        _describe_subject(studies),
        _list_notices(studies),
        conclude_comparison(studies),
        _small_print(studies),
        [_values_section(studies), _studies_section(studies)],
        f"Made by phoropter {phoropter.__version__} from the predictions of {studies.a.summary.n_finished:,} and "
        f"{studies.b.summary.n_finished:,} runs. Linked files are in the folders tables and figures beside this page.",
    )
    return document.write(page, files)


def _describe_subject(studies: StudyPair) -> str:
    """The datasets of the two studies, and what the comparison is based on."""
    data = list(dict.fromkeys(study_subtitle(s.summary).partition(" · ")[0] for s in (studies.a, studies.b)))
    return f"{' and '.join(data)} · {_describe_basis(studies)}"


def _describe_basis(studies: StudyPair) -> str:
    share = (
        "the same rows"
        if studies.n_common_rows == studies.n_total_rows
        else f"{studies.n_common_rows:,} of {studies.n_total_rows:,} rows in common"
    )
    return {
        "protocols": f"two protocols on {share}",
        "splits": "paired by split: the same rows, the same seeds",
        "rows": f"paired by row: {share}, split differently",
        "unpaired": "unpaired: different rows",
        "classes": "two problems beside each other: different classes",
    }[studies.basis]


def _list_notices(studies: StudyPair) -> list[Notice]:
    lines = [
        f"{s.label}: {s.summary.n_finished:,} of {s.summary.n_planned:,} runs are finished."
        for s in (studies.a, studies.b)
        if s.summary.n_finished < s.summary.n_planned
    ]
    lines += [f"{s.label} is a smoke version of its study." for s in (studies.a, studies.b) if s.summary.study.get("scale")]
    lines += _describe_positive_classes(studies)
    notices = [Notice("The comparison is limited.", tuple(map(one_line, lines)))] if lines else []
    if studies.basis == "classes":
        notices.append(Notice("Different classes.", (one_line(f"{describe_other_classes(studies)}."),)))
    if studies.basis == "unpaired" and studies.pairs:
        line = (
            "The two studies were not tested on the same rows, so only an unpaired comparison is possible: a difference may be "
            "due to the candidates or to the rows."
        )
        notices.append(Notice("Unpaired.", (line,)))
    return notices


def _describe_positive_classes(studies: StudyPair) -> list[str]:
    """Where the two studies look for different classes, which of them counts here."""
    stated = [(s.summary.study.get("dataset") or {}).get("positive") for s in (studies.a, studies.b)]
    if len(studies.a.summary.classes) != 2 or not all(stated) or stated[0] == stated[1]:
        return []
    return [f"{studies.a.label} looks for {stated[0]} and {studies.b.label} for {stated[1]}; here both look for {stated[0]}."]


def _small_print(studies: StudyPair) -> list[str]:
    notes = []
    if studies.basis == "protocols":
        word, number = studies.group_held_out.summary.group_word, studies.gaps[0].interval.n_units
        within, held_out = studies.within_group.label, studies.group_held_out.label
        notes.append(
            f"{within} allows rows of one {word.singular} in both training and test sets, {held_out} does not. Intervals "
            f"resample the {word.count(number)}, each with all its rows of both studies, and do not cover the variation between "
            f"trainings. Only the result with held-out {word.plural} applies to new {word.plural}."
        )
        notes.append(_describe_common_estimand(studies))
    if studies.basis in ("rows", "unpaired") and studies.pairs:
        notes.append(_describe_common_estimand(studies))
    if studies.pairs and studies.basis != "unpaired":
        uncovered = "training again" if studies.basis == "splits" else "the variation between trainings or folds"
        notes.append(f"Intervals resample the units and do not cover {uncovered}.")
    if studies.shared_candidates:
        notes.append(f"Not compared, because both studies share their runs: {list_names(studies.shared_candidates)}.")
    others = [s.label for s in (studies.a, studies.b) if s.summary.metrics[0] != studies.metric]
    notes += (
        [f"{others[0]} ranks by another metric; both are compared by {comparison_format(studies).inline_title}."]
        if others
        else []
    )
    return notes


def _describe_common_estimand(studies: StudyPair) -> str:
    """What is compared: the same quantity in both studies, whatever each reports by itself."""
    metric, scale = METRICS[studies.metric], comparison_format(studies)
    if metric.mean_over_rows:
        return f"{scale.title} is the mean over all held-out rows in both studies."
    text = (
        f"{scale.title} is of all held-out rows of a repeat together in both studies, because they split the rows differently: "
        "the same answers would give a gap of 0. Each study's own page may average over its splits."
    )
    if "ranks" in metric.needs:
        text += " Scores of models of different splits are ranked against each other, in the study with more splits more so."
    return text


def _values_section(studies: StudyPair) -> Section:
    files: tuple[Table, ...] = ()
    if studies.basis == "protocols":
        table = _gap_table(studies, [g for g in studies.gaps if g.metric == studies.metric], "gaps", True)
        gaps = [g for g in studies.gaps if g.metric == studies.metric]
        lines = [(g.candidate, ((g.candidate, g.within_group), (g.candidate, g.group_held_out))) for g in gaps]
        files = (_gap_table(studies, studies.gaps, "gaps-of-all", False),)
        title = "Results under each protocol"
    elif studies.basis == "classes":
        table, title = _two_problems_table(studies), "Results of each study"
        both = [
            (name, _own_value(studies.a, name, studies), _own_value(studies.b, name, studies)) for name in _list_names(studies)
        ]
        lines = [(name, ((name, one), (name, two))) for name, one, two in both if one is not None and two is not None]
        return Section("values", title, (), (*((_dumbbell_plot(studies, lines),) if lines else ()), table), files)
    else:
        table, title = _pair_table(studies), "Comparison of candidates"
        lines = [(p.a if p.a == p.b else f"{p.a} / {p.b}", ((p.a, p.value_a), (p.b, p.value_b))) for p in studies.pairs]
    blocks = (_dumbbell_plot(studies, lines), table) if lines else ()
    return Section("values", title, (), blocks, files)


def _list_names(studies: StudyPair) -> list[str]:
    """The candidates of both studies, those of the first in its order."""
    return list(dict.fromkeys(c.name for side in (studies.a, studies.b) for c in side.summary.candidates))


def _own_value(side: StudySide, name: str, studies: StudyPair) -> float | None:
    """As on the study's own page; None where it has no such candidate."""
    return next((c.metric_mean(studies.metric) for c in side.summary.candidates if c.name == name), None)


def _two_problems_table(studies: StudyPair) -> Table:
    """A row for each candidate of either study, with its value and interval in each; no test, because the problems differ."""
    plain, _, digits = _column_format(studies)
    columns = [Column("Candidate")]
    for side in (studies.a, studies.b):
        columns += [
            Column(side.label, plain, f"{len(side.summary.classes)} classes; as on its own page", digits),
            Column(f"{INTERVAL_TITLE} of {side.label}", plain, "as on its own page", digits),
        ]
    rows = []
    for name in _list_names(studies):
        cells: list[CellValue] = [name]
        for side in (studies.a, studies.b):
            value = _own_value(side, name, studies)
            bounds = None if value is None else IntervalBounds(*_with_own_interval(side, name, value, studies.metric)[1:])
            cells += [value, bounds]
        rows.append(TableRow(tuple(cells)))
    note = "A dash: not a candidate of this study. Nothing is tested: the studies tell different classes apart."
    caption = f"By {comparison_format(studies).inline_title}, each study by itself"
    return Table("two-problems", caption, tuple(columns), tuple(rows), note)


def _column_format(studies: StudyPair) -> tuple[ColumnKind, ColumnKind, int]:
    percent = METRICS[studies.metric].percent
    return ("percent", "points", 1) if percent else ("number", "signed", 3)


def _gap_table(studies: StudyPair, gaps: Sequence[ProtocolGap], name: str, one: bool) -> Table:
    plain, signed, digits = _column_format(studies)
    units = studies.group_held_out.summary.group_word.plural
    if not one:  # several metrics share a column: unrounded in the CSV, with three decimals elsewhere
        plain, signed, digits = "number", "signed", 3
    columns = (
        Column("Candidate"),
        *(() if one else (Column("Metric"),)),
        Column(studies.within_group.label, plain, f"{units} shared by training and test sets", digits),
        Column(studies.group_held_out.label, plain, f"{units} held out", digits),
        Column("Gap", signed, "shared minus held out", digits),
        Column(INTERVAL_TITLE, signed, "of the gap, over groups", digits),
    )
    rows = [
        TableRow(
            (
                g.candidate,
                *(() if one else (METRICS[g.metric].title,)),
                g.within_group,
                g.group_held_out,
                g.difference,
                IntervalBounds(g.interval.low, g.interval.high),
            )
        )
        for g in gaps
    ]
    note = f"Values of all held-out rows of a repeat together. {gaps[0].interval.method.capitalize()}."
    what = comparison_format(studies).inline_title if one else "every metric"
    return Table(name, f"The same candidates under two protocols, by {what}", columns, tuple(rows), note)


def _pair_table(studies: StudyPair) -> Table:
    plain, signed, digits = _column_format(studies)
    value = "as on its own page" if studies.basis == "splits" else "of all held-out rows of a repeat together"
    columns = (
        Column(f"In {studies.a.label}"),
        Column(f"In {studies.b.label}"),
        Column("First", plain, value, digits),
        Column("Second", plain, value, digits),
        Column("Difference", signed, "first minus second", digits),
        Column(INTERVAL_TITLE, signed, "of this comparison, not corrected", digits),
        Column("p", "p", "of this comparison, not corrected"),
        Column("p, corrected", "p", "for the number of pairs (Holm)"),
        Column("Units", "count", "independent units of the test"),
        Column("Verdict", "text", "on the first"),
    )
    rows = []
    for p in studies.pairs:
        withdrawn = p.verdict == "cannot tell" and p.beats_guessing is False
        verdict = NO_BETTER_THAN_GUESSING if withdrawn else p.verdict
        bounds = IntervalBounds(p.low, p.high)
        rows.append(TableRow((p.a, p.b, p.value_a, p.value_b, p.difference, bounds, p.p, p.p_adjusted, p.n_units, verdict)))
    return Table("pairs", f"By {comparison_format(studies).inline_title}; {_describe_basis(studies)}", columns, tuple(rows))


def _dumbbell_plot(studies: StudyPair, lines: Sequence[tuple[str, Sequence[tuple[str, float]]]]) -> RenderedFigure:
    """A row for each candidate: a filled dot for the first study, an open square for the second, each with its interval.

    lines: label, and for each study the name of its candidate and the value that is compared
    """
    scale, shown = comparison_format(studies), list(lines)[:MAX_SHOWN]
    sides = (studies.within_group, studies.group_held_out) if studies.basis == "protocols" else (studies.a, studies.b)
    each = [[_with_own_interval(s, *one, studies.metric) for s, one in zip(sides, values, strict=True)] for _, values in shown]
    styles = (("o", ACCENT, ACCENT), ("s", SERIES_COLORS[1], "none"))

    def paint_figure(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        for y, places_ in enumerate(each):
            means = [mean * scale.display_factor for mean, *_ in places_]
            axes.plot(means, [y, y], color=MUTED, lw=0.8, alpha=0.6)
            for k, ((mean, low, high), (mark, line, face)) in enumerate(zip(places_, styles, strict=True)):
                at = y + (k - 0.5) * 0.22
                if np.isfinite(low) and np.isfinite(high):
                    axes.plot([low * scale.display_factor, high * scale.display_factor], [at, at], color=line, lw=2.6, alpha=0.45)
                label = one_line(sides[k].label) if y == 0 else None
                axes.plot([mean * scale.display_factor], [at], mark, color=line, mfc=face, ms=5.5, mew=1.3, label=label)
        label_rows(axes, [name for name, *_ in shown], narrow)
        axes.set_xlabel(scale.axis_label + ("" if scale.higher_is_better else " (lower is better)"))
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=1 if narrow else 2)

    caption = f"{scale.title} on held-out data, with each study's own 95 % intervals where it reports the same quantity."
    caption += f" The first {MAX_SHOWN} of {len(lines)} are shown." if len(lines) > MAX_SHOWN else ""
    texts = [
        (one_line(name), *(scale.format_value(mean) for mean, *_ in values))
        for (name, *_), values in zip(shown, each, strict=True)
    ]
    values_text = "; ".join(f"{name}: {one} and {two}" for name, one, two in texts[:8])
    return draw_row_figure("values", caption, f"{values_text}.", len(shown), paint_figure, legend=2)


def _with_own_interval(side: StudySide, name: str, value: float, metric: str) -> tuple[float, float, float]:
    """The value and the study's interval; NaN bounds where the study ranks by another metric, or averages over its splits."""
    candidate = side.find_candidate(name)
    if side.summary.metrics[0] != metric or not np.isclose(candidate.metric_mean(metric), value, rtol=0, atol=1e-9):
        return value, float("nan"), float("nan")
    return (value, *primary_metric_interval(candidate))


def _studies_section(studies: StudyPair) -> Section:
    """The provenance of both, side by side."""
    sides = [dict(provenance.study_facts(s.summary)) for s in (studies.a, studies.b)]
    names = [n for n in dict.fromkeys((*sides[0], *sides[1])) if n not in ("Notes", "Problems", "When")]
    rows = [
        TableRow((n, *(s.get(n, "") for s in sides)), "warning" if sides[0].get(n) != sides[1].get(n) else "plain") for n in names
    ]
    columns = (Column("What"), Column(studies.a.label, "words"), Column(studies.b.label, "words"))
    note = f"Rows in colour differ. Results folders: {studies.a.store.folder.name} and {studies.b.store.folder.name}."
    table = Table("studies", "Provenance of each study", columns, tuple(rows), note, sortable=False)
    return Section("studies", "The two studies", (), (table,))

"""Likely wrong labels: rows that the first candidate, never trained on them, confidently finds to be of another class."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from phoropter.report.render.section import ContentBlock, FileLink, Section
from phoropter.report.render.table import Column, Table, TableRow, one_line
from phoropter.report.render.wording import count_with_noun
from phoropter.report.sections.predictions.mistakes import jpeg_data_uri
from phoropter.report.summary.guessing import find_uninformed
from phoropter.report.summary.model import CandidateResults
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.stats.confident_learning import AveragedRows, SuspectedLabels, average_by_row, find_suspected_labels

SHOWN_ROWS, SHOWN_PICTURES = 20, 8
REVIEW_FILE = "label-review"


def label_review_section(inputs: ReportInput) -> Section | None:
    """None where no label is suspected, and where the first candidate is no better than guessing, so that it could not tell."""
    first = inputs.summary.candidates[0]
    if any(c.name == first.name for c in find_uninformed(inputs.summary, inputs.comparisons.design)):
        return None
    loaded = (inputs.store.run(run.key).load_predictions() for run in first.runs)
    rows = average_by_row([p for p in loaded if p is not None])
    found = find_suspected_labels(rows.labels, rows.probabilities)
    if not len(found.rows):
        return None
    share = 100 * len(found.rows) / len(rows.ids)
    text = (
        f"{count_with_noun(len(found.rows), 'row')} of {len(rows.ids):,} ({share:.1f} %) may have a wrong label: "
        f"{one_line(first.name)}, which was not trained on them, is as confident of another class as it usually is of that "
        "class's own rows (confident learning, Northcutt et al. 2021). Its own mistakes are among them: look at each; the "
        "most suspicious come first."
    )
    blocks: list[ContentBlock] = [gallery] if (gallery := _build_review_gallery(inputs, first, rows, found)) else []
    blocks += [_build_review_table(inputs, rows, found, SHOWN_ROWS)]
    blocks.append(
        FileLink(f"tables/{REVIEW_FILE}.csv", "CSV", "All of them, with an empty column to write the right label into:")
    )
    complete = _build_review_table(inputs, rows, found, len(found.rows), to_correct=True)
    return Section(REVIEW_FILE, "Likely wrong labels", (text,), tuple(blocks), (complete,))


def _build_review_table(
    inputs: ReportInput, rows: AveragedRows, found: SuspectedLabels, limit: int, *, to_correct: bool = False
) -> Table:
    """The suspected rows. to_correct: as a file, with an empty column `corrected`"""
    classes = inputs.summary.classes
    columns = [Column("id"), Column(inputs.summary.group_word.singular)] if rows.groups is not None else [Column("id")]
    columns += [Column("label"), Column("suggested"), Column("probability of the label", "percent")]
    columns += [Column("probability of the suggested", "percent"), Column("predictions", "count")]
    columns += [Column("corrected")] if to_correct else []
    lines = []
    for row, suggested in list(zip(found.rows.tolist(), found.suggested.tolist(), strict=True))[:limit]:
        label, p = int(rows.labels[row]), rows.probabilities[row]
        cells = [str(rows.ids[row])] + ([str(rows.groups[row])] if rows.groups is not None else [])
        numbers = (float(p[label]), float(p[suggested]), int(rows.counts[row]))
        lines.append(TableRow((*cells, classes[label], classes[suggested], *numbers, *(("",) if to_correct else ()))))
    name = REVIEW_FILE if to_correct else f"{REVIEW_FILE}-first"
    return Table(name, "Labels to look at, the most suspicious first", tuple(columns), tuple(lines))


def _build_review_gallery(
    inputs: ReportInput, first: CandidateResults, rows: AveragedRows, found: SuspectedLabels
) -> Markup | None:
    """Thumbnails of the most suspicious rows, as far as runs kept them; None where none did."""
    jpegs: dict[str, bytes] = {}
    for run in first.runs:
        jpegs |= inputs.store.run(run.key).load_pictures()
    items: list[Markup] = []
    classes = inputs.summary.classes
    for row, suggested in zip(found.rows.tolist(), found.suggested.tolist(), strict=True):
        name = str(rows.ids[row])
        if len(items) < SHOWN_PICTURES and (source := jpeg_data_uri(jpegs.get(name, b""))):
            words = (one_line(classes[int(rows.labels[row])]), one_line(classes[suggested]))
            share = f"{100 * float(np.max(rows.probabilities[row])):.1f}"
            items.append(
                Markup(
                    '<li><figure><img src="{}" alt="{}, or {}"><figcaption>labelled <b>{}</b>, or <b>{}</b>? {}\u00a0%<br>{}'
                    "</figcaption></figure></li>"
                ).format(source, *words, *words, share, one_line(name))
            )
    return Markup('<ul class="gallery">\n{}\n</ul>').format(Markup("\n").join(items)) if items else None

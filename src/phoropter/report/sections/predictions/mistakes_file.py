"""One CSV of all wrong answers: a row for each held-out row that some candidate got wrong, with what every candidate answered.

Written split by split, so that it needs no more memory than one split of every candidate.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from phoropter.core.files import atomic_write
from phoropter.core.storage.csv_cells import escape_formula
from phoropter.report.render.table import one_line
from phoropter.report.summary.model import StudySummary
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.store import Predictions, Store

MISTAKES_FILE = "mistakes.csv"
_PLACE = ("id", "group", "site", "seed", "repeat", "fold", "true")
SplitRuns = Mapping[tuple[tuple[int, int, int], str], Mapping[str, str]]


def write_mistakes_file(inputs: ReportInput, path: Path) -> Path:
    """Writes the file whole or not at all. Columns: id, group, site, seed, repeat, fold, true class, and for each candidate
    `NAME: predicted` and `NAME: probability` (of the predicted class), empty where it has no run on the split.

    Repeats and folds count from 1. Text that a spreadsheet would run as a formula is written as text. Raises DiskError.
    """
    names = [c.name for c in inputs.summary.candidates]
    with atomic_write(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        heads = [f"{one_line(n)}: {what}" for n in names for what in ("predicted", "probability")]
        writer.writerow([*_PLACE, *map(escape_formula, heads)])
        for (split, _), keys in _group_by_split(inputs.summary).items():
            writer.writerows(_iter_mistakes(inputs.store, names, keys, split, inputs.summary.classes))
    return path


def _group_by_split(summary: StudySummary) -> SplitRuns:
    """(seed, repeat, fold) and digest of the test rows → candidate → run."""
    found: dict[tuple[tuple[int, int, int], str], dict[str, str]] = {}
    for candidate in summary.candidates:
        for run in candidate.runs:
            found.setdefault((run.split, run.test_rows_digest), {})[candidate.name] = run.key
    return dict(sorted(found.items()))


def _iter_mistakes(
    store: Store, names: list[str], keys: Mapping[str, str], split: tuple[int, int, int], classes: tuple[str, ...]
) -> Iterator[list[str]]:
    """The rows of one split that some candidate got wrong, in the order of the split."""
    loaded = {name: p for name, key in keys.items() if (p := store.run(key).load_predictions()) is not None}
    answers = {name: (p.logits.argmax(1), p.probabilities.max(1)) for name, p in loaded.items()}
    places = {name: {str(i): k for k, i in enumerate(p.ids)} for name, p in loaded.items()}
    first = next(iter(loaded.values()))
    texts = [escape_formula(one_line(c)) for c in classes]
    seed, repeat, fold = split
    for row, sample in enumerate(map(str, first.ids)):
        label, at = int(first.labels[row]), {name: places[name][sample] for name in loaded}
        if all(int(answers[name][0][k]) == label for name, k in at.items()):
            continue
        cells = [
            escape_formula(one_line(sample)),
            *_unit_texts(first, row),
            str(seed),
            str(repeat + 1),
            str(fold + 1),
            texts[label],
        ]
        for name in names:
            if name not in at:
                cells += ["", ""]
                continue
            predicted, confidence = answers[name]
            cells += [texts[int(predicted[at[name]])], f"{float(confidence[at[name]]):.6g}"]
        yield cells


def _unit_texts(predictions: Predictions, row: int) -> list[str]:
    columns = (predictions.groups, predictions.sites)
    return ["" if column is None else escape_formula(one_line(str(column[row]))) for column in columns]

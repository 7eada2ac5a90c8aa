"""One CSV of all wrong answers: a row for each held-out row that some candidate got wrong, with what every candidate answered.

Written split by split, so that it needs no more memory than one split of every candidate.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phoropter.core.files import atomic_write
from phoropter.core.storage.csv_cells import escape_formula
from phoropter.report.render.table import one_line
from phoropter.report.summary.model import Floats, Ints, StudySummary
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
) -> Iterator[tuple[str, ...]]:
    """The rows of one split that some candidate got wrong, in the order of the split.

    Made column by column: a loop over rows and candidates took a fifth of the time of a large report.
    """
    first: Predictions | None = None
    answers: dict[str, tuple[Ints, Floats]] = {}
    for name, key in keys.items():
        predictions = store.run(key).load_predictions()
        if predictions is not None:  # of runs with equal digests of their ids, so row k is the same row in all of them
            first = first or predictions
            answers[name] = predictions.logits.argmax(1), predictions.probabilities.max(1)
    if first is None:
        return
    wrong = np.flatnonzero(np.any([predicted != first.labels for predicted, _ in answers.values()], axis=0))
    texts = [escape_formula(one_line(c)) for c in classes]
    seed, repeat, fold = split
    columns: list[Iterable[str]] = [_to_cells(column, wrong) for column in (first.ids, first.groups, first.sites)]
    columns += [itertools.repeat(str(number)) for number in (seed, repeat + 1, fold + 1)]
    columns += [[texts[k] for k in first.labels[wrong].tolist()]]
    for name in names:
        if name not in answers:
            columns += [itertools.repeat(""), itertools.repeat("")]
            continue
        predicted, confidence = answers[name]
        columns += [[texts[k] for k in predicted[wrong].tolist()], [f"{p:.6g}" for p in confidence[wrong].tolist()]]
    yield from zip(*columns, strict=False)


def _to_cells(names: NDArray[np.str_] | None, rows: Ints) -> Iterable[str]:
    """The names of some rows as cells, empty where there are none."""
    return itertools.repeat("") if names is None else [escape_formula(one_line(name)) for name in names[rows].tolist()]

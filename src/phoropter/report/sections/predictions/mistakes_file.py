"""One CSV of all wrong answers: a row for each held-out row that some candidate got wrong, with what every candidate answered.

Written split by split, so that it needs no more memory than one split of every candidate.
"""

from __future__ import annotations

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
from phoropter.results.metrics.probabilities import softmax
from phoropter.results.store import Predictions, Store

MISTAKES_FILE = "mistakes.csv"
_PLACE = ("id", "group", "site", "seed", "repeat", "fold", "true")
SplitRuns = Mapping[tuple[tuple[int, int, int], str], Mapping[str, str]]


def write_mistakes_file(inputs: ReportInput, path: Path) -> None:
    """Writes the file whole or not at all. Columns: id, group, site, seed, repeat, fold, true class, and for each candidate
    `NAME: predicted` and `NAME: probability` (of the predicted class), empty where it has no run on the split.

    Repeats and folds count from 1. Text that a spreadsheet would run as a formula is written as text. Raises DiskError.
    """
    names = [c.name for c in inputs.summary.candidates]
    with atomic_write(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        heads = [f"{one_line(n)}: {what}" for n in names for what in ("predicted", "probability")]
        file.write(_to_line([*_PLACE, *map(escape_formula, heads)]) + "\n")
        for (split, _), keys in _group_by_split(inputs.summary).items():
            file.writelines(_iter_mistakes(inputs.store, names, keys, split, inputs.summary.classes))


def _group_by_split(summary: StudySummary) -> SplitRuns:
    """(seed, repeat, fold) and digest of the test rows → candidate → run."""
    found: dict[tuple[tuple[int, int, int], str], dict[str, str]] = {}
    for candidate in summary.candidates:
        for run in candidate.runs:
            found.setdefault((run.split, run.test_rows_digest), {})[candidate.name] = run.key
    return dict(sorted(found.items()))


def _iter_mistakes(
    store: Store, names: list[str], keys: Mapping[str, str], split: tuple[int, int, int], classes: tuple[str, ...]
) -> Iterator[str]:
    """The lines of one split that some candidate got wrong, in the order of the split.

    A line's answers are one `%` of a pattern: a number formatted by itself, and a cell that csv looks at, took twice the time.
    """
    runs = [(name, store.run(key)) for name, key in keys.items()]
    first = next((found for _, run in runs if (found := run.load_predictions()) is not None), None)
    if first is None:
        return
    answers: dict[str, tuple[Ints, Floats]] = {}
    for name, run in runs:
        if (known := run.load_answers()) is not None:  # of runs with equal digests of their ids: row k is the same in all
            predicted = known[1].argmax(1)
            answers[name] = predicted, softmax(known[1])[np.arange(len(predicted)), predicted]
    wrong = np.flatnonzero(np.any([predicted != first.labels for predicted, _ in answers.values()], axis=0))
    texts = [escape_formula(one_line(c)) for c in classes]
    patterns = [f"{_to_cell(text).replace('%', '%%')},%.6g" for text in texts] + [","]  # the last: without a run
    nobody = np.full(len(wrong), -1)
    rows = np.stack([answers[name][0][wrong] if name in answers else nobody for name in names], axis=1)
    numbers = np.stack([answers[name][1][wrong] for name in names if name in answers], axis=1)
    for place, row, values in zip(_iter_places(first, wrong, split, texts), rows.tolist(), numbers.tolist(), strict=True):
        yield f"{place},{','.join([patterns[k] for k in row]) % tuple(values)}\n"


def _iter_places(first: Predictions, rows: Ints, split: tuple[int, int, int], texts: list[str]) -> Iterator[str]:
    """The first cells of each line: what row it is, and its class."""
    seed, repeat, fold = split
    columns: list[Iterable[str]] = [_list_names(column, rows) for column in (first.ids, first.groups, first.sites)]
    columns += [itertools.repeat(str(number)) for number in (seed, repeat + 1, fold + 1)]
    columns += [[texts[k] for k in first.labels[rows].tolist()]]
    return map(_to_line, zip(*columns, strict=False))


def _list_names(names: NDArray[np.str_] | None, rows: Ints) -> Iterable[str]:
    """The names of some rows as cells, empty where there are none."""
    return itertools.repeat("") if names is None else [escape_formula(one_line(name)) for name in names[rows].tolist()]


def _to_line(cells: Iterable[str]) -> str:
    return ",".join(map(_to_cell, cells))


def _to_cell(text: str) -> str:
    """As csv writes it: in quotation marks where it holds one or a comma; `one_line` has left no line break."""
    return '"' + text.replace('"', '""') + '"' if '"' in text or "," in text else text

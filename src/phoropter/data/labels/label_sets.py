"""Several labels a row: how a table, an array or a recording writes them, and how they become 0 and 1.

multi_label: true                                        `edema|mass` in the column label, `none` where it has none of them
multi_label: {none: No Finding}                          the same, in the words of ChestX-ray14
multi_label: {columns: [edema, mass]}                    a column of 0 and 1 for each label
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from phoropter.core.columns import clean_cell
from phoropter.core.errors import DataError
from phoropter.core.spec import ClassName, Spec
from phoropter.data.dataset import LABEL_SEPARATOR, NO_LABELS, UNLABELLED, Dataset, encode_label_sets

_SEPARATORS = (";", ",", "|", "/", "+")  # that tools write between labels
UNNAMED_LABEL = "label 1"  # the first column of a table without names


class LabelSets(Spec):
    """How the labels of a row are written, of which it may have several or none.

    separator: what stands between them in the column label
    none:      the word in that column for a row with none of them; an empty cell is a row whose labels are not known
    columns:   one column for each label instead, with 1 where a row has it and 0 where not
    """

    separator: str = Field(default=LABEL_SEPARATOR, min_length=1, max_length=8)
    none: ClassName = NO_LABELS
    columns: tuple[ClassName, ...] | None = Field(default=None, min_length=2)

    @model_validator(mode="after")
    def _check_one_form(self) -> LabelSets:
        if self.columns is not None and len(set(self.columns)) < len(self.columns):
            raise ValueError("'columns' names a label twice")
        if self.columns is not None and self.model_fields_set & {"separator", "none"}:
            raise ValueError("'columns' stands for columns of 0 and 1, which need no 'separator' and no word for 'none'")
        return self

    def split_cell(self, cell: str) -> list[str] | None:
        """`edema|mass` → its labels; None where the cell is empty. Raises DataError for `none` beside a label, and for `None`."""
        names = [name for part in cell.split(self.separator) if (name := clean_cell(part))]
        if not names:
            return None
        if self.none in names and len(set(names)) > 1:
            raise DataError(f"the labels are '{cell}', and '{self.none}' stands for none of them: correct it")
        if other := next((name for name in names if name != self.none and name.casefold() == self.none.casefold()), ""):
            raise DataError(
                f"the label is '{other}', and '{self.none}' stands for a row with none of them: write it so, or say "
                f"multi_label: {{none: {other}}}"
            )
        return [] if names[0] == self.none else list(dict.fromkeys(names))

    def encode_cells(
        self, cells: Sequence[str], locate: Callable[[int], str], classes: Sequence[str] | None = None
    ) -> tuple[NDArray[np.int64], tuple[str, ...]]:
        """Cells of the column label → ((N, L) of 0 and 1, labels). locate: row → its place in messages. Raises DataError."""
        given: list[list[str] | None] = []
        for row, cell in enumerate(cells):
            try:
                given.append(self.split_cell(cell))
            except DataError as error:
                raise DataError(f"{locate(row)}: {error}") from None
        _check_separator(given, locate)
        return encode_label_sets(given, classes)

    def encode_columns(
        self, rows: Sequence[Mapping[str, str]], locate: Callable[[int], str]
    ) -> tuple[NDArray[np.int64], tuple[str, ...]]:
        """Rows by column → ((N, L) of 0 and 1, labels). Raises DataError for another value, and for a row filled in part."""
        assert self.columns is not None
        table = np.empty((len(rows), len(self.columns)), dtype=np.int64)
        for number, row in enumerate(rows):
            cells = [clean_cell(row[name]) for name in self.columns]
            if not any(cells):
                table[number] = UNLABELLED
                continue
            wrong = next((at for at, cell in enumerate(cells) if cell not in ("0", "1")), None)
            if wrong is not None:
                came = f"'{cells[wrong]}'" if cells[wrong] else "an empty cell"
                raise DataError(
                    f"{locate(number)}: {came} stands in the column '{self.columns[wrong]}', expected 1 or 0: decide what it "
                    "means, or leave all labels of the row empty where they are not known"
                )
            table[number] = [int(cell) for cell in cells]
        return table, self.columns


def _check_separator(given: Sequence[Sequence[str] | None], locate: Callable[[int], str]) -> None:
    """Raises DataError for a label such as `edema;mass` where other rows have `edema` and `mass`: another separator was meant."""
    known = {name for labels in given for name in labels or ()}
    for name in sorted(known):
        for mark in _SEPARATORS:
            if mark in name and all(clean_cell(part) in known for part in name.split(mark)):
                row = next(row for row, labels in enumerate(given) if name in (labels or ()))
                raise DataError(
                    f"{locate(row)}: the label '{name}' is made of labels of other rows; if '{mark}' stands between labels, say "
                    f"multi_label: {{separator: '{mark}'}}"
                )


def _expand_true(value: Any) -> Any:
    return ({} if value else None) if isinstance(value, bool) else value


MultiLabel = Annotated[LabelSets | None, BeforeValidator(_expand_true)]


def check_plain_multi_label(spec: Any) -> None:
    """A check for sources that give each label by itself. Raises ValueError for more than `multi_label: true`."""
    if spec.multi_label not in (None, LabelSets()):
        raise ValueError(
            "'multi_label' has keys for labels in one cell, and this source gives each by itself: say multi_label: true"
        )


def convert_label_table(labels: Any, names: Sequence[Any] | None, where: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """(N, L) of 0 and 1, a row of -1 where its labels are not known → (labels, their names, by default `label 1`, …).

    Raises DataError for other values and for names of another number.
    """
    given = np.asarray(labels)
    if given.ndim != 2 or given.shape[1] < 2 or given.dtype.kind not in "biuf":
        raise DataError(f"{where}: labels have the shape {given.shape} and kind {given.dtype}, expected (N, L) of 0 and 1")
    known = ~(given == UNLABELLED).all(axis=1)
    wrong = np.flatnonzero(known & ~(np.isin(given, (0, 1)).all(axis=1)))
    if wrong.size:
        raise DataError(f"{where}, row {wrong[0]}: the labels are {given[wrong[0]].tolist()}, expected 0 and 1")
    table = given.astype(np.int64)
    words = (
        (UNNAMED_LABEL, *(f"label {at + 1}" for at in range(1, table.shape[1])))
        if names is None
        else tuple(clean_cell(n) for n in names)
    )
    if len(words) != table.shape[1] or len(set(words)) < len(words):
        raise DataError(f"{where}: {len(set(words))} names came for {table.shape[1]} columns of labels: name each once")
    return table, words


def keep_labels(dataset: Dataset, kept: Sequence[str]) -> NDArray[np.int64]:
    """(N, L) the columns of these labels, in this order."""
    return dataset.labels[:, [dataset.classes.index(name) for name in kept]]


def require_both_answers(dataset: Dataset) -> None:
    """Raises DataError for fewer than two labels, and for one that every row has, or none: nothing can be learnt of it.

    And for a name that an answer of several labels could not be told from: `a|b`, or `none`.
    """
    if len(dataset.classes) < 2:
        named = f"'{dataset.classes[0]}' alone" if dataset.classes else "none"
        raise DataError(f"{dataset.name} has the labels {named}; expected at least two, or one class a row without multi_label")
    if unclear := [name for name in dataset.classes if name == NO_LABELS or LABEL_SEPARATOR in name]:
        raise DataError(
            f"{dataset.name}: a label is called '{unclear[0]}', and answers write '{NO_LABELS}' for no label and "
            f"'{LABEL_SEPARATOR}' between two; call it otherwise"
        )
    known = int(dataset.labelled.sum())
    if not known:
        raise DataError(f"{dataset.name}: no row has labels that are known; expected rows with and without each label")
    for name, count in zip(dataset.classes, dataset.class_counts.tolist(), strict=True):
        if count in (0, known):
            found = "no row has" if count == 0 else f"all {known} rows have"
            raise DataError(f"{dataset.name}: {found} the label '{name}'; leave it out with exclude: ['{name}']")

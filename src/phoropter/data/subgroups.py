"""Columns of a manifest, or facts of recordings, that split rows into subgroups (sex, age, device): no part of the dataset.

No run depends on them. A column is text, one value for each row; a column of numbers is cut into ranges, at edges that the study
gives or else at its quartiles. An empty cell is `not given`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phoropter.core.columns import clean_cell, find_columns, parse_number
from phoropter.core.errors import DataError, did_you_mean, join_words
from phoropter.core.text_table import read_text_table
from phoropter.data.dataset import Dataset
from phoropter.data.recordings.dataset import RenderedPictures
from phoropter.data.source import resolve_path
from phoropter.data.sources.manifest import make_row_id
from phoropter.data.spec import DataSpec

MAX_SUBGROUPS = 12  # of one column
MAX_KEPT_NUMBERS = 6  # different numbers that stay as they are: grades, weeks in four classes
NOT_GIVEN = "not given"

SubgroupColumn = str | dict[str, tuple[float, ...]]  # a name, or a name with the edges of its ranges


def read_subgroups(
    path: Path, columns: Mapping[str, str], asked: Sequence[SubgroupColumn], dataset: Dataset
) -> dict[str, NDArray[np.str_]]:
    """Column → (N,) the subgroup of each row of the dataset, which was opened from this manifest with these `columns`.

    Raises DataError for a column that is not there, edges of one that holds no numbers, too many subgroups, and pictures whose
    ids are hidden.
    """
    edges = _list_edges(asked)
    table = read_text_table(path)
    places = find_columns(table.place, table.header, ("id", "path"), {k: v for k, v in columns.items() if k in ("id", "path")})
    wanted = find_columns(table.place, table.header, edges, required=edges)
    cells: dict[str, list[str]] = {}
    for _, values in table.rows:
        own, path_cell = (values[places[key]] if key in places else "" for key in ("id", "path"))
        name = make_row_id(own, path_cell)
        cells[name] = [clean_cell(values[wanted[column]]) for column in edges]
    if missing := [str(i) for i in dataset.ids if str(i) not in cells]:
        raise DataError(
            f"subgroups: {len(missing):,} of {len(dataset):,} rows of {dataset.name} have ids that {table.place} does not name, "
            "as where pictures are DICOM files whose names are hidden; leave subgroups out"
        )
    rows = [cells[str(i)] for i in dataset.ids]
    return {
        column: cut_column(column, [row[k] for row in rows], edges[column], table.decimal_comma) for k, column in enumerate(edges)
    }


def read_recording_subgroups(asked: Sequence[SubgroupColumn], dataset: Dataset) -> dict[str, NDArray[np.str_]]:
    """Column → (N,) the subgroup of each window, by what its recording's `about` and `outcome` say; small letters match large.

    Raises DataError for a fact that no recording states, and what `cut_column` raises.
    """
    pictures = dataset.pictures
    assert isinstance(pictures, RenderedPictures) and dataset.recordings is not None
    stated = {r.id: {**r.outcome, **r.about} for r in pictures.windows.recordings}
    facts = {ident: {name.casefold(): value for name, value in of_one.items()} for ident, of_one in stated.items()}
    known = list(dict.fromkeys(name for of_one in stated.values() for name in of_one))
    found = {}
    for column, edges in _list_edges(asked).items():
        if column.casefold() not in (name.casefold() for name in known):
            way_out = f"choose {join_words(known, 30)}" if known else "leave subgroups out"
            raise DataError(f"subgroups: no recording of {dataset.name} has '{column}'{did_you_mean(column, known)}; {way_out}")
        cells = {ident: clean_cell(of_one.get(column.casefold())) for ident, of_one in facts.items()}
        found[column] = cut_column(column, [cells[str(ident)] for ident in dataset.recordings], edges)
    return found


def _list_edges(asked: Sequence[SubgroupColumn]) -> dict[str, tuple[float, ...]]:
    """Column → the edges of its ranges; none where none are given. Raises DataError for a column that is named twice."""
    edges: dict[str, tuple[float, ...]] = {}
    for entry in asked:
        for column, own in ({entry: ()} if isinstance(entry, str) else entry).items():
            if column in edges:
                raise DataError(f"subgroups: '{column}' is named twice, and is shown once; name it once, with edges or without")
            edges[column] = own
    return edges


def read_stated_subgroups(data: DataSpec, base: Path | None, dataset: Dataset) -> dict[str, NDArray[np.str_]]:
    """Those that a study states of its manifest or recordings; empty where it states none. base: where relative paths start"""
    if not data.subgroups:
        return {}
    if isinstance(dataset.pictures, RenderedPictures):
        return read_recording_subgroups(data.subgroups, dataset)
    path = resolve_path(getattr(data, "manifest"), base, data.source_record.table_endings)  # noqa: B009  a field that exists only at run time
    return read_subgroups(path, getattr(data, "columns", {}), data.subgroups, dataset)


def cut_column(column: str, values: Sequence[str], edges: Sequence[float] = (), decimal_comma: bool = False) -> NDArray[np.str_]:
    """(N,) values as text → their subgroups: ranges of numbers, or the values themselves. decimal_comma: whether 0,5 is a half

    Raises DataError for edges of values that are no numbers, and for more than MAX_SUBGROUPS.
    """
    numbers = [_parse_finite(value, decimal_comma) for value in values]
    unread = next((v for v, n in zip(values, numbers, strict=True) if v and n is None), None)
    known = np.array([n for n in numbers if n is not None])
    if edges and unread is not None:
        raise DataError(f"subgroups: {column} has edges, and '{unread}' is no number; correct it, or leave the edges out")
    if edges or (unread is None and len(np.unique(known)) > MAX_KEPT_NUMBERS):
        bounds = np.unique(edges) if edges else np.unique(np.quantile(known, [0.25, 0.5, 0.75]))
        names = _name_ranges(bounds)
        return np.array([NOT_GIVEN if n is None else names[int(np.searchsorted(bounds, n, side="right"))] for n in numbers])
    found = np.array([value or NOT_GIVEN for value in values])
    if (count := len(np.unique(found))) > MAX_SUBGROUPS:
        raise DataError(f"subgroups: {column} has {count:,} different values, more than {MAX_SUBGROUPS}; group them in a column")
    return found


def _name_ranges(bounds: NDArray[np.float64]) -> list[str]:
    """`under 30`, `30 to under 50`, `50 and over`."""
    words = [f"{bound:g}" for bound in bounds]
    between = [f"{low} to under {high}" for low, high in pairwise(words)]
    return [f"under {words[0]}", *between, f"{words[-1]} and over"]


def _parse_finite(text: str, decimal_comma: bool) -> float | None:
    value = parse_number(text, decimal_comma)
    return value if isinstance(value, float) and np.isfinite(value) else None

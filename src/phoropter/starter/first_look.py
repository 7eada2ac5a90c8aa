"""What lies at a path, as a new user has it: the keys under `data:` that open it, and guesses of the groups in it.

A guess is made from names alone and is shown with examples, because folds that split a person are the commonest way to a wrong
number. Of a table it is a column that is called as people are; of names a number behind a word for people, or before a separator.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phoropter.core.columns import describe_unread_groups
from phoropter.core.errors import InputProblem
from phoropter.core.spec import validate_as
from phoropter.core.text_table import peek_table
from phoropter.data.dataset import Dataset
from phoropter.data.inspect import detect_data_spec
from phoropter.data.source import resolve_path
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.data.stores.store_copy import find_address

_WORDS = "patient|patientid|pat|pt|subject|subj|sub|person|participant|proband|volunteer|case|mouse|animal|slide|donor|eye"
_PATTERNS = (  # the more telling first; each has one group
    rf"(?i)(?:^|[/_. -])((?:{_WORDS})[-_ ]?[0-9]+)(?![0-9])",
    r"(?:^|/)([pPsS][-_]?[0-9]{1,6})[-_ .][^/]*$",
    r"(?:^|/)([0-9]{2,9})[-_ ][^/]*$",
    r"(?:^|/)([A-Za-z]{1,4}[0-9]{2,9})[-_ ][^/]*$",
)
LABEL_COLUMN = re.compile(r"(?i)^(label|class|category|diagnosis|target|dx|finding|species|y)$")
_PICTURE_CELL = re.compile(r"(?i)\.(png|jpe?g|tiff?|bmp|webp|gif|dcm)$")
_TABLE_ENDINGS = (".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class GroupGuess:
    """keys: of `data:` that make these groups · count: how many · examples: (id, its group) · words: how they were found"""

    keys: dict[str, Any]
    count: int
    examples: tuple[tuple[str, str], ...]
    words: str


@dataclass(frozen=True, eq=False)
class FirstLook:
    """spec, dataset: opened without the guess · keys: what to write under `data:` · guess: of groups, where the data name none"""

    spec: DataSpec
    dataset: Dataset
    keys: dict[str, Any]
    guess: GroupGuess | None

    @property
    def problems(self) -> tuple[InputProblem, ...]:
        return self.dataset.problems

    def with_guess(self) -> FirstLook:
        """The same with the guessed groups in the data."""
        assert self.guess is not None
        keys = merge_keys(self.keys, self.guess.keys)
        spec = _make_spec(self.spec, keys)
        return FirstLook(spec, open_dataset(spec), keys, None)


def merge_keys(keys: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Keys of `data:` with more of them; `columns` are joined."""
    columns = {**keys.get("columns", {}), **more.get("columns", {})}
    return {**keys, **more, **({"columns": columns} if columns else {})}


def look_at_path(path: Path, more: dict[str, Any] | None = None) -> FirstLook:
    """Opens what lies at a path, with more keys of `data:`, and guesses its groups.

    Raises DataError for what cannot be opened, and SpecError for a key that does not go with it.
    """
    spec = detect_data_spec(path)
    table = resolve_path(path, None) if path.name.lower().endswith(_TABLE_ENDINGS) else path
    keys: dict[str, Any] = {**(_name_columns(table) if spec.source == "manifest" else {}), **(more or {})}
    spec = _make_spec(spec, keys)
    dataset = open_dataset(spec)
    guess = None
    if dataset.groups is None and len(dataset):
        guess = _guess_by_column(table, spec, keys, dataset) or guess_by_names(dataset)
    return FirstLook(spec, dataset, keys, guess)


def relate_path(path: Path, folder: Path) -> str:
    """Relative to the folder of the study file where the data lie in it or below it, so that both can be moved together."""
    if (address := find_address(path)) is not None:
        return address
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) and path != folder else path.as_posix()


def _make_spec(spec: DataSpec, keys: dict[str, Any]) -> DataSpec:
    return validate_as(DataSpec, {**spec.model_dump(exclude_unset=True), **keys}) if keys else spec


def _name_columns(path: Path) -> dict[str, Any]:
    """`columns` of a table whose columns of paths and labels are called otherwise; empty where they are not."""
    header, first = peek_table(path)
    known = {name.casefold().strip() for name in header}
    columns: dict[str, str] = {}
    if "path" not in known:
        found = [name for name, cell in zip(header, first, strict=False) if _PICTURE_CELL.search(cell.strip())]
        columns |= {"path": found[0]} if found else {}
    if "label" not in known:
        found = [name for name in header if LABEL_COLUMN.match(name.strip())]
        columns |= {"label": found[0]} if found else {}
    return {"columns": columns} if columns else {}


def _guess_by_column(path: Path, spec: DataSpec, keys: dict[str, Any], dataset: Dataset) -> GroupGuess | None:
    """A column of the table that is called as people are, with fewer values than rows. dataset: what `spec` opens"""
    if "columns" not in spec.source_record.option_names or not path.name.lower().endswith(_TABLE_ENDINGS):
        return None
    header, _ = peek_table(path)
    for name in (name for name in header if describe_unread_groups([name])):
        more = {"columns": {"group": name}}
        groups = open_dataset(_make_spec(spec, merge_keys(keys, more))).groups
        if groups is not None and _are_plausible(groups.tolist()):
            return _make_guess(more, dataset, groups.tolist(), f"the column '{name}'")
    return None


def guess_by_names(dataset: Dataset) -> GroupGuess | None:
    """A number in every id, behind a word for people or before a separator, that several ids share."""
    found = find_shared_numbers([str(name) for name in dataset.ids])
    return found and _make_guess({"group_from": found[0]}, dataset, found[1], "numbers in the names of files")


def find_shared_numbers(names: Sequence[str]) -> tuple[str, list[str]] | None:
    """The pattern of a number in every name that several share, and the group of each; None where there is none."""
    for pattern in _PATTERNS:
        expression = re.compile(pattern)
        found = [match.group(1) if (match := expression.search(name)) else None for name in names]
        groups = [group for group in found if group is not None]
        if len(groups) == len(names) and _are_plausible(groups):
            return pattern, groups
    return None


def _are_plausible(groups: Sequence[str]) -> bool:
    """Whether they may be people: at least three, and most have several rows."""
    counts = Counter(groups)
    shared = sum(count for count in counts.values() if count > 1)
    return len(counts) >= 3 and shared > len(groups) / 2


def _make_guess(keys: dict[str, Any], dataset: Dataset, groups: Sequence[str], words: str) -> GroupGuess:
    first = {group: str(name) for name, group in zip(dataset.ids[::-1], groups[::-1], strict=True)}
    examples = tuple((first[group], group) for group in list(dict.fromkeys(groups))[:3])
    return GroupGuess(keys, len(set(groups)), examples, words)

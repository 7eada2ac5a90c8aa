"""Names of arrays in files of several (.npz, HDF5): which holds pictures, labels and columns, and of which official part.

images, labels                        one set; where known ids, groups, sites, parts, classes
train_images, train_labels, val_…     a set for each official part (MedMNIST)
x_train, y_train, x_test, y_test      the same (Keras)
train/images, train_set_x             the same, in groups of HDF5
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from phoropter.core.columns import find_columns
from phoropter.core.errors import DataError, join_words
from phoropter.data.folders.layout import parse_split_name

# How an array is called, without the word of its official part → our name.
_ARRAY_NAMES = {
    **dict.fromkeys(("images", "image", "imgs", "img", "x", "data", "pictures"), "images"),
    **dict.fromkeys(("labels", "label", "y", "targets", "target", "ans"), "labels"),
    **dict.fromkeys(("ids", "id"), "ids"),
    **dict.fromkeys(("groups", "group"), "groups"),
    **dict.fromkeys(("sites", "site"), "sites"),
    **dict.fromkeys(("parts", "part", "split", "splits"), "parts"),
    **dict.fromkeys(("classes", "class_names", "label_names", "list_classes"), "classes"),
}
ARRAY_COLUMNS = ("image", "label", "id", "group", "site", "split")  # of `columns:`, as other sources call them
_OURS = dict(zip(ARRAY_COLUMNS, ("images", "labels", "ids", "groups", "sites", "parts"), strict=True))
EXPECTED_ARRAYS = (
    "expected images (N, H, W, 3) uint8 and labels (N,), or such arrays for each part, such as train_images or x_train"
)


@dataclass(frozen=True)
class ArraySet:
    """The arrays of one official part, "" for none. arrays: our name → the file's · classes: the array of class names"""

    part: str
    arrays: dict[str, str]
    classes: str | None


def assign_arrays(place: str, names: Sequence[str], columns: Mapping[str, str] | None = None) -> list[ArraySet]:
    """The arrays of a file by its official parts, in their order. Other arrays are left out.

    columns: our name of a column → the array's, where they differ
    Raises DataError for two arrays of one meaning, for a missing one, and for some with a part and some without.
    """
    found = find_columns(place, names, (), columns)
    chosen = {names[at]: _OURS[ours] for ours, at in found.items()}
    keys: dict[str, dict[str, str]] = {}
    for key in names:
        ours, part = (chosen[key], "") if key in chosen else _parse_array_name(key)
        if ours is None or (key not in chosen and ours in chosen.values()):
            continue
        arrays = keys.setdefault(part, {})
        if ours in arrays:
            raise DataError(f"{place} has two arrays of {ours}, '{arrays[ours]}' and '{key}': keep one")
        arrays[ours] = key
    classes = {part: arrays.pop("classes") for part, arrays in keys.items() if "classes" in arrays}
    keys = {part: arrays for part, arrays in keys.items() if arrays}
    if len(keys) > 1 and "" in keys:
        ours, key = next(iter(keys[""].items()))
        other = next(name for part, arrays in keys.items() if part for name in arrays.values())
        raise DataError(
            f"{place} has '{key}' and '{other}': it is not clear which rows the {ours} belong to; name every array with its "
            f"part, such as train_{ours}, or none"
        )
    for part, arrays in (keys or {"": {}}).items():
        _require_arrays(place, part, arrays, names)
    shared = classes.get("", next(iter(classes.values()), None))
    return [ArraySet(part, arrays, classes.get(part, shared)) for part, arrays in keys.items()]


def _require_arrays(place: str, part: str, arrays: Mapping[str, str], names: Sequence[str]) -> None:
    for needed in ("images", "labels"):
        if needed not in arrays:
            of_part = f" of the part {part}" if part else ""
            raise DataError(f"{place} has no array '{needed}'{of_part}; {EXPECTED_ARRAYS}; it has {join_words(names, 8)}")


def _parse_array_name(key: str) -> tuple[str | None, str]:
    """`train_images` or `x_train` → (our name or None, official part or '')."""
    words = [word for word in re.split(r"[_.\-\s/]+", key.casefold()) if word]
    if ours := _ARRAY_NAMES.get("_".join(words)):
        return ours, ""
    for part, rest in ((words[0], words[1:]), (words[-1], words[:-1])) if words else ():
        if parsed := parse_split_name(part):
            rest = rest[1:] if rest[0:1] == ["set"] else rest
            return _ARRAY_NAMES.get("_".join(rest)), parsed
    return None, ""

"""Input of the estimator: pictures as arrays, paths, PIL Images or a DataFrame; labels of any kind; weights and groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from phoropter.core.columns import is_missing
from phoropter.core.errors import DataError, join_words
from phoropter.data.images.decode import SquareResize, open_image_file
from phoropter.data.sources.arrays import find_row_not_one_hot
from phoropter.data.sources.items import convert_picture

PICTURE_COLUMNS = ("path", "file", "filename", "image", "picture")


class InputError(DataError, ValueError):
    """X or y cannot be used; a ValueError too, as scikit-learn's tools expect."""


def refuse_one_picture(given: tuple[int, ...], fitted: tuple[int, ...]) -> None:
    """Raises InputError for the shape of one picture without a batch axis, whose rows would be taken for pictures."""
    same_grey = len(fitted) == 2 and len(given) == 3 and given[:2] == fitted and given[2] in (1, 3, 4)
    same_colour = len(fitted) == 3 and len(given) == 3 and given[2] in (1, 3, 4)
    if fitted and (given == fitted or same_grey or same_colour):
        raise InputError(f"X has shape {given}, which is one picture: give it a batch axis, as in predict(X[None])")
    if len(fitted) == 3 and len(given) == 3 and given == (fitted[2], *fitted[:2]):
        raise InputError(f"X has shape {given}, which is one picture with channels first: write X.transpose(1, 2, 0)[None]")


def read_images(X: Any, side: int) -> NDArray[np.uint8]:
    """An array, or N paths, PIL Images or arrays of any sizes → (N, H, W, 3) uint8; H and W of the latter are `side`."""
    if isinstance(X, (str, Path, Image.Image)):
        raise InputError(f"X is one picture ({type(X).__name__}), expected several: put it into a list")
    items = _list_items(X)
    if items is None:
        return _check_images(X)
    square = SquareResize(side)
    try:
        return np.stack([square.resize_image(_read_item(item, row)).transpose(1, 2, 0) for row, item in enumerate(items)])
    except DataError as error:
        raise InputError(str(error)) from None


def _list_items(X: Any) -> list[Any] | None:
    """The N paths, PIL Images or arrays of unequal size that X holds; None where X is one array of numbers."""
    if getattr(X, "ndim", None) == 2 and hasattr(X, "columns"):
        X = _choose_picture_column(X)
    if hasattr(X, "to_numpy"):
        X = X.to_numpy()
    if isinstance(X, np.ndarray) and X.dtype.kind in "OU" and X.size == len(X):
        X = X.ravel().tolist()
    if not isinstance(X, (list, tuple)) or not X:
        return None
    shapes = {np.shape(item) if isinstance(item, np.ndarray) else None for item in X}
    pictures = any(isinstance(item, (str, Path, Image.Image)) for item in X) or len(shapes) > 1
    return list(X) if pictures else None


def _choose_picture_column(frame: Any) -> Any:
    """The column of a DataFrame that holds the pictures: its only one, or the one of a usual name; else the frame itself."""
    if frame.shape[1] == 1:
        return frame.iloc[:, 0]
    named = [name for name in frame.columns if str(name).lower() in PICTURE_COLUMNS]
    if not named and all(kind.kind in "fiub" for kind in frame.dtypes):
        return frame  # flat rows, which are refused by their shape
    if len(named) != 1:
        raise InputError(
            f"X has the columns {join_words(map(str, frame.columns))}, of which {len(named)} are named "
            f"{join_words(PICTURE_COLUMNS)}: pass the column of the pictures alone, X['...']"
        )
    return frame[named[0]]


def read_row_weights(sample_weight: Any, count: int) -> NDArray[np.float64] | None:
    """(N,) weights, at least one above 0. Raises InputError."""
    if sample_weight is None:
        return None
    try:
        weights = np.asarray(sample_weight, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError("sample_weight holds values that are no numbers: expected one weight for each picture") from None
    if weights.ndim == 0:
        weights = np.full(count, float(weights))
    if weights.shape != (count,):
        raise InputError(f"sample_weight has the shape {weights.shape}: expected ({count},), one weight for each picture")
    if not np.isfinite(weights).all() or (weights < 0).any() or not (weights > 0).any():
        raise InputError("sample_weight holds weights that are negative or not finite, or only zeros: expected some above 0")
    return weights


def read_groups(groups: Any, count: int) -> NDArray[np.str_] | None:
    """(N,) groups as text. Raises InputError."""
    if groups is None:
        return None
    array = np.asarray(groups)
    if array.shape != (count,) or any(is_missing(group) for group in array.tolist()):
        raise InputError(f"groups has the shape {array.shape}: expected ({count},), a known group for each picture")
    return array.astype(np.str_)


def _read_item(item: Any, row: int) -> Any:
    where = f"X, row {row}"
    if isinstance(item, (str, Path)):
        return open_image_file(Path(item).expanduser(), f"{where} ({item})")
    return convert_picture(item, where)


def read_targets(y: Any) -> NDArray[Any]:
    """(N,) or (N, 1) labels, or (N, C) one-hot → (N,) labels; those of a one-hot table are its column names, else 0..C-1.

    Raises InputError for missing labels, and for several labels a picture.
    """
    from sklearn.utils.multiclass import check_classification_targets

    if np.ma.isMaskedArray(y) and (masked := np.ma.getmaskarray(y)).any():
        y = np.ma.getdata(y).astype(object)
        y[masked] = None
    cells = list(y) if isinstance(y, (list, tuple)) else None
    flat = cells is not None and not any(np.ndim(cell) for cell in cells)
    array = np.asarray(y, dtype=object) if flat else np.asarray(y)
    if array.ndim == 2:
        array = array.ravel() if array.shape[1] == 1 else _decode_one_hot(array, getattr(y, "columns", None))
    missing = [row for row, v in enumerate(array.tolist()) if is_missing(v) or (isinstance(v, str) and not v.strip())]
    if missing:
        raise InputError(
            f"y has {len(missing)} missing labels, the first at row {missing[0]}: leave these pictures out of X and y"
        )
    array = np.asarray(y) if flat else array
    check_classification_targets(array)
    return array


def _decode_one_hot(array: NDArray[Any], columns: Any) -> NDArray[Any]:
    wrong = find_row_not_one_hot(array)
    if wrong is not None:
        raise InputError(
            f"y has shape {array.shape} and row {wrong} is not one-hot ({join_words(map(str, array[wrong].tolist()), 4)}): "
            "expected one label a picture, as (N,) or with a single 1 in each row"
        )
    names = np.arange(array.shape[1]) if columns is None else np.asarray(columns)
    return np.asarray(names[array.astype(np.float64).argmax(axis=1)])


def _check_images(X: Any) -> NDArray[np.uint8]:
    """(N, H, W), (N, H, W, 1) or (N, H, W, 3) of uint8, or of float in 0..1 → (N, H, W, 3) uint8."""
    array = np.asarray(X)
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[-1] not in (1, 3)):
        way_out = "reshape flat rows first"
        if array.ndim == 4 and array.shape[1] in (1, 3):
            way_out = "put the channels last: X.transpose(0, 2, 3, 1)"
        elif array.ndim == 4 and array.shape[-1] == 4:
            way_out = "leave the alpha channel out: X[..., :3]"
        raise InputError(f"X has shape {array.shape}: expected images as (N, H, W) or (N, H, W, 3); {way_out}")
    if not array.size:
        raise InputError(f"X has shape {array.shape}: expected at least one picture")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise InputError("X holds floats that are outside 0..1 or not finite: scale them to 0..1, or give uint8")
        array = np.round(array * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise InputError(f"X is of type {array.dtype}: expected uint8 in 0..255 or float in 0..1")
    array = array[..., None] if array.ndim == 3 else array
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:3], 3)))

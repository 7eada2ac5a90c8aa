"""VisionClassifier: a candidate as a scikit-learn estimator, for users with their own folds, pipelines and searches.

The training is that of a study; folds that respect groups, intervals and the report are what a study adds.
Left out: `partial_fit`, and sample weights (class weights are in the recipe). `groups` belong to the splitter that makes folds.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, check_random_state

from phoropter.core.columns import is_missing
from phoropter.core.errors import DataError, join_words
from phoropter.core.files import cache_dir
from phoropter.data.dataset import Dataset
from phoropter.data.images.cache import prepare_pixels
from phoropter.data.images.decode import SquareResize, open_image_file
from phoropter.data.sources.arrays import find_row_not_one_hot, from_columns
from phoropter.data.sources.items import convert_picture
from phoropter.data.sources.storage import LazyArray
from phoropter.data.splits.protocol import Split
from phoropter.models import catalog
from phoropter.models.spec import Backbone
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.presets import parse_recipe
from phoropter.training.fit import TrainedRun, TrainingTask, predict_rows
from phoropter.training.loop.devices import resolve_device
from phoropter.training.train import train_candidate


class InputError(DataError, ValueError):
    """X or y cannot be used; a ValueError too, as scikit-learn's tools expect."""


class VisionClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A pretrained backbone with a new head, behind fit, predict, predict_proba and score.

    backbone:     any name a study may use (`phoropter backbones`), or a Backbone of your own
    weights:      `pretrained`, `random`, or a path
    recipe:       the name of a preset, or a mapping, as in a study
    frozen:       train the head only, on features computed once
    size:         side of the images in pixels; None: the size the weights were trained at
    random_state: an int, a RandomState or None, as elsewhere in scikit-learn
    device:       `cpu`, `cuda`, …, or `auto`

    X is (N, H, W, 3) or (N, H, W), uint8 or float in 0..1, or a sequence of N paths, PIL Images or arrays (H, W[, 3]) of any
    size; y holds N labels of any kind, or is (N, C) one-hot. Raises InputError for other input, and for one picture without a
    batch axis.

    >>> VisionClassifier(backbone="resnet50", recipe={"preset": "finetune", "epochs": 3})
    VisionClassifier(backbone='resnet50', recipe={'epochs': 3, 'preset': 'finetune'})
    """

    def __init__(
        self,
        backbone: str | Backbone = "resnet50",
        *,
        weights: str = "pretrained",
        recipe: Any = "finetune",
        frozen: bool = False,
        size: int | None = None,
        random_state: Any = 0,
        device: str = "auto",
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.recipe = recipe
        self.frozen = frozen
        self.size = size
        self.random_state = random_state
        self.device = device

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.non_deterministic = False
        return tags

    def fit(self, X: Any, y: Any, **unused: Any) -> VisionClassifier:
        """Trains on (N, H, W[, 3]) images X with (N,) labels y. Raises InputError for `sample_weight` and `groups`."""
        _refuse_fit_options(unused)
        images = _read_images(X, self._resolve_candidate()[1])
        y = read_targets(y)
        if len(y) != len(images):
            shape = np.shape(X)
            batch = "; one picture needs a batch axis: X[None]" if len(shape) == 3 and shape[-1] in (1, 3, 4) else ""
            raise InputError(f"X has {len(images)} images and y {len(y)} labels, expected equal numbers{batch}")
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError(f"y holds {len(self.classes_)} class, expected at least two")
        rows = np.arange(len(labels), dtype=np.int64)
        split = Split(seed=self._draw_seed(), repeat=0, fold=0, folds=1, name="everything", train=rows, test=rows[:0])
        self._trained_run = _run_training(self._make_task(_make_dataset(images, labels.astype(np.int64), self.classes_), split))
        self.history_ = self._trained_run.history
        self.n_features_in_ = int(np.prod(images.shape[1:]))
        self._picture_shape = np.shape(X)[1:] if isinstance(X, np.ndarray) else ()
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """(N, H, W[, 3]) images → (N, C) probabilities, columns in the order of `classes_`."""
        check_is_fitted(self)
        _refuse_one_picture(np.shape(X) if hasattr(X, "shape") else (), self._picture_shape)
        images = _read_images(X, self._resolve_candidate()[1])
        dataset = _make_dataset(images, np.zeros(len(images), dtype=np.int64), self.classes_)
        task = self._make_task(dataset, self._trained_run.task.split)
        run = TrainedRun(task, self._trained_run.model, [], 0, 0.0, (), None)
        logits = predict_rows(run, np.arange(len(images), dtype=np.int64))[0]
        return np.asarray(torch.from_numpy(logits).double().softmax(-1).numpy())

    def predict(self, X: Any) -> NDArray[Any]:
        """(N, H, W[, 3]) images → (N,) labels."""
        likeliest = self.predict_proba(X).argmax(1)  # first, because it checks that the estimator is fitted
        return np.asarray(self.classes_[likeliest])

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Share of images with the right label; y as in `fit`, sample_weight (N,) weighs the images."""
        return float(super().score(X, read_targets(y), sample_weight))

    def _draw_seed(self) -> int:
        if isinstance(self.random_state, (int, np.integer)):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31))

    def _resolve_candidate(self) -> tuple[Candidate, int]:
        """(the candidate, side of its images in pixels)."""
        words = ("backbone", "weights", "frozen", "recipe", "size")
        entry = {word: getattr(self, word) for word in words if getattr(self, word) is not None}
        (candidate,) = parse_candidates([entry], parse_recipe(None))
        return candidate, self.size or catalog.resolve_side(candidate.backbones[0])

    def _make_task(self, dataset: Dataset, split: Split) -> TrainingTask:
        candidate, side = self._resolve_candidate()
        cache = Path(tempfile.gettempdir()) / "phoropter" if not _is_writable(cache_dir()) else cache_dir()
        kept, pixels = prepare_pixels(dataset, side, resize="center-crop", interpolation="bicubic", cache=cache)
        return TrainingTask(candidate, split, kept, pixels, resolve_device(self.device), cache)


def _run_training(task: TrainingTask) -> TrainedRun:
    training = train_candidate(task)
    while True:
        try:
            next(training)
        except StopIteration as stop:
            run: TrainedRun = stop.value
            return run


def _refuse_fit_options(given: dict[str, Any]) -> None:
    reasons = {
        "sample_weight": "the loss weighs classes, not pictures (recipe: {loss: {class_weights: auto}})",
        "groups": "they belong to the splitter, as in cross_val_score(model, X, y, groups=groups, cv=GroupKFold())",
    }
    for name, value in given.items():
        if value is not None or name not in reasons:
            why = reasons.get(name, f"expected X and y; {join_words(reasons)} are refused too")
            raise InputError(f"fit does not use {name}: {why}; leave it out")


def _refuse_one_picture(given: tuple[int, ...], fitted: tuple[int, ...]) -> None:
    """Raises InputError for the shape of one picture without a batch axis, whose rows would be taken for pictures."""
    same_grey = len(fitted) == 2 and len(given) == 3 and given[:2] == fitted and given[2] in (1, 3, 4)
    same_colour = len(fitted) == 3 and len(given) == 3 and given[2] in (1, 3, 4)
    if fitted and (given == fitted or same_grey or same_colour):
        raise InputError(f"X has shape {given}, which is one picture: give it a batch axis, as in predict(X[None])")
    if len(fitted) == 3 and len(given) == 3 and given == (fitted[2], *fitted[:2]):
        raise InputError(f"X has shape {given}, which is one picture with channels first: write X.transpose(1, 2, 0)[None]")


def _read_images(X: Any, side: int) -> NDArray[np.uint8]:
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
    if hasattr(X, "to_numpy"):
        X = X.to_numpy()
    if isinstance(X, np.ndarray) and X.dtype.kind in "OU" and X.size == len(X):
        X = X.ravel().tolist()
    if not isinstance(X, (list, tuple)) or not X:
        return None
    shapes = {np.shape(item) for item in X if isinstance(item, np.ndarray)}
    pictures = any(isinstance(item, (str, Path, Image.Image)) for item in X) or len(shapes) > 1
    return list(X) if pictures else None


def _read_item(item: Any, row: int) -> Any:
    where = f"X, row {row}"
    if isinstance(item, (str, Path)):
        return open_image_file(Path(item).expanduser(), f"{where} ({item})")
    return convert_picture(item, where)


def read_targets(y: Any) -> NDArray[Any]:
    """(N,) or (N, 1) labels, or (N, C) one-hot → (N,) labels; those of a one-hot table are its column names, else 0..C-1.

    Raises InputError for missing labels, and for several labels a picture.
    """
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
    if array.dtype.kind == "f":
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise InputError("X holds floats that are outside 0..1 or not finite: scale them to 0..1, or give uint8")
        array = np.round(array * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise InputError(f"X is of type {array.dtype}: expected uint8 in 0..255 or float in 0..1")
    array = array[..., None] if array.ndim == 3 else array
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:3], 3)))


def _make_dataset(images: NDArray[np.uint8], labels: NDArray[np.int64], classes: NDArray[Any]) -> Dataset:
    return from_columns("X", LazyArray(np.asarray, images), labels, tuple(str(c) for c in classes), {})


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return True

"""VisionClassifier: a candidate as a scikit-learn estimator, for users with their own folds, pipelines and searches.

The training is that of a study; folds that respect groups, intervals and the report are what a study adds.
Left out: `partial_fit`, and sample weights (class weights are in the recipe).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, check_random_state

from phoropter.core.errors import DataError
from phoropter.core.files import cache_dir
from phoropter.data.dataset import Dataset
from phoropter.data.images.cache import prepare_pixels
from phoropter.data.sources.arrays import from_columns
from phoropter.data.sources.storage import LazyArray
from phoropter.data.splits.protocol import Split
from phoropter.models import catalog
from phoropter.models.spec import Backbone
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.presets import parse_recipe
from phoropter.training.fit import TrainedRun, TrainingTask, predict_rows
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

    X is (N, H, W, 3) or (N, H, W), uint8 or float in 0..1; y holds any labels. Raises InputError for other input.

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

    def fit(self, X: Any, y: Any) -> VisionClassifier:
        """Trains on (N, H, W[, 3]) images X with (N,) labels y."""
        images = _check_images(X)
        y = np.asarray(y)
        if y.ndim == 2 and y.shape[1] == 1:
            y = y.ravel()
        check_classification_targets(y)
        if len(y) != len(images):
            raise InputError(f"X has {len(images)} images and y {len(y)} labels, expected equal numbers")
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError(f"y holds {len(self.classes_)} class, expected at least two")
        rows = np.arange(len(labels), dtype=np.int64)
        split = Split(seed=self._draw_seed(), repeat=0, fold=0, folds=1, name="everything", train=rows, test=rows[:0])
        self._trained_run = _run_training(self._make_task(_make_dataset(images, labels.astype(np.int64), self.classes_), split))
        self.history_ = self._trained_run.history
        self.n_features_in_ = int(np.prod(images.shape[1:]))
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """(N, H, W[, 3]) images → (N, C) probabilities, columns in the order of `classes_`."""
        check_is_fitted(self)
        images = _check_images(X)
        dataset = _make_dataset(images, np.zeros(len(images), dtype=np.int64), self.classes_)
        task = self._make_task(dataset, self._trained_run.task.split)
        run = TrainedRun(task, self._trained_run.model, [], 0, 0.0, (), None)
        logits = predict_rows(run, np.arange(len(images), dtype=np.int64))[0]
        return np.asarray(torch.from_numpy(logits).double().softmax(-1).numpy())

    def predict(self, X: Any) -> NDArray[Any]:
        """(N, H, W[, 3]) images → (N,) labels."""
        likeliest = self.predict_proba(X).argmax(1)  # first, because it checks that the estimator is fitted
        return np.asarray(self.classes_[likeliest])

    def _draw_seed(self) -> int:
        if isinstance(self.random_state, (int, np.integer)):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31))

    def _make_task(self, dataset: Dataset, split: Split) -> TrainingTask:
        words = ("backbone", "weights", "frozen", "recipe", "size")
        entry = {word: getattr(self, word) for word in words if getattr(self, word) is not None}
        (candidate,) = parse_candidates([entry], parse_recipe(None))
        side = self.size or catalog.resolve_side(candidate.backbones[0])
        cache = Path(tempfile.gettempdir()) / "phoropter" if not _is_writable(cache_dir()) else cache_dir()
        kept, pixels = prepare_pixels(dataset, side, resize="center-crop", interpolation="bicubic", cache=cache)
        device = self.device if self.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        return TrainingTask(candidate, split, kept, pixels, torch.device(device), cache)


def _run_training(task: TrainingTask) -> TrainedRun:
    training = train_candidate(task)
    while True:
        try:
            next(training)
        except StopIteration as stop:
            run: TrainedRun = stop.value
            return run


def _check_images(X: Any) -> NDArray[np.uint8]:
    """(N, H, W), (N, H, W, 1) or (N, H, W, 3) of uint8, or of float in 0..1 → (N, H, W, 3) uint8."""
    array = np.asarray(X)
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[-1] not in (1, 3)):
        raise InputError(f"X has shape {array.shape}: expected images as (N, H, W) or (N, H, W, 3); reshape flat rows first")
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

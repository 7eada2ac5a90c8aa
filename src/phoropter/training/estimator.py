"""VisionClassifier: a candidate as a scikit-learn estimator, for users with their own folds, pipelines and searches.

The training is that of a study; folds that respect groups, intervals and the report are what a study adds.
Left out: `partial_fit`. What of scikit-learn's own checks cannot hold for pictures is listed in docs/estimator.md.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, check_random_state

from phoropter.core.extensions import Extension
from phoropter.core.files import cache_dir
from phoropter.data.dataset import Dataset
from phoropter.data.images.cache import prepare_pixels
from phoropter.data.sources.arrays import from_columns
from phoropter.data.sources.storage import LazyArray
from phoropter.data.spec import in_memory
from phoropter.data.splits.protocol import Split
from phoropter.models import catalog
from phoropter.models.spec import Backbone
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.presets import parse_recipe
from phoropter.training.estimator_parts.picture_input import InputError as InputError
from phoropter.training.estimator_parts.picture_input import (
    read_groups,
    read_images,
    read_row_weights,
    refuse_one_picture,
)
from phoropter.training.estimator_parts.picture_input import read_targets as read_targets
from phoropter.training.estimator_parts.saved_estimator import FittedClassifier, load_fitted, name_backbone, save_fitted
from phoropter.training.fit import TrainedRun, TrainingTask, predict_rows
from phoropter.training.loop.devices import resolve_device
from phoropter.training.train import train_candidate


class VisionClassifier(ClassifierMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A pretrained backbone with a new head, behind fit, predict, predict_proba and score.

    backbone:     any name a study may use (`phoropter backbones`), a mapping with options, or a Backbone of your own
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
        backbone: str | dict[str, Any] | Backbone = "resnet50",
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
        tags.transformer_tags.preserves_dtype = []  # features are float32 whatever X is
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> VisionClassifier:
        """Trains on N pictures X with (N,) labels y.

        sample_weight: (N,) factors of the pictures' losses; a picture of weight 0 is left out. Of a head that is trained.
        groups:        (N,) subjects or patients; of a solved head (`recipe="logistic"`), whose inner folds keep them apart.
                       The folds of a cross-validation are made by its splitter, which takes groups of its own.
        Raises InputError for input that does not fit, and for an argument that this recipe would not use.
        """
        candidate, side = self._resolve_candidate()
        _check_fit_options(candidate, sample_weight, groups)
        images, y = read_images(X, side), read_targets(y)
        if len(y) != len(images):
            shape = np.shape(X)
            batch = "; one picture needs a batch axis: X[None]" if len(shape) == 3 and shape[-1] in (1, 3, 4) else ""
            raise InputError(f"X has {len(images)} images and y {len(y)} labels, expected equal numbers{batch}")
        weights, grouping = read_row_weights(sample_weight, len(y)), read_groups(groups, len(y))
        if weights is not None and (used := weights > 0).sum() < len(y):
            images, y, weights = images[used], y[used], weights[used]
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError(f"y holds {len(self.classes_)} class, expected at least two")
        dataset = _make_dataset(images, labels.astype(np.int64), self.classes_, grouping)
        data = in_memory(dataset, size=side).plain()
        task = self._make_task(candidate, dataset, side, data)
        if weights is not None:
            task = replace(task, row_weights=(weights / weights.mean()).astype(np.float32))
        run = _run_training(task)
        self._fitted = FittedClassifier(candidate, run.model, side, data)
        self.history_ = run.history
        self.n_features_in_ = int(np.prod(images.shape[1:]))
        self._picture_shape = np.shape(X)[1:] if isinstance(X, np.ndarray) else ()
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """(N, H, W[, 3]) images → (N, C) probabilities, columns in the order of `classes_`."""
        logits = self._predict_logits_and_features(X)[0] / self._fitted.temperature
        return np.asarray(torch.from_numpy(logits).double().softmax(-1).numpy())

    def transform(self, X: Any) -> NDArray[np.float32]:
        """(N, H, W[, 3]) images → (N, D) features, the inputs of the head's last layer, of half precision."""
        return self._predict_logits_and_features(X)[1].astype(np.float32)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """(D,) names of the features of `transform`."""
        check_is_fitted(self)
        black = np.zeros((1, self._fitted.side, self._fitted.side, 3), dtype=np.uint8)
        width = self._predict_logits_and_features(black)[1].shape[1]
        return np.array([f"{type(self).__name__.lower()}{number}" for number in range(width)], dtype=object)

    def save(self, folder: Path | str) -> Path:
        """Writes the fitted classifier as a bundle, which `from_bundle`, `ph.load` and `phoropter predict` read.

        Raises StoreError where the folder exists, DiskError.
        """
        check_is_fitted(self)
        save_fitted(self._fitted, self.classes_, Path(folder))
        return Path(folder)

    @classmethod
    def from_bundle(cls, folder: Path | str, *, device: str = "auto", extensions: Sequence[Extension] = ()) -> VisionClassifier:
        """A fitted classifier from a bundle of one backbone, of `save` or of a study. Fitted anew, it has the usual head.

        extensions: the objects of the user's own that it was trained with. Raises WeightsError for another folder.
        """
        fitted, labels = load_fitted(Path(folder), extensions)
        candidate = fitted.candidate
        options: dict[str, Any] = {
            "weights": candidate.backbones[0].weights,
            "frozen": candidate.frozen,
            "recipe": candidate.recipe,
        }
        model = cls(name_backbone(candidate), **options, size=fitted.side, device=device)
        model._fitted, model.classes_, model.history_ = fitted, labels, []
        model.n_features_in_, model._picture_shape = 3 * fitted.side**2, ()
        return model

    def _predict_logits_and_features(self, X: Any) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
        check_is_fitted(self)
        refuse_one_picture(np.shape(X) if hasattr(X, "shape") else (), self._picture_shape)
        fitted = self._fitted
        images = read_images(X, fitted.side)
        dataset = _make_dataset(images, np.zeros(len(images), dtype=np.int64), self.classes_)
        task = self._make_task(fitted.candidate, dataset, fitted.side, fitted.data)
        run = TrainedRun(task, fitted.model.to(task.device), [], 0, 0.0, (), None)
        return predict_rows(run, np.arange(len(images), dtype=np.int64))

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
        if isinstance(self.backbone, dict):  # a study has these options inside the mapping
            beside = {word: entry.pop(word) for word in ("weights", "size") if word in entry}
            entry["backbone"] = {**beside, **self.backbone}
        (candidate,) = parse_candidates([entry], parse_recipe(None))
        return candidate, self.size or catalog.resolve_side(candidate.backbones[0])

    def _make_task(self, candidate: Candidate, dataset: Dataset, side: int, data: dict[str, Any]) -> TrainingTask:
        """Every row is a training row. data: plain DataSpec, which says how pictures become square"""
        cache = Path(tempfile.gettempdir()) / "phoropter" if not _is_writable(cache_dir()) else cache_dir()
        kept, pixels = prepare_pixels(dataset, side, resize=data["resize"], interpolation=data["interpolation"], cache=cache)
        rows = np.arange(len(kept), dtype=np.int64)
        split = Split(seed=self._draw_seed(), repeat=0, fold=0, folds=1, name="everything", train=rows, test=rows[:0])
        return TrainingTask(candidate, split, kept, pixels, resolve_device(self.device), cache)


def _run_training(task: TrainingTask) -> TrainedRun:
    training = train_candidate(task)
    while True:
        try:
            next(training)
        except StopIteration as stop:
            run: TrainedRun = stop.value
            return run


def _check_fit_options(candidate: Candidate, sample_weight: Any, groups: Any) -> None:
    """Raises InputError for an argument that the candidate's recipe would not use."""
    if sample_weight is not None and candidate.recipe.l2_penalties:
        raise InputError("fit: a head that is solved as a logistic regression takes no sample_weight; choose recipe='probe'")
    if groups is not None and not candidate.recipe.l2_penalties:
        raise InputError(
            "fit does not use groups: this recipe makes no folds; they belong to the splitter, as in "
            "cross_val_score(model, X, y, groups=groups, cv=GroupKFold()); leave them out"
        )


def _make_dataset(
    images: NDArray[np.uint8], labels: NDArray[np.int64], classes: NDArray[Any], groups: NDArray[np.str_] | None = None
) -> Dataset:
    return from_columns("X", LazyArray(np.asarray, images), labels, tuple(str(c) for c in classes), {"groups": groups})


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return True

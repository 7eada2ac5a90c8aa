"""VisionClassifier: an estimator like any other, as far as pictures allow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import check_is_fitted, validate_data

from phoropter.core.errors import DataError
from phoropter.models.spec import Backbone
from phoropter.training.estimator import VisionClassifier

torch.set_num_threads(1)

QUICK: dict[str, Any] = {"preset": "scratch", "epochs": 12, "lr": 0.005, "batch_size": 32}


def small(**changes: Any) -> VisionClassifier:
    return VisionClassifier(
        **{"backbone": "test_resnet", "weights": "random", "recipe": QUICK, "size": 32, "device": "cpu", **changes}
    )


@pytest.fixture(scope="module")
def digits() -> tuple[Any, Any]:
    images, labels = load_digits(return_X_y=True)
    return (images.reshape(-1, 8, 8)[:240] / 16), np.array([f"digit {n}" for n in labels[:240]])


def test_it_learns_and_gives_labels_back_as_they_came(digits: tuple[Any, Any]) -> None:
    X, y = digits
    model = small().fit(X[:180], y[:180])
    assert list(model.classes_) == sorted(set(y)) and set(model.predict(X[180:])) <= set(y)
    assert model.score(X[180:], y[180:]) > 0.5
    probabilities = model.predict_proba(X[180:])
    np.testing.assert_allclose(probabilities.sum(1), 1)
    np.testing.assert_array_equal(model.classes_[probabilities.argmax(1)], model.predict(X[180:]))


def test_equal_seeds_give_equal_models_and_other_seeds_others(digits: tuple[Any, Any]) -> None:
    X, y = digits
    quick = small(recipe={**QUICK, "epochs": 1})
    one, same, other = (clone(quick).set_params(random_state=s).fit(X[:60], y[:60]).predict_proba(X[60:70]) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_it_works_in_cross_validation_and_a_pipeline(digits: tuple[Any, Any]) -> None:
    X, y = digits
    pipeline = make_pipeline(
        FunctionTransformer(lambda images: (images * 255).astype(np.uint8)),
        small(frozen=True, recipe={"preset": "probe", "lr": 0.05}),
    )
    scores = cross_val_score(pipeline, X, y, cv=2)
    assert scores.shape == (2,) and (scores > 0.2).all()


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.zeros((4, 64)), [0, 1, 0, 1], r"shape \(4, 64\).*reshape flat rows"),
        (np.full((4, 8, 8), 7.0), [0, 1, 0, 1], "outside 0..1"),
        (np.zeros((4, 8, 8)), [0, 0, 0, 0], "1 class"),
        (np.zeros((4, 8, 8)), [0, 1, 0], "4 images and y 3 labels"),
        (np.zeros((4, 8, 8), dtype=np.int64), [0, 1, 0, 1], "of type int64"),
    ],
)
def test_other_input_is_refused_in_a_sentence(X: Any, y: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        small().fit(X, y)


class OfRows(VisionClassifier):
    """The estimator with flat rows drawn as pictures, so that scikit-learn's checks can feed it what they have."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.input_tags.three_d_array = False
        tags.classifier_tags.poor_score = True
        return tags

    def fit(self, X: Any, y: Any) -> VisionClassifier:
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        fitted = super().fit(drawn(X), y)
        self.n_features_in_ = X.shape[1]
        return fitted

    def predict_proba(self, X: Any) -> Any:
        check_is_fitted(self)
        return super().predict_proba(drawn(validate_data(self, X, dtype=np.float64, reset=False)))


def drawn(X: Any) -> Any:
    """(N, F) rows → (N, 8, F) pictures whose grey levels are the values squeezed into 0..1."""
    return np.repeat((1 / (1 + np.exp(-X)))[:, None, :], 8, axis=1)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_scikit_learn_s_own_checks_as_far_as_pictures_allow() -> None:
    quick = OfRows("test_resnet", weights="random", recipe={"preset": "scratch", "epochs": 1}, size=32, device="cpu")
    results = check_estimator(quick, on_fail=None, on_skip=None)
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}
    assert not failed and sum(r["status"] == "passed" for r in results) >= 40


def test_flat_rows_are_not_taken_for_pictures() -> None:
    tags = small().__sklearn_tags__().input_tags
    assert tags.three_d_array and not tags.two_d_array


def test_a_backbone_of_the_users_own_is_fitted_cloned_and_scored() -> None:
    def build() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(8), torch.nn.Flatten())

    recipe = {"preset": "probe", "epochs": 20, "lr": 0.03}
    model = small(backbone=Backbone("pixels", build=build, width=192), weights="pretrained", frozen=True, recipe=recipe)
    X, y = load_digits(return_X_y=True)
    images = np.repeat(np.repeat((X[:300].reshape(-1, 8, 8) / 16), 4, axis=1), 4, axis=2)
    fitted = clone(model).fit(images[:200], y[:200])
    assert fitted.backbone == model.backbone and fitted.score(images[200:], y[200:300]) > 0.7

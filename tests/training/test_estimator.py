"""VisionClassifier: an estimator like any other, as far as pictures allow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import check_is_fitted, has_fit_parameter, validate_data

from phoropter.core.errors import DataError
from phoropter.models.spec import Backbone
from phoropter.training.estimator import InputError, VisionClassifier, read_targets

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


def colours(count: int = 16) -> tuple[Any, Any]:
    """Dark and bright noise of two classes."""
    y = np.arange(count) % 2
    X = np.random.default_rng(0).integers(0, 60, (count, 32, 32, 3), dtype=np.uint8)
    X[y == 1] += 150
    return X, y


@pytest.fixture(scope="module")
def fitted() -> VisionClassifier:
    return small(recipe={**QUICK, "epochs": 2}).fit(*colours())


@pytest.mark.parametrize("one", [colours()[0][0], colours()[0][0][..., :1], colours()[0][0].transpose(2, 0, 1)])
def test_one_picture_without_a_batch_axis_is_refused(fitted: VisionClassifier, one: Any) -> None:
    with pytest.raises(DataError, match=r"which is one picture.*\[None\]"):
        fitted.predict(one)


def test_one_picture_is_refused_by_a_model_of_grey_pictures(digits: tuple[Any, Any]) -> None:
    X, y = digits
    model = small(recipe={**QUICK, "epochs": 1}).fit(X[:20], y[:20])
    for one in (X[0], X[0][..., None], np.repeat(X[0][..., None], 3, axis=2)):
        with pytest.raises(DataError, match="which is one picture"):
            model.predict(one)
    assert len(model.predict(X[:1])) == 1
    with pytest.raises(DataError, match=r"8 images and y 1 labels.*one picture needs a batch axis"):
        model.fit(np.zeros((8, 8, 3)), ["a"])


def test_one_hot_labels_are_labels(fitted: VisionClassifier) -> None:
    X, y = colours()
    for table in (np.eye(2)[y], np.eye(2, dtype=bool)[y], np.eye(2, dtype=int)[y].tolist()):
        model = small(recipe={**QUICK, "epochs": 2}).fit(X, table)
        assert model.classes_.tolist() == [0, 1]
        np.testing.assert_array_equal(model.predict_proba(X), fitted.predict_proba(X))
    assert fitted.score(X, np.eye(2)[y]) == fitted.score(X, y)
    named = pd.DataFrame(np.eye(2, dtype=int)[y], columns=["cat", "dog"])
    assert read_targets(named).tolist() == ["cat" if label == 0 else "dog" for label in y]


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.ones((4, 2)), r"shape \(4, 2\) and row 0 is not one-hot \(1.0 or 1.0\)"),
        ([[1, 0], [0, 1], [0, 0], [1, 0]], "row 2 is not one-hot"),
        ([[0.3, 0.7]] * 4, "row 0 is not one-hot"),
        (["a", None, "b", "a"], "y has 1 missing labels, the first at row 1"),
        (["a", float("nan"), "b", float("nan")], "y has 2 missing labels, the first at row 1"),
        (np.array([0, 1, np.nan, 1]), "1 missing labels, the first at row 2"),
        (["a", "b", " ", "a"], "1 missing labels, the first at row 2"),
        (pd.Series(["a", "b", "a", pd.NA]), "1 missing labels, the first at row 3"),
        (np.ma.masked_array([0, 1, 0, 1], [0, 0, 1, 0]), "1 missing labels, the first at row 2"),
    ],
)
def test_labels_that_are_missing_or_several_are_refused(y: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        small().fit(np.zeros((4, 8, 8)), y)


def test_paths_and_pictures_are_read(tmp_path: Path, fitted: VisionClassifier) -> None:
    X, y = colours()
    paths = [tmp_path / f"{i}.png" for i in range(len(X))]
    for path, pixels in zip(paths, X, strict=True):
        Image.fromarray(pixels).save(path)
    expected = fitted.predict_proba(X)
    texts = [str(path) for path in paths]
    for given in (paths, texts, np.array(texts), np.array(texts)[:, None], pd.Series(texts), [Image.open(p) for p in paths]):
        np.testing.assert_array_equal(fitted.predict_proba(given), expected)
    sizes = [np.full((20 + i, 30, 3), 9 if label == 0 else 200, np.uint8) for i, label in enumerate(y)]
    assert len(fitted.predict(sizes)) == len(y)
    assert len(small(recipe={**QUICK, "epochs": 1}).fit(paths, y).predict(X)) == len(y)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("a.png", r"X is one picture \(str\), expected several"),
        (["gone.png", "b.png"], r"X, row 0 \(gone.png\): the file cannot be read: No such file"),
        ([Image.new("L", (4, 4)), 7], "X, row 1: the picture is int"),
        (np.zeros((4, 3, 8, 8)), r"channels last: X.transpose\(0, 2, 3, 1\)"),
        (np.zeros((4, 8, 8, 4)), "leave the alpha channel out"),
    ],
)
def test_pictures_that_cannot_be_read_are_refused(fitted: VisionClassifier, X: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fitted.predict(X)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_weight": np.ones(16)}, "fit does not use sample_weight: the loss weighs classes"),
        ({"groups": np.arange(16)}, "fit does not use groups: they belong to the splitter"),
        ({"epochs": 3}, "fit does not use epochs: expected X and y"),
    ],
)
def test_what_fit_does_not_use_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small().fit(*colours(), **options)
    assert not has_fit_parameter(small(), "sample_weight")

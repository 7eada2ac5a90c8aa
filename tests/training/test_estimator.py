"""VisionClassifier: an estimator like any other, as far as pictures allow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import check_is_fitted, has_fit_parameter, validate_data

import phoropter as ph
from phoropter.core.errors import DataError, StoreError, WeightsError
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

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> VisionClassifier:
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        fitted = super().fit(drawn(X), y, sample_weight, groups)
        self.n_features_in_ = X.shape[1]
        return fitted

    def predict_proba(self, X: Any) -> Any:
        check_is_fitted(self)
        return super().predict_proba(drawn(validate_data(self, X, dtype=np.float64, reset=False)))

    def transform(self, X: Any) -> Any:
        check_is_fitted(self)
        return super().transform(drawn(validate_data(self, X, dtype=np.float64, reset=False)))


def drawn(X: Any) -> Any:
    """(N, F) rows → (N, 8, F) pictures whose grey levels are the values squeezed into 0..1."""
    return np.repeat((1 / (1 + np.exp(-X)))[:, None, :], 8, axis=1)


CANNOT_HOLD = {
    "check_sample_weight_equivalence_on_dense_data": "a picture given twice is in two batches, one of weight 2 in one of them"
}


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_scikit_learn_s_own_checks_hold_but_for_those_named_in_the_docs() -> None:
    quick = OfRows("test_resnet", weights="random", recipe={"preset": "scratch", "epochs": 1}, size=32, device="cpu")
    results = check_estimator(quick, expected_failed_checks=CANNOT_HOLD, on_fail=None, on_skip=None)
    by_status = {s: {r["check_name"] for r in results if r["status"] == s} for s in ("failed", "xfail", "skipped")}
    assert by_status == {"failed": set(), "xfail": set(CANNOT_HOLD), "skipped": {"check_array_api_input"}}
    assert sum(r["status"] == "passed" for r in results) >= 60
    page = (Path(__file__).parents[2] / "docs" / "estimator.md").read_text(encoding="utf-8")
    named = {word for word in re.findall(r"`(check_\w+)`", page) if word != "check_estimator"}
    assert named == {*CANNOT_HOLD, *by_status["skipped"]}


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
        ([np.zeros((8, 8, 3), np.uint8), None], "X, row 1: the picture is NoneType"),
        (np.zeros((0, 8, 8, 3)), r"X has shape \(0, 8, 8, 3\): expected at least one picture"),
        (np.zeros((4, 3, 8, 8)), r"channels last: X.transpose\(0, 2, 3, 1\)"),
        (np.zeros((4, 8, 8, 4)), "leave the alpha channel out"),
    ],
)
def test_pictures_that_cannot_be_read_are_refused(fitted: VisionClassifier, X: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fitted.predict(X)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        (
            {"frozen": True, "recipe": "logistic"},
            {"sample_weight": np.ones(16)},
            "solved as a logistic regression takes no sample",
        ),
        ({}, {"groups": np.arange(16)}, "fit does not use groups: this recipe makes no folds; they belong to the splitter"),
        ({}, {"sample_weight": np.ones((16, 2))}, r"sample_weight has the shape \(16, 2\): expected \(16,\)"),
        ({}, {"sample_weight": -np.ones(16)}, "negative or not finite, or only zeros"),
        ({}, {"sample_weight": np.zeros(16)}, "negative or not finite, or only zeros"),
        ({}, {"sample_weight": ["a"] * 16}, "sample_weight holds values that are no numbers"),
        ({"frozen": True, "recipe": "logistic"}, {"groups": np.arange(15)}, r"groups has the shape \(15,\): expected \(16,\)"),
        ({}, {"sample_weight": np.arange(16) % 2}, "y holds 1 class"),
    ],
)
def test_weights_and_groups_that_cannot_be_used_are_refused(
    changes: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        small(**changes).fit(*colours(), **options)
    with pytest.raises(TypeError, match="epochs"):
        small().fit(*colours(), **{"epochs": 3})
    assert has_fit_parameter(small(), "sample_weight")


def test_weights_count_and_a_weight_of_zero_leaves_out() -> None:
    X, y = colours()
    one = small(recipe={**QUICK, "epochs": 1})
    plain = clone(one).fit(X, y).predict_proba(X)
    np.testing.assert_allclose(clone(one).fit(X, y, np.full(16, 3.0)).predict_proba(X), plain, atol=1e-5)
    zero = np.where(np.arange(16) < 12, 2.0, 0.0)
    np.testing.assert_array_equal(clone(one).fit(X, y, zero).predict_proba(X), clone(one).fit(X[:12], y[:12]).predict_proba(X))
    noise = np.random.default_rng(1).integers(0, 255, (16, 32, 32, 3), dtype=np.uint8)  # says nothing, so that weights decide
    heavy = clone(small()).fit(noise[:, :8, :8] // 32, y, np.where(y == 1, 9.0, 1.0)).predict_proba(noise[:, :8, :8] // 32)
    assert heavy[:, 1].mean() > 0.6


def test_groups_keep_the_inner_folds_of_a_solved_head_apart() -> None:
    X, y = colours(48)
    X = np.random.default_rng(2).integers(0, 255, X.shape, dtype=np.uint8)
    X[24:] = X[:24]  # every picture twice: a subject whose two pictures are in two folds is known by heart
    y[24:] = y[:24]
    recipe = {"preset": "logistic", "l2_penalties": [1e-4, 1e4]}
    apart, mixed = (small(frozen=True, recipe=recipe).fit(X, y, groups=g) for g in (np.tile(np.arange(24), 2), None))
    assert np.ptp(apart.predict_proba(X)[:, 1]) < np.ptp(mixed.predict_proba(X)[:, 1])


def test_features_feed_another_estimator(fitted: VisionClassifier) -> None:
    X, y = colours()
    features = fitted.transform(X)
    assert features.shape == (16, len(fitted.get_feature_names_out())) and features.dtype == np.float32
    assert LogisticRegression().fit(features, y).score(features, y) > 0.9
    head = fitted._fitted.model.head
    with torch.inference_mode():
        logits = [m for m in head.modules() if isinstance(m, torch.nn.Linear)][-1](torch.from_numpy(features)).double()
    np.testing.assert_allclose(logits.softmax(-1), fitted.predict_proba(X), atol=1e-2)


@pytest.mark.parametrize("labels", [[0, 1], ["cat", "dog"], [False, True], [0.0, 1.0]])
def test_a_saved_classifier_comes_back_with_its_labels(tmp_path: Path, labels: list[Any]) -> None:
    X, y = colours()
    model = small(recipe={**QUICK, "epochs": 1}).fit(X, np.array(labels)[y])
    again = VisionClassifier.from_bundle(model.save(tmp_path / "bundle"), device="cpu")
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert again.classes_.dtype == model.classes_.dtype and again.predict(X).tolist() == model.predict(X).tolist()
    refitted = clone(again).set_params(weights="random").fit(X, np.array(labels)[y])
    np.testing.assert_array_equal(refitted.predict_proba(X), model.predict_proba(X))
    with pytest.raises(StoreError, match="exists already"):
        model.save(tmp_path / "bundle")


def test_a_data_frame_names_the_column_of_its_pictures(tmp_path: Path, fitted: VisionClassifier) -> None:
    X, _ = colours()
    paths = [str(tmp_path / f"{i}.png") for i in range(len(X))]
    for path, pixels in zip(paths, X, strict=True):
        Image.fromarray(pixels).save(path)
    frame = pd.DataFrame({"subject": range(16), "path": paths})
    for given in (frame, frame[["path"]], frame.rename(columns={"path": "Image"})):
        np.testing.assert_array_equal(fitted.predict_proba(given), fitted.predict_proba(X))
    with pytest.raises(InputError, match=r"the columns subject or where, of which 0 are named path.*pass the column"):
        fitted.predict(frame.rename(columns={"path": "where"}))


def test_bundles_are_those_of_the_other_doors(tmp_path: Path) -> None:
    X, y = colours()
    model = small(recipe={**QUICK, "epochs": 1}).fit(X, np.array(["dark", "bright"])[y])
    loaded = ph.load(model.save(tmp_path / "bundle"))
    np.testing.assert_allclose(loaded.predict(list(X)).probabilities, model.predict_proba(X), atol=1e-6)
    candidate = ph.finetune({"name": "test_resnet", "seed": 3, "weights": "random"}, name="net", recipe={**QUICK, "epochs": 1})
    data = ph.in_memory((X, y), size=32)
    study = ph.Study(name="s", data=data, candidates=[candidate], protocol=ph.HoldOut(), save_models="all")
    results = study.run(tmp_path / "study", quiet=True)
    again = VisionClassifier.from_bundle(results.bundle, device="cpu")
    np.testing.assert_allclose(again.predict_proba(X), ph.load(results.bundle).predict(list(X)).probabilities, atol=1e-6)
    assert again.backbone == {"name": "test_resnet", "seed": 3} and again.size == 32 and again.recipe.total_epochs == 1
    with pytest.raises(WeightsError, match=r"bundle\.json"):
        VisionClassifier.from_bundle(tmp_path)

"""Prior correction: exact for a model that is right in the world it was trained on, and the shares that a recipe makes of it."""

from __future__ import annotations

import numpy as np
import pytest

from phoropter.results.clinical.prior_correction import changes_shares, correct_priors, effective_shares
from phoropter.training.batches.loading import undersample_rows
from phoropter.training.candidates.recipe import LossSpec
from phoropter.training.loop.losses import compute_class_weights

CLASSES = ("a", "b", "c")
COUNTS = np.array([400, 90, 31])


def test_a_correction_is_bayes_rule_with_other_shares() -> None:
    density = np.random.default_rng(0).random((50, 3))  # of what is seen, in each class
    trained, here = np.array([1, 1, 1]) / 3, np.array([0.9, 0.08, 0.02])
    there, expected = (density * shares / (density * shares).sum(axis=1, keepdims=True) for shares in (trained, here))
    np.testing.assert_allclose(correct_priors(there, trained, here), expected)
    odds = correct_priors(there[:, :2] / there[:, :2].sum(1, keepdims=True), np.array([0.5, 0.5]), np.array([0.99, 0.01]))
    before, after = (np.log(p[:, 1] / p[:, 0]) for p in (there[:, :2], odds))
    np.testing.assert_allclose(after - before, np.log(0.01 / 0.99))  # of two classes a shift of the log-odds


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.4])
def test_the_shares_of_undersampling_are_those_of_the_rows_that_are_drawn(ratio: float) -> None:
    labels = np.repeat([0, 1, 2], COUNTS)
    drawn = undersample_rows(np.arange(len(labels)), labels, ratio, np.random.default_rng(0))
    found = effective_shares(COUNTS, {"imbalance": {"undersample": ratio}}, CLASSES)
    np.testing.assert_allclose(found, np.bincount(labels[drawn]) / len(drawn))


@pytest.mark.parametrize("weights", ["none", "auto", {"b": 3.0, "c": 10}])
def test_the_shares_of_weights_are_those_that_the_loss_sums(weights: object) -> None:
    labels = np.repeat([0, 1, 2], COUNTS)
    loss = LossSpec(class_weights=weights)  # type: ignore[arg-type]
    of_class = compute_class_weights(loss, labels, CLASSES)
    summed = COUNTS * (np.ones(3) if of_class is None else of_class.numpy())
    found = effective_shares(COUNTS, {"loss": loss.plain()}, CLASSES)
    np.testing.assert_allclose(found, summed / summed.sum(), rtol=1e-6)


def test_weights_are_of_the_rows_before_undersampling_but_of_each_bag() -> None:
    recipe = {"imbalance": {"undersample": 1.0}, "loss": {"class_weights": "auto"}}
    np.testing.assert_allclose(effective_shares(COUNTS, recipe, CLASSES), (31 / COUNTS) / (31 / COUNTS).sum())
    bags = {**recipe, "imbalance": {"undersample": 1.0, "n_bags": 5}}
    np.testing.assert_allclose(effective_shares(COUNTS, bags, CLASSES), np.ones(3) / 3)


def test_a_plain_recipe_leaves_the_shares_as_they_are() -> None:
    np.testing.assert_allclose(effective_shares(COUNTS, {}, CLASSES), COUNTS / COUNTS.sum())


@pytest.mark.parametrize("undersample", [None, 1.0])
@pytest.mark.parametrize("weights", ["none", "auto", {}, {"b": 3.0}])
def test_a_recipe_changes_shares_where_they_are_no_longer_those_of_the_rows(undersample: float | None, weights: object) -> None:
    recipe = {"imbalance": {"undersample": undersample}, "loss": {"class_weights": weights}}
    found = effective_shares(COUNTS, recipe, CLASSES)
    assert changes_shares(recipe) is not bool(np.allclose(found, COUNTS / COUNTS.sum()))


@pytest.mark.parametrize("recipe", [{}, {"imbalance": None, "loss": None}, {"loss": "a name"}])
def test_a_recipe_that_says_nothing_of_classes_changes_no_shares(recipe: dict[str, object]) -> None:
    assert not changes_shares(recipe)

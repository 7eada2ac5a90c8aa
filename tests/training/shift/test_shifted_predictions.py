"""A classifier on corrupted pixels: frozen ones by cached features, others with their own test-time views."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from phoropter.core.spec import SourceMap
from phoropter.data.images.decode import SquareResize
from phoropter.data.shift.shifted_rows import shift_rows
from phoropter.models.classifier import build_classifier, build_ensemble, with_new_head
from phoropter.models.spec import BackboneSpec, ClassifierSpec
from phoropter.results.shift.corruption_kinds import Corruption
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.presets import parse_recipe
from phoropter.training.predict import predict_from_pixels
from phoropter.training.shift.shifted_predictions import predict_shifted

CPU = torch.device("cpu")
ROWS = np.arange(10, 40)
OWN = np.array([2, 20, 5])  # of ROWS


def candidate_of(**entry: Any) -> Candidate:
    entries = [{"backbone": "test_resnet", "weights": "random", **entry}]
    return parse_candidates(entries, parse_recipe("finetune", None, SourceMap(), ()), SourceMap())[0]


@pytest.fixture(scope="module")
def model(few_digits: Any) -> Any:
    dataset, pixels = few_digits
    spec = ClassifierSpec(
        backbones=(BackboneSpec(name="test_resnet", weights="random", size=32),), classes=dataset.classes, picture=pixels.size
    )
    return build_classifier(spec, seed=0)


def shifted_pixels(few_digits: Any, kind: str, level: float) -> Any:
    dataset, pixels = few_digits
    return shift_rows(dataset, pixels, SquareResize(pixels.size), ROWS, Corruption(kind, level)).pixels


@pytest.mark.parametrize("entry", [{"frozen": True}, {}, {"recipe": {"preset": "finetune", "tta": "flip"}}])
def test_nothing_corrupted_gives_the_answers_of_the_rows_as_they_are(
    entry: dict[str, Any], few_digits: Any, model: Any, tmp_path: Path
) -> None:
    candidate = candidate_of(**entry)
    views = candidate.recipe.tta
    found = predict_shifted(model, candidate, shifted_pixels(few_digits, "blur", 0.0), OWN, tmp_path)
    expected = predict_from_pixels(model, few_digits[1], ROWS[OWN], CPU, views)[0]
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-3)
    corrupted = predict_shifted(model, candidate, shifted_pixels(few_digits, "blur", 3.0), OWN, tmp_path)
    assert np.abs(corrupted - expected).max() > 0.01
    again = predict_from_pixels(model, shifted_pixels(few_digits, "blur", 3.0), OWN, CPU, views)[0]
    np.testing.assert_allclose(corrupted, again, rtol=2e-3, atol=1e-3)


def test_features_are_computed_once_for_all_heads(few_digits: Any, model: Any, tmp_path: Path) -> None:
    pixels = shifted_pixels(few_digits, "noise", 0.2)
    answers = []
    for seed in range(2):
        head = with_new_head(model, seed=seed)
        answers.append(predict_shifted(head, candidate_of(frozen=True), pixels, OWN, tmp_path))
    assert not np.array_equal(answers[0], answers[1])
    (stored,) = (p for p in (tmp_path / "features").iterdir() if p.is_dir())
    assert np.load(stored / "features.npy").shape[0] == len(ROWS)


def test_bags_share_the_features_of_their_backbone(few_digits: Any, model: Any, tmp_path: Path) -> None:
    pixels = shifted_pixels(few_digits, "noise", 0.2)
    alone = predict_shifted(model, candidate_of(frozen=True), pixels, OWN, tmp_path)
    bags = build_ensemble([model, model])
    together = predict_shifted(bags, candidate_of(frozen=True), pixels, OWN, tmp_path, (model.branches[0].identity,))
    np.testing.assert_allclose(torch.from_numpy(together).softmax(1), torch.from_numpy(alone).softmax(1), atol=1e-6)

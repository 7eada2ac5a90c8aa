"""Weights that cannot be had are told together, with one command."""

from __future__ import annotations

import pytest

from phoropter.core.errors import WeightsError
from phoropter.models.weights.weight_files import MissingWeightsError
from phoropter.study.variants.unusable_weights import UnusableWeights


def test_all_are_told_with_one_command() -> None:
    unusable = UnusableWeights()
    unusable.raise_if_any()
    for name, candidate in (("a.x", "one"), ("b.y", "two"), ("a.x", "three"), ("a.x", "one")):
        unusable.add_error(MissingWeightsError(name, "HF_HUB_OFFLINE is set"), candidate)
    unusable.add_error(WeightsError("weights c.pth: there is no such file"), "four")
    with pytest.raises(WeightsError) as caught:
        unusable.raise_if_any()
    words = str(caught.value)
    assert words.startswith("3 weights cannot be used: candidates 'one', 'three': the pretrained weights a.x are not on this")
    assert words.count("phoropter weights get a.x b.y --to FOLDER") == 1 and "candidate 'four': weights c.pth" in words

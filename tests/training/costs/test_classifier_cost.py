"""The cost of a classifier: multiply-adds as counted on the bare network, parameters, and nothing changed by measuring."""

from __future__ import annotations

import pytest
import torch

from phoropter.models import catalog, catalog_build
from phoropter.models import classifier as classifiers
from phoropter.models.classifier import Classifier
from phoropter.models.spec import BackboneSpec, ClassifierSpec, FusionSpec
from phoropter.training.costs.classifier_cost import measure_cost


def build(names: list[str], side: int) -> Classifier:
    backbones = tuple(BackboneSpec(name=name, weights="random", size=side) for name in names)
    fusion = FusionSpec() if len(names) > 1 else None
    return classifiers.build_classifier(
        ClassifierSpec(backbones=backbones, fusion=fusion, classes=("a", "b", "c"), picture=side), seed=0
    )


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_the_cost_follows_the_side(name: str) -> None:
    """Counted on the trained classifier as on the bare network, whose attention is written out."""
    model = catalog_build._build_on_meta(
        name, num_classes=3, **({"img_size": 96} if catalog.find_architecture(name).fixed_input_size else {})
    )
    found = measure_cost(build([name], 96), 96)
    assert found.macs == catalog_build.count_macs(model, 96)
    assert found.parameters == found.trainable == sum(p.numel() for p in model.parameters())


def test_a_frozen_classifier_trains_only_its_head_and_measuring_cost_changes_nothing() -> None:
    ours = build(["test_resnet", "test_vit"], 64).train()
    ours.freeze("head")
    before = {k: v.clone() for k, v in ours.state_dict().items()}
    found = measure_cost(ours, 64)
    assert found.trainable == sum(p.numel() for _, p in ours.head_parameters()) < found.parameters
    assert ours.training and all(torch.equal(v, before[k]) for k, v in ours.state_dict().items())
    assert found.macs is not None

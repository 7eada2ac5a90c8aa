"""The cost of a classifier: multiply-adds as counted on the bare network, parameters, and nothing changed by measuring."""

from __future__ import annotations

import pytest
import torch

from phoropter import Backbone
from phoropter.models import catalog, catalog_build
from phoropter.models import classifier as classifiers
from phoropter.models.classifier import Classifier
from phoropter.models.spec import BackboneSpec, ClassifierSpec, FusionSpec
from phoropter.training.costs import classifier_cost
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


@pytest.mark.parametrize(
    "names", [["vit_tiny_patch16_224"], ["mobilenetv3_small_050", "test_vit"], ["swin_s3_tiny_224"], ["alexnet"], ["test_vit3"]]
)
def test_an_image_on_the_processor_counts_what_the_meta_device_counts(names: list[str]) -> None:
    """Attention is fused on the processor, with an operation that the counter does not know, and is so again afterwards.

    Of the last, the pool's query is a view of a parameter, which the counter cannot follow while it is trained.
    """
    side = 224 if "swin_s3_tiny_224" in names else 96
    ours, fused = build(names, side).eval(), torch.backends.cuda.flash_sdp_enabled()
    assert classifier_cost._count_on_processor(ours, side) == classifier_cost._count_on_meta(ours, side) > 0
    assert torch.backends.cuda.flash_sdp_enabled() == fused


def test_what_would_be_slow_on_the_processor_and_what_nobody_knows_is_counted_on_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = build(["test_vit"], 64)
    assert classifier_cost._is_quick(quick)
    monkeypatch.setattr(classifier_cost, "QUICK_MACS", 1e5)
    assert not classifier_cost._is_quick(quick)
    monkeypatch.setattr(classifier_cost, "QUICK_MACS", 4e9)
    custom = Backbone(name="mine", build=lambda: torch.nn.Conv2d(3, 4, 3), width=4, input_size=32)
    own = classifiers.build_classifier(
        ClassifierSpec(
            backbones=(BackboneSpec(name="mine", custom=custom, weights="random", size=32),), classes=("a", "b"), picture=32
        ),
        seed=0,
    )
    assert not classifier_cost._is_quick(own)


def test_recurrent_layers_which_the_processor_fuses_are_counted_on_meta() -> None:
    ours = build(["sequencer2d_s"], 96).eval()
    assert classifier_cost._count_on_processor(ours, 96) < classifier_cost._count_on_meta(ours, 96)
    assert measure_cost(ours, 96).macs == classifier_cost._count_on_meta(ours, 96)


def test_a_frozen_classifier_trains_only_its_head_and_measuring_cost_changes_nothing() -> None:
    ours = build(["test_resnet", "test_vit"], 64).train()
    ours.freeze("head")
    before = {k: v.clone() for k, v in ours.state_dict().items()}
    found = measure_cost(ours, 64)
    assert found.trainable == sum(p.numel() for _, p in ours.head_parameters()) < found.parameters
    assert ours.training and all(torch.equal(v, before[k]) for k, v in ours.state_dict().items())
    assert found.macs is not None

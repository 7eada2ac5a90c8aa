"""Which layer of a network is recorded, and its values as (B, C, h, w), for every family of networks."""

from __future__ import annotations

import pytest
import torch
from explained_networks import make_classifier, make_pictures, map_network_spec
from torch import nn

from phoropter.core.errors import SpecError
from phoropter.deploy.explain.class_maps import MapMaker
from phoropter.deploy.explain.feature_tap import FeatureTap, find_branch_layer, reads_class_token, tap_features
from phoropter.models.backbones import BackboneModule
from phoropter.models.spec import Backbone, BackboneSpec

FAMILIES = {  # name → side of the pictures, layer, places a side
    "test_resnet": (64, "layer3", 4),
    "mobilenetv3_small_050": (128, "forward_features", 4),
    "convnext_atto": (64, "stages.2", 4),
    "swin_tiny_patch4_window7_224": (112, "forward_features", 4),
    "coatnet_nano_rw_224": (64, "stages.2", 4),
    "poolformerv2_s12": (64, "stages.2", 4),
    "test_mambaout": (64, "stages.2", 4),
    "xcit_nano_12_p16_224": (64, "blocks.10", 4),
    "cait_xxs24_224": (64, "blocks.22", 4),
    "alexnet": (96, "features.11", 5),
    "alexnet_2012": (96, "features.13", 5),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_gives_a_map_without_a_word_from_the_user(name: str) -> None:
    side, layer, places = FAMILIES[name]
    maker = MapMaker(make_classifier(name, side=side))
    (branch,) = maker.model.branches
    assert [plan.layer for plan in maker.plans] == [layer] == [find_branch_layer(branch, torch.zeros(1, 3, side, side))]
    with tap_features(branch, layer) as tap, torch.no_grad():
        branch(branch.preprocess(make_pictures(side, 2)))
    assert tap.values is not None and tap.to_map(tap.values).shape[::2] == (2, places)
    (heat,) = maker.make_maps(make_pictures(side, 2)).maps
    assert heat.shape == (2, side, side) and heat.min() >= 0 and bool(heat.amax((1, 2)).gt(0).any())


def test_recording_changes_nothing_of_what_the_network_answers() -> None:
    for name in ("test_resnet", "test_vit", "alexnet"):
        model, pictures = make_classifier(name, side=96), make_pictures(96)
        with torch.no_grad():
            before = model(pictures)
        made = MapMaker(model).make_maps(pictures)
        with torch.no_grad():
            assert torch.equal(before, model(pictures)) and torch.allclose(made.logits, before, atol=1e-5)
        assert all(p.requires_grad for p in model.parameters()) and not any(m._forward_hooks for m in model.modules())
        assert "forward_features" not in vars(model.branches[0].body)


def test_a_network_of_the_users_own_is_searched_for_its_last_map() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    mine = BackboneSpec(name="own", custom=Backbone("own", build=build, width=8, input_size=32), weights="built")
    assert MapMaker(make_classifier(mine, side=32)).plans[0].layer == "1"
    assert MapMaker(make_classifier(mine, side=32), layers={"own": "0"}).plans[0].layer == "0"

    def build_flat() -> nn.Module:
        return nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 8))

    flat = BackboneSpec(name="flat", custom=Backbone("flat", build=build_flat, width=8, input_size=32), weights="built")
    with pytest.raises(SpecError, match=r"flat has no layer whose output is a map; pass the name of a layer"):
        MapMaker(make_classifier(flat, side=32))


def test_tokens_before_the_patches_are_left_out() -> None:
    (branch,) = make_classifier("test_vit").branches
    tokens = torch.arange(17.0)[None, :, None].expand(2, 17, 5)
    assert torch.equal(FeatureTap(branch, "x").to_map(tokens)[1, 3], torch.arange(1.0, 17).view(4, 4))
    assert torch.equal(FeatureTap(branch, "x").to_map(tokens[:, 1:])[1, 3], torch.arange(1.0, 17).view(4, 4))
    with pytest.raises(SpecError, match=r"gives 12 tokens, which are no square of patches; pass .* such as layer='blocks.5'"):
        FeatureTap(branch, "x").to_map(tokens[:, :12])


def test_axes_are_told_apart_by_what_is_square() -> None:
    (branch,) = make_classifier(map_network_spec(False)).branches
    tap = FeatureTap(branch, "x")
    assert tap.to_map(torch.zeros(2, 16, 7, 7)).shape == tap.to_map(torch.zeros(2, 7, 7, 16)).shape == (2, 16, 7, 7)
    cube = torch.arange(27.0).view(1, 3, 3, 3)
    assert torch.equal(tap.to_map(cube), cube)  # by the network's own word
    (last,) = make_classifier(map_network_spec(True)).branches
    assert torch.equal(FeatureTap(last, "x").to_map(cube), cube.permute(0, 3, 1, 2))


def test_layers_that_cannot_be_used_are_refused_in_a_sentence() -> None:
    model, pictures = make_classifier("test_vit"), make_pictures()
    branch = model.branches[0]
    assert isinstance(branch, BackboneModule) and reads_class_token(branch)

    def explain(layer: str) -> None:
        MapMaker(model, layers={"test_vit": layer}).make_maps(pictures)

    with pytest.raises(SpecError, match=r"layer: 'blocks.33' is no layer of test_vit; did you mean"):
        explain("blocks.33")
    with pytest.raises(SpecError, match=r"layer 'blocks.5' of test_vit gives patches that the class no longer depends on"):
        explain("blocks.5")
    with pytest.raises(SpecError, match="layer: method gradient-rollout reads all blocks of test_vit; with a layer, choose"):
        MapMaker(model, "gradient-rollout", {"test_vit": "blocks.3"})
    with pytest.raises(SpecError, match="layer 'fc_norm' of test_vit gives no map and no tokens"):
        explain("fc_norm")
    with pytest.raises(SpecError, match="layer: 'resnet' is no branch; there are test_vit"):
        MapMaker(model, layers={"resnet": "layer4"})

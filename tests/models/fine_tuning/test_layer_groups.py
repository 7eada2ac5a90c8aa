"""Layers and their shares of the rate, against timm's own parameter groups of the complete network."""

from __future__ import annotations

import pytest
import torch
from toy_networks import WIDTH, build_toy

from phoropter.core.errors import SpecError
from phoropter.models import timm_compat
from phoropter.models.backbones import build_backbone
from phoropter.models.fine_tuning.layer_groups import group_layers, scale_layers
from phoropter.models.spec import Backbone, BackboneSpec

torch.set_num_threads(1)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_convnext", "test_vit3", "mobilenetv3_small_050"])
def test_every_layer_has_the_share_that_timm_gives_it(name: str) -> None:
    network = timm_compat.import_timm().create_model(name, num_classes=5)
    groups = timm_compat.import_timm("optim").param_groups_layer_decay(network, layer_decay=0.6)
    share_of = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    timms = {f"backbones.0.body.{n}": share_of[id(p)] for n, p in network.named_parameters()}
    ours = scale_layers([build_backbone(BackboneSpec(name=name, weights="random"), seed=0)], 0.6)
    assert ours == pytest.approx({n: timms[n] for n in ours}) and len(set(ours.values())) > 3
    assert {timms[n] for n in set(timms) - set(ours)} == {1.0}  # the head, which trains at the full rate here as well


def test_blocks_are_counted_between_stem_and_head() -> None:
    groups = group_layers(build_backbone(BackboneSpec(name="test_vit", weights="random"), seed=0), "layer_decay")
    assert groups.n_blocks == 6
    assert groups.layer_of["patch_embed.proj.weight"] == 0 and groups.layer_of["blocks.0.norm1.weight"] == 1
    assert groups.layer_of["norm.weight"] == groups.layer_of["blocks.5.norm1.weight"] == groups.head - 1


def test_a_network_that_does_not_tell_its_layers_is_refused() -> None:
    toy = build_backbone(BackboneSpec(name=Backbone("toy", build=build_toy, width=WIDTH, input_size=32)), seed=0)
    with pytest.raises(SpecError, match=r"layer_decay needs to know which parameters of 'toy' form a layer"):
        scale_layers([toy], 0.6)

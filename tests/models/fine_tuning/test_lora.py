"""Adapters: which layers have one, how many numbers they are, and that a merged network answers as the adapted one."""

from __future__ import annotations

import pytest
import torch

from phoropter.core.errors import SpecError
from phoropter.models.backbones import BackboneModule, build_backbone
from phoropter.models.fine_tuning.lora import attach_adapters, list_adapter_parameters
from phoropter.models.spec import BackboneSpec

torch.set_num_threads(1)
WIDTH, DEPTH = 64, 6  # of test_vit, whose mlp is 3 × as wide


def build(name: str = "test_vit") -> BackboneModule:
    return build_backbone(BackboneSpec(name=name, weights="random", size=64), seed=0)


@pytest.mark.parametrize(
    ("part", "numbers"),
    [
        ("attention", DEPTH * 4 * (WIDTH + 3 * WIDTH + WIDTH + WIDTH)),
        ("mlp", DEPTH * 4 * (WIDTH + 3 * WIDTH + 3 * WIDTH + WIDTH)),
    ],
)
def test_each_linear_layer_of_the_part_has_an_adapter(part: str, numbers: int) -> None:
    backbone = build()
    adapters = attach_adapters(backbone, 4, 8.0, part, seed=0)
    assert len(adapters) == 2 * DEPTH
    assert sum(p.numel() for p in list_adapter_parameters(backbone)) == sum(a.parameter_count for a in adapters) == numbers


def test_it_begins_as_it_was_and_merged_it_answers_as_adapted() -> None:
    """The answer of adapted layers is computed a second way: by weights to which s · B A was added beforehand."""
    backbone, plain = build(), build()
    x = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    names = set(plain.state_dict())
    adapters = attach_adapters(backbone, 4, 8.0, "both", seed=1)
    with torch.no_grad():
        assert torch.equal(backbone(x), plain.eval()(x))
        for i, adapter in enumerate(adapters):
            torch.nn.init.normal_(adapter.layer.lora_b, std=0.05, generator=torch.Generator().manual_seed(i))
        products = {n: 2.0 * m.lora_b @ m.lora_a for n, m in backbone.body.named_modules() if hasattr(m, "lora_a")}
        for n, product in products.items():
            plain.body.get_submodule(n).weight += product
        adapted = backbone(x)
        for adapter in adapters:
            adapter.merge()
        merged = backbone(x)
        assert not torch.allclose(adapted, build().eval()(x), atol=1e-2)
        torch.testing.assert_close(adapted, plain(x), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(merged, adapted, atol=1e-6, rtol=1e-5)
    assert set(backbone.state_dict()) == names and type(backbone.body.blocks[0].attn.qkv) is torch.nn.Linear


def test_equal_seeds_draw_equal_adapters() -> None:
    first, same, other = (build() for _ in range(3))
    for backbone, seed in ((first, 1), (same, 1), (other, 2)):
        attach_adapters(backbone, 4, 8.0, "attention", seed)
    a, b, c = (list_adapter_parameters(backbone)[0] for backbone in (first, same, other))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_a_network_without_such_layers_is_refused() -> None:
    with pytest.raises(SpecError, match=r"lora: backbone 'test_resnet' has no linear layer in a module of attention"):
        attach_adapters(build("test_resnet"), 4, 8.0, "attention", 0)


def test_a_layer_whose_weight_is_read_without_calling_it_is_refused() -> None:
    small = {"depth": 1, "embed_dim": 64, "num_heads": 2}
    beit = build_backbone(BackboneSpec(name="beit_base_patch16_224", weights="random", size=32, options=small), seed=0)
    with pytest.raises(SpecError, match=r"reads the weight of blocks.0.attn.qkv without calling the layer"):
        attach_adapters(beit, 4, 8.0, "attention", 0)

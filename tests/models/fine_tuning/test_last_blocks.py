"""What last-N trains, what stays in eval mode, and a network in two parts against the whole."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from phoropter.core.errors import SpecError
from phoropter.models.backbones import BackboneModule, build_backbone
from phoropter.models.fine_tuning.last_blocks import freeze_first_blocks, split_backbone
from phoropter.models.spec import BackboneSpec

torch.set_num_threads(1)


def build(name: str, size: int = 64, **options: float) -> BackboneModule:
    return build_backbone(BackboneSpec(name=name, weights="random", size=size, options=options), seed=0)


def trained_parts(backbone: BackboneModule, depth: int = 2) -> set[str]:
    return {".".join(n.split(".")[:depth]) for n, p in backbone.body.named_parameters() if p.requires_grad}


def test_the_last_blocks_and_what_is_behind_them_are_trained() -> None:
    vit, cnn = build("test_vit"), build("test_efficientnet")
    freeze_first_blocks(vit, 2)
    assert trained_parts(vit) == {"blocks.4", "blocks.5", "norm.weight", "norm.bias"}
    freeze_first_blocks(cnn, 1)
    assert trained_parts(cnn) == {"blocks.4", "conv_head.weight", "bn2.weight", "bn2.bias"}


def test_what_is_frozen_stays_in_eval_mode() -> None:
    """Batch norms of frozen blocks and the stem, and dropout before them; those of trained blocks do not."""
    vit = build("test_vit", pos_drop_rate=0.5, proj_drop_rate=0.5)
    kept = freeze_first_blocks(vit, 2)
    drops = {n: m in kept for n, m in vit.body.named_modules() if isinstance(m, nn.Dropout) and m.p}
    assert drops == {n: n == "pos_drop" or int(n.split(".")[1]) < 4 for n in drops} and len(drops) > 6
    cnn = build("test_resnet")
    kept = freeze_first_blocks(cnn, 1)
    assert cnn.body.bn1 in kept and cnn.body.layer1[0].bn1 in kept and cnn.body.layer4[0].bn1 not in kept
    assert cnn.body not in kept


@pytest.mark.parametrize(("name", "count"), [("test_vit", 2), ("test_resnet", 1), ("test_efficientnet", 5), ("test_convnext", 3)])
def test_two_parts_answer_as_the_whole_with_equal_gradients(name: str, count: int) -> None:
    backbone = build(name).eval()
    freeze_first_blocks(backbone, count)
    split = split_backbone(backbone, count)
    assert split is not None
    x = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    gradients = []
    for features in (backbone(x), split.forward_trained(split.forward_frozen(x).detach())):
        features.square().sum().backward()
        gradients.append({n: p.grad.clone() for n, p in backbone.body.named_parameters() if p.grad is not None})
        backbone.zero_grad()
    assert gradients[0].keys() == gradients[1].keys() == {n for n, p in backbone.body.named_parameters() if p.requires_grad}
    for n, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][n], gradient, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(split.forward_trained(split.forward_frozen(x)), backbone(x))


def test_the_frozen_blocks_are_not_run_by_the_second_part() -> None:
    backbone = build("test_vit").eval()
    split = split_backbone(backbone, 2)
    assert split is not None
    ran: list[str] = []
    for name, module in backbone.body.blocks.named_children():
        module.mlp.register_forward_hook(lambda *_, name=name: ran.append(name))
    with torch.no_grad():
        reached = split.forward_frozen(torch.zeros(1, 3, 64, 64))
        assert ran == ["0", "1", "2", "3"]
        ran.clear()
        split.forward_trained(reached)
    assert ran == ["4", "5"]


def test_the_second_part_has_the_memory_layout_of_the_whole() -> None:
    """Maps of convolutions are interleaved under `channels_last`; what was kept of them is not."""
    backbone = build("test_resnet").to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    split = split_backbone(backbone, 1)
    assert split is not None
    seen: list[bool] = []
    backbone.body.layer4[0].register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    with torch.no_grad():
        kept = split.forward_frozen(torch.randn(2, 3, 64, 64)).contiguous()
        split.forward_trained(kept)
    assert seen[-1] and not kept.is_contiguous(memory_format=torch.channels_last)


def test_parts_that_are_not_one_behind_the_other_are_told() -> None:
    assert split_backbone(build("densenet121", 32), 1) is None


def test_more_blocks_than_there_are_is_refused() -> None:
    with pytest.raises(SpecError, match=r"train: last-7 is more than the 6 blocks of 'test_vit'; choose at most last-6, or all"):
        freeze_first_blocks(build("test_vit"), 7)

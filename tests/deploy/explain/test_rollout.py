"""Attention rollout and gradient rollout against their papers' sums written out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from explained_networks import make_classifier, make_pictures

from phoropter.core.errors import SpecError
from phoropter.deploy.explain.class_maps import MapMaker
from phoropter.deploy.explain.rollout import compute_rollout, record_attention, roll_out, roll_out_gradients
from phoropter.models.spec import BackboneSpec


def test_the_rollout_is_the_product_of_mixed_attentions() -> None:
    draw = np.random.default_rng(0)
    attention = draw.dirichlet(np.ones(5), size=(3, 2, 5))  # layers, pictures, rows
    expected = []
    for picture in range(2):
        product = np.eye(5)
        for layer in range(3):
            product = (0.5 * attention[layer, picture] + 0.5 * np.eye(5)) @ product
        expected.append(product)
    found = roll_out([torch.from_numpy(a) for a in attention]).numpy()
    np.testing.assert_allclose(found, expected)
    np.testing.assert_allclose(found.sum(-1), 1)


def test_the_gradient_rollout_adds_up_positive_parts_of_attention_times_gradient() -> None:
    draw = np.random.default_rng(0)
    attention = draw.dirichlet(np.ones(5), size=(3, 2, 4, 5))  # layers, pictures, heads, rows
    gradients = draw.normal(size=attention.shape)
    expected = np.stack([np.eye(5)] * 2)
    for layer in range(3):
        for picture in range(2):
            heads = [np.maximum(attention[layer, picture, h] * gradients[layer, picture, h], 0) for h in range(4)]
            expected[picture] = expected[picture] + sum(heads) / 4 @ expected[picture]
    found = roll_out_gradients([torch.from_numpy(a) for a in attention], [torch.from_numpy(g) for g in gradients]).numpy()
    np.testing.assert_allclose(found, expected - np.eye(5))


def test_gradients_are_those_of_the_whole_network() -> None:
    """The derivative of a logit with respect to one entry of the first block's attention, by a small change of it."""
    model = make_classifier("test_vit").double()  # Outputs.logits are float32
    branch = model.branches[0]
    x = branch.preprocess(make_pictures(count=1)).double()
    model.requires_grad_(False)
    with record_attention(branch) as recorded:
        score = model.forward_head((branch(x),)).logits[0, 1]
    (gradient,) = torch.autograd.grad(score, recorded[0])
    change = torch.zeros_like(recorded[0])
    change[0, 1, 3, 7] = 1e-1
    with record_attention(branch):
        handle = branch.body.blocks[0].attn.attn_drop.register_forward_hook(lambda _, given, out: out + change)
        moved = model.forward_head((branch(x),)).logits[0, 1]
        handle.remove()
    assert float((moved - score).detach()) / 1e-1 == pytest.approx(float(gradient[0, 1, 3, 7]), rel=1e-2, abs=1e-9)


def test_attention_is_recorded_of_every_block_and_is_that_of_queries_and_keys() -> None:
    model = make_classifier("test_vit")
    branch = model.branches[0]
    x = branch.preprocess(make_pictures())
    seen: list[torch.Tensor] = []
    handle = branch.body.blocks[1].attn.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad(), record_attention(branch) as recorded:
        branch(x)
    handle.remove()
    assert len(recorded) == len(branch.body.blocks) and all(layer.attn.fused_attn for layer in branch.body.blocks)
    layer = branch.body.blocks[1].attn
    with torch.no_grad():
        q, k, _ = layer.qkv(seen[0]).reshape(3, 17, 3, layer.num_heads, -1).permute(2, 0, 3, 1, 4)
        by_hand = ((layer.q_norm(q) @ layer.k_norm(k).transpose(-1, -2)) * layer.head_dim**-0.5).softmax(-1)
    torch.testing.assert_close(recorded[1], by_hand)


@pytest.mark.parametrize(("kind", "rows"), [("class", slice(0, 1)), ("tokens", slice(0, 2)), ("mean", slice(1, None))])
def test_the_rows_are_those_that_the_answer_is_read_off(kind: str, rows: slice) -> None:
    if kind == "tokens":
        student = BackboneSpec(name="deit_tiny_distilled_patch16_224", weights="random", size=64, options={"depth": 2})
        model, prefix = make_classifier(student, student="token"), 2
    else:
        pooling = "average" if kind == "mean" else "pretrained"
        model, prefix = make_classifier(BackboneSpec(name="test_vit", weights="random", size=64, pooling=pooling)), 1
    branch = model.branches[0]
    with torch.no_grad(), record_attention(branch) as recorded:
        branch(branch.preprocess(make_pictures()))
    expected = roll_out([a.mean(1) for a in recorded])[:, rows].mean(1)[:, prefix:].reshape(-1, 4, 4)
    torch.testing.assert_close(compute_rollout(branch, recorded), expected)
    made = MapMaker(model, "rollout").make_maps(make_pictures()).maps[0]
    upsampled = torch.nn.functional.interpolate(expected[:, None], (64, 64), mode="bilinear")[:, 0]
    torch.testing.assert_close(made, upsampled)
    by_gradient = MapMaker(model)
    assert [plan.method for plan in by_gradient.plans] == ["gradient-rollout"]
    classes = [by_gradient.make_maps(make_pictures(), torch.tensor([c] * 3)).maps[0] for c in (0, 1)]
    assert classes[0].amax() > 0 and not torch.allclose(classes[0], classes[1])


def test_networks_without_attention_to_all_tokens_are_refused() -> None:
    for name, side in (("test_resnet", 64), ("test_efficientnet", 64), ("xcit_nano_12_p16_224", 64), ("cait_xxs24_224", 64)):
        model = make_classifier(name, side=side)
        with pytest.raises(SpecError, match=f"method rollout: {name} is no sequence of blocks that each attend to all tokens"):
            MapMaker(model, "rollout").make_maps(make_pictures(side))

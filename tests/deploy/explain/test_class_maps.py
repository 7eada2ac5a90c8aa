"""Class maps against torchcam, against derivatives written out, and on networks trained to see a planted patch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from explained_networks import make_classifier, make_pictures, map_network_spec
from torch import Tensor
from torch.nn import functional as F

from phoropter.core.errors import SpecError
from phoropter.deploy.explain.class_maps import MapMaker, name_branches
from phoropter.models import timm_compat
from phoropter.models.classifier import Classifier, average_classifiers, build_ensemble
from phoropter.models.spec import BackboneSpec, FusionSpec

timm_compat.import_torchvision()  # which torchcam imports


def correlation(ours: Tensor, theirs: Tensor) -> float:
    return float(np.corrcoef(ours.numpy().ravel(), theirs.detach().numpy().ravel())[0, 1])


ORACLES = {  # name → side, the layer that torchcam is told to read, how its values become (B, C, h, w)
    "test_resnet": (160, "layer4", None),
    "mobilenetv3_small_050": (160, "blocks", None),
    "test_efficientnet": (160, "bn2", None),
    "convnext_atto": (128, "stages", None),
    "swin_tiny_patch4_window7_224": (224, "norm", lambda x: x.permute(0, 3, 1, 2)),
    "test_vit": (160, "blocks.4", lambda x: x[:, 1:].transpose(1, 2).unflatten(2, (10, 10))),
}


@pytest.mark.parametrize("name", ORACLES)
def test_grad_cam_is_that_of_torchcam(name: str) -> None:
    from torchcam.methods import GradCAM

    side, layer, reshape = ORACLES[name]
    model, pictures = make_classifier(name, side=side), make_pictures(side, 2)
    found = MapMaker(model, "grad-cam").make_maps(pictures)
    with GradCAM(model, f"backbones.0.body.{layer}", reshape_transform=reshape) as oracle:
        (maps,) = oracle(found.targets.tolist(), model(pictures), normalized=False)
    assert maps.amax() > 0
    theirs = F.interpolate(maps[:, None].float(), (side, side), mode="bilinear")[:, 0]
    for row in range(2):
        if theirs[row].any():
            assert correlation(found.maps[0][row], theirs[row]) > 0.999
    torch.testing.assert_close(found.maps[0], theirs, rtol=1e-3, atol=1e-5 * float(theirs.max()))


@pytest.mark.parametrize("method", ["grad-cam", "token-gradient"])
def test_the_order_of_a_maps_axes_in_memory_changes_nothing(method: Any) -> None:
    first, last = (make_classifier(map_network_spec(is_last)) for is_last in (False, True))
    last.load_state_dict(first.state_dict())
    ours, theirs = (MapMaker(model, method).make_maps(make_pictures()) for model in (first, last))
    assert ours.maps[0].amax() > 0
    torch.testing.assert_close(ours.maps[0], theirs.maps[0])


def test_token_gradient_is_the_sum_of_gradient_times_value_at_each_patch() -> None:
    model, pictures = make_classifier("test_vit"), make_pictures()
    body: Any = model.branches[0].body
    tokens: list[Tensor] = []

    def keep(_: Any, given: Any, out: Tensor) -> None:
        out.retain_grad()
        tokens.append(out)

    handle = body.blocks[4].register_forward_hook(keep)
    model(pictures)[:, 2].sum().backward()
    handle.remove()
    assert tokens[0].grad is not None
    by_hand = (tokens[0] * tokens[0].grad).sum(2)[:, 1:].reshape(3, 1, 4, 4).relu()
    found = MapMaker(model, "token-gradient").make_maps(pictures, torch.tensor([2, 2, 2]))
    torch.testing.assert_close(found.maps[0], F.interpolate(by_hand, (64, 64), mode="bilinear")[:, 0].detach())


def test_the_class_that_is_asked_for_is_the_one_explained() -> None:
    model, pictures = make_classifier("test_resnet", side=96), make_pictures(96, 1)
    maker = MapMaker(model)
    maps = [maker.make_maps(pictures, torch.tensor([c])).maps[0] for c in range(3)]
    assert not torch.equal(maps[0], maps[1])
    likeliest = int(model(pictures).argmax())
    assert torch.equal(maker.make_maps(pictures).maps[0], maps[likeliest])
    alone = [maker.make_maps(make_pictures(96, 3)[i : i + 1], torch.tensor([1])).maps[0] for i in range(3)]
    torch.testing.assert_close(maker.make_maps(make_pictures(96, 3), torch.tensor([1, 1, 1])).maps[0], torch.cat(alone))


PAIR = (BackboneSpec(name="test_resnet", weights="random", size=64), BackboneSpec(name="test_vit", weights="random", size=32))


def fused(mode: str, **options: Any) -> Classifier:
    model = make_classifier(*PAIR, fusion=FusionSpec(mode=mode, **options))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.head.parameters():  # the last layer of a logit fusion begins at 0
            parameter.normal_(std=0.5)
    return model


@pytest.mark.parametrize("options", [{}, {"start": "random"}, {"hidden": None}])
def test_the_shares_of_a_logit_fusion_are_its_gradient_times_the_branches_logits(options: dict[str, Any]) -> None:
    model, pictures = fused("logits", **options), make_pictures()
    targets = torch.tensor([0, 1, 2])
    found = MapMaker(model).make_maps(pictures, targets)
    head: Any = model.head
    with torch.no_grad():
        logits = torch.stack(model.forward_outputs(pictures).branch_logits, 1)  # (B, 2, C)

    def decide(flat: Tensor, target: int) -> Tensor:
        answer = head.fusing(flat.reshape(1, -1))[0][0] + (flat.mean(0) if head.averages else 0)
        return answer[target] - answer.mean()

    for row, target in enumerate(targets.tolist()):
        step, sums = 1e-3, torch.zeros(2)
        for branch in range(2):
            centred = logits[row, branch] - logits[row, branch].mean()
            for c in range(3):  # the derivative by differences
                moved = logits[row].double().clone()
                moved[branch, c] += step
                model.double()
                rise = (decide(moved, target) - decide(logits[row].double(), target)) / step
                model.float()
                sums[branch] += float(rise.detach()) * centred[c]
        positive = sums.clamp_min(0)
        expected = positive / positive.sum() if positive.sum() > 0 else torch.full((2,), 0.5)
        torch.testing.assert_close(found.shares[row], expected, atol=5e-3, rtol=0)
    torch.testing.assert_close(found.shares.sum(1), torch.ones(3))


def test_the_shares_of_a_feature_fusion_of_one_layer_are_weights_times_features() -> None:
    model, pictures = fused("concat", hidden=None), make_pictures()
    found = MapMaker(model).make_maps(pictures, torch.tensor([0, 1, 2]))
    head: Any = model.head
    with torch.no_grad():
        first, second = model.forward_features(pictures)
        weight = head.fusing.last.weight
        decisive = weight - weight.mean(0)
    for row in range(3):
        parts = decisive[row] * torch.cat([first[row], second[row]])
        sums = torch.stack([parts[: first.shape[1]].sum(), parts[first.shape[1] :].sum()]).clamp_min(0)
        expected = sums / sums.sum() if sums.sum() > 0 else torch.full((2,), 0.5)
        torch.testing.assert_close(found.shares[row], expected)


def test_an_average_weights_its_members_by_the_probability_they_give() -> None:
    members = [make_classifier(b, seed=i) for i, b in enumerate(PAIR)]
    pictures, targets = make_pictures(), torch.tensor([0, 1, 2])
    with torch.no_grad():
        given = torch.stack([m(pictures).softmax(1)[torch.arange(3), targets] for m in members], 1)
    alone = [MapMaker(m).make_maps(pictures, targets).maps[0] for m in members]
    for average in (build_ensemble(members), average_classifiers(members)):
        found = MapMaker(average).make_maps(pictures, targets)
        torch.testing.assert_close(found.shares, given / given.sum(1, keepdim=True))
        torch.testing.assert_close(found.maps, tuple(alone))
        torch.testing.assert_close(found.logits, average(pictures).detach())
    assert MapMaker(average).make_maps(pictures).targets.tolist() == average(pictures).argmax(1).tolist()


def test_an_average_of_fusions_keeps_the_shares_inside_each() -> None:
    members = [fused("logits"), fused("concat", hidden=None)]
    pictures = make_pictures()
    model = average_classifiers(members)
    found = MapMaker(model).make_maps(pictures, torch.tensor([0, 1, 2]))
    assert name_branches(model) == ["test_resnet 1", "test_vit 1", "test_resnet 2", "test_vit 2"]
    inside = torch.cat([MapMaker(m).make_maps(pictures, torch.tensor([0, 1, 2])).shares for m in members], 1)
    given = torch.stack([m(pictures).softmax(1)[torch.arange(3), torch.arange(3)].detach() for m in members], 1)
    expected = inside * (given / given.sum(1, keepdim=True)).repeat_interleave(2, 1)
    torch.testing.assert_close(found.shares, expected)


def test_a_student_with_a_distillation_token_is_explained_by_both_tokens() -> None:
    spec = BackboneSpec(name="deit_tiny_distilled_patch16_224", weights="random", size=64, options={"depth": 2})
    model = make_classifier(spec, student="token")
    maker = MapMaker(model, "token-gradient")
    assert maker.plans[0].layer == "blocks.0" and MapMaker(model).plans[0].method == "gradient-rollout"
    both = maker.make_maps(make_pictures(), torch.tensor([0, 1, 2])).maps[0]
    head: Any = model.head
    with torch.no_grad():
        head.token_head.last.weight.zero_()
    one = maker.make_maps(make_pictures(), torch.tensor([0, 1, 2])).maps[0]
    assert both.amax() > 0 and one.amax() > 0 and not torch.allclose(both, one)


def test_unknown_methods_are_refused() -> None:
    with pytest.raises(
        SpecError, match=r"method: expected auto, grad-cam, token-gradient, gradient-rollout or rollout, came 'gradcam'; did you"
    ):
        MapMaker(make_classifier("test_vit"), "gradcam")  # type: ignore[arg-type]


# --- a planted patch ---------------------------------------------------------------------------------------------------------


def planted_pictures(count: int, seed: int, side: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    """(n, 3, S, S) uint8 of noise, (n,) whether a bright patch of a quarter of the side was planted, (n, S, S) where."""
    draw = np.random.default_rng(seed)
    pictures = draw.integers(40, 140, (count, 3, side, side), dtype=np.uint8)
    labels, where = np.arange(count) % 2, np.zeros((count, side, side), bool)
    for row in np.flatnonzero(labels):
        top, left = draw.integers(0, side - side // 4, 2)
        where[row, top : top + side // 4, left : left + side // 4] = True
        pictures[row][:, where[row]] = draw.integers(180, 255, (3, (side // 4) ** 2), dtype=np.uint8)
    return torch.from_numpy(pictures), torch.from_numpy(labels), torch.from_numpy(where)


@pytest.mark.parametrize(("name", "steps", "least"), [("convolutional", 60, 0.5), ("test_vit", 90, 0.125)])
def test_a_network_trained_on_a_planted_patch_is_said_to_look_at_it(name: str, steps: int, least: float) -> None:
    model = make_classifier(map_network_spec(False) if name == "convolutional" else name, classes=("without", "with"))
    pictures, labels, _ = planted_pictures(160, 0)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2 if name == "convolutional" else 2e-3)
    model.train()
    for step in range(steps):
        at = torch.arange(step * 16, step * 16 + 16) % 160
        optimizer.zero_grad()
        F.cross_entropy(model(pictures[at]), labels[at]).backward()
        optimizer.step()
    model.eval()
    held_out, truth, where = planted_pictures(60, 1)
    with torch.no_grad():
        right = (model(held_out).argmax(1) == truth) & (truth == 1)
    assert right.sum() >= 20, "it has not learned to see the patch"
    heat = MapMaker(model).make_maps(held_out[right], torch.ones(int(right.sum()), dtype=torch.long)).maps[0]
    inside = (heat * where[right]).sum((1, 2)) / heat.sum((1, 2)).clamp_min(1e-12)
    assert float(inside.mean()) > least, f"{float(inside.mean()):.3f} of the map lies in a sixteenth of the picture"

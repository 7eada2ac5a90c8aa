"""Fusions equal hand-written networks before and after a training step; branches can be ablated."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phoropter.core.errors import WeightsError
from phoropter.models import classifier as classifiers
from phoropter.models.classifier import Classifier
from phoropter.models.heads import BranchAblation
from phoropter.models.spec import BackboneSpec, ClassifierSpec, FusionSpec, HeadSpec

CLASSES = ("a", "b", "c")
TWO = (
    BackboneSpec(name="test_convnext", weights="random", size=64),
    BackboneSpec(name="test_efficientnet", weights="random", size=32),
)


SONIC = {"start": "random", "hidden": 12, "dropout": 0.5}  # the fusing layer of the paper


def fused(mode: Any, kind: Any = "dense", backbones: tuple[BackboneSpec, ...] = TWO, **fusion: Any) -> Classifier:
    spec = ClassifierSpec(
        backbones=backbones,
        classes=CLASSES,
        picture=64,
        head=HeadSpec(kind=kind, dropout=0.5),
        fusion=FusionSpec(mode=mode, **fusion),
    )
    return classifiers.build_classifier(spec, seed=3)


def pictures(count: int = 6) -> Tensor:
    return torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


class ByHand(nn.Module):
    """A hand-written SONIC on copies of the same two networks."""

    def __init__(self, ours: Classifier) -> None:
        super().__init__()
        one, two = ours.branches
        self.one, self.two = copy.deepcopy(one.body), copy.deepcopy(two.body)
        self.mean = [torch.tensor(b.mean).view(1, 3, 1, 1) for b in (one, two)]
        self.std = [torch.tensor(b.std).view(1, 3, 1, 1) for b in (one, two)]
        self.dense_one, self.out_one = nn.Linear(one.num_features, 128), nn.Linear(128, 3)
        self.dense_two, self.out_two = nn.Linear(two.num_features, 128), nn.Linear(128, 3)
        self.dense, self.out = nn.Linear(6, 12), nn.Linear(12, 3)
        state: Any = ours.head.state_dict()
        for name, layer in {
            "branches.0.hidden": self.dense_one,
            "branches.0.last": self.out_one,
            "branches.1.hidden": self.dense_two,
            "branches.1.last": self.out_two,
            "fusing.hidden": self.dense,
            "fusing.last": self.out,
        }.items():
            layer.load_state_dict({k: state[f"{name}.{k}"] for k in ("weight", "bias")})

    def forward(self, x: Tensor) -> Tensor:
        x = x.float() / 255
        small = F.interpolate(x, size=(32, 32), mode="bilinear", antialias=True)
        one = self.one((x - self.mean[0]) / self.std[0])
        two = self.two((small - self.mean[1]) / self.std[1])
        one = self.out_one(F.relu(self.dense_one(F.dropout(one, 0.5, self.training))))
        two = self.out_two(F.relu(self.dense_two(F.dropout(two, 0.5, self.training))))
        both = torch.cat([one, two], dim=1)
        both = self.out(F.relu(self.dense(F.dropout(both, 0.5, self.training))))
        return both  # type: ignore[no-any-return]


def test_logit_fusion_equals_a_hand_written_one_before_and_after_a_step() -> None:
    ours = fused("logits", **SONIC)
    hand = ByHand(ours).eval()
    torch.testing.assert_close(ours(pictures()), hand(pictures()), rtol=1e-4, atol=1e-5)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    for model in (ours, hand):
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            F.cross_entropy(model(pictures()), labels).backward()
        optimizer.step()
        model.eval()
    torch.testing.assert_close(ours(pictures()), hand(pictures()), rtol=1e-3, atol=1e-4)
    moved: Any = ours.head.state_dict()
    torch.testing.assert_close(moved["branches.1.hidden.weight"], hand.dense_two.weight.detach(), rtol=1e-4, atol=1e-5)


def test_concat_fusion_reads_the_concatenated_features() -> None:
    ours = fused("concat", hidden=5)
    state: Any = ours.head.state_dict()
    with torch.no_grad():
        both = torch.cat(ours.forward_features(pictures()), dim=1)
        hidden = F.relu(F.linear(both, state["fusing.hidden.weight"], state["fusing.hidden.bias"]))
        logits = F.linear(hidden, state["fusing.last.weight"], state["fusing.last.bias"])
        out = ours.forward_outputs(pictures())
    torch.testing.assert_close(out.logits, logits)
    torch.testing.assert_close(out.features, hidden)
    assert out.branch_logits == ()


def test_an_ensemble_averages_probabilities() -> None:
    out = fused("ensemble").forward_outputs(pictures())
    probabilities = sum(o.softmax(1) for o in out.branch_logits) / 2
    torch.testing.assert_close(out.logits.softmax(1), probabilities)
    torch.testing.assert_close(out.logits.exp().sum(1), torch.ones(6))


@pytest.mark.parametrize("fusion", [{}, {"hidden": 5}, {"hidden": 5, "dropout": 0.5}])
def test_a_logit_fusion_begins_as_the_average_of_its_branches_and_learns_away_from_it(fusion: dict[str, Any]) -> None:
    ours = fused("logits", **fusion)
    out = ours.forward_outputs(pictures())
    torch.testing.assert_close(out.logits, (out.branch_logits[0] + out.branch_logits[1]) / 2)
    optimizer = torch.optim.SGD(ours.head.parameters(), lr=0.5)
    for _ in range(2):  # the layer before the last one gets a gradient once that has left 0
        F.cross_entropy(ours(pictures()), torch.tensor([0, 1, 2, 0, 1, 2])).backward()
        optimizer.step()
    out = ours.forward_outputs(pictures())
    state: Any = ours.head.state_dict()
    both = torch.cat(out.branch_logits, 1)
    read = F.relu(F.linear(both, state["fusing.hidden.weight"], state["fusing.hidden.bias"])) if fusion else both
    correction = F.linear(read, state["fusing.last.weight"], state["fusing.last.bias"])
    assert correction.abs().max() > 0.01
    torch.testing.assert_close(out.logits, (out.branch_logits[0] + out.branch_logits[1]) / 2 + correction)


def test_without_hidden_concatenated_features_meet_no_bottleneck() -> None:
    ours = fused("concat")
    state: Any = ours.head.state_dict()
    assert {k: tuple(v.shape) for k, v in state.items()} == {
        "fusing.last.weight": (3, sum(b.num_features for b in ours.branches)),
        "fusing.last.bias": (3,),
    }


@pytest.mark.parametrize(("mode", "auxiliary"), [("logits", 0.0), ("concat", 0.0), ("concat", 0.3), ("ensemble", 0.0)])
def test_gradients_reach_every_parameter_of_every_branch(mode: str, auxiliary: float) -> None:
    ours = fused(mode, **(SONIC if mode == "logits" else {}), aux_loss_weight=auxiliary).train()
    out = ours.forward_outputs(pictures())
    loss = F.cross_entropy(out.logits, torch.tensor([0, 1, 2, 0, 1, 2]))
    for logits in out.branch_logits if auxiliary else ():
        loss = loss + auxiliary * logits.square().sum()
    loss.backward()
    assert [n for n, p in ours.named_parameters() if p.grad is None] == []
    silent = [n for n, p in ours.backbones.named_parameters() if p.grad is not None and not p.grad.abs().sum()]
    assert len(silent) < 0.1 * len(list(ours.backbones.parameters()))


def test_branch_logits_are_those_of_each_branch_by_itself() -> None:
    ours = fused("logits", kind="linear")
    out = ours.forward_outputs(pictures())
    state: Any = ours.head.state_dict()
    for i, features in enumerate(ours.forward_features(pictures())):
        alone = F.linear(features, state[f"branches.{i}.last.weight"], state[f"branches.{i}.last.bias"])
        torch.testing.assert_close(out.branch_logits[i], alone)


@pytest.mark.parametrize("mode", ["logits", "concat", "ensemble"])
def test_an_ablated_branch_has_no_influence(mode: str) -> None:
    ours = fused(mode)
    features = ours.forward_features(pictures())
    shuffled = (features[0], features[1].flip(0) * 3)
    without = [ours.forward_head(f, BranchAblation(1)).logits for f in (features, shuffled)]
    assert torch.equal(without[0], without[1])
    kept = [ours.forward_head(f, BranchAblation(0)).logits for f in (features, shuffled)]
    assert not torch.equal(kept[0], kept[1])


def test_an_ablated_branch_is_replaced_by_the_given_tensor() -> None:
    ours = fused("logits")
    features = ours.forward_features(pictures(1))
    own = ours.forward_head(features).branch_logits[1][0]
    torch.testing.assert_close(ours.forward_head(features, BranchAblation(1, own)).logits, ours.forward_head(features).logits)


def test_an_ensemble_without_a_branch_averages_the_others() -> None:
    out = fused("ensemble").forward_head(fused("ensemble").forward_features(pictures()), BranchAblation(0))
    torch.testing.assert_close(out.logits, out.branch_logits[1].log_softmax(1))


def test_a_classifier_with_one_backbone_has_no_branch_to_ablate() -> None:
    lone = classifiers.build_classifier(ClassifierSpec(backbones=TWO[:1], classes=CLASSES, picture=64), seed=0)
    with pytest.raises(ValueError, match="no branch to ablate"):
        lone.forward_head(lone.forward_features(pictures()), BranchAblation(0))


def test_the_same_network_twice_starts_from_different_weights() -> None:
    ours = fused("logits", backbones=(TWO[0], TWO[0], TWO[1]), **SONIC)
    identities = [b.identity for b in ours.branches]
    assert len(set(identities)) == 3
    assert ours.forward_outputs(pictures()).features.shape == (6, 12)
    alone = classifiers.build_classifier(ClassifierSpec(backbones=TWO[:1], classes=CLASSES, picture=64), seed=3)
    assert alone.branches[0].identity == identities[0]


def test_a_seed_of_its_own_changes_the_initial_weights_of_a_branch() -> None:
    spec = {"classes": CLASSES, "picture": 64}
    plain, again = (
        classifiers.build_classifier(ClassifierSpec(backbones=(TWO[0].with_changes(seed=s),), **spec), seed=3) for s in (0, 1)
    )
    assert plain.branches[0].identity != again.branches[0].identity
    assert not torch.equal(next(plain.head.parameters()), next(again.head.parameters()))
    twins = fused("logits", backbones=(TWO[0], TWO[0].with_changes(seed=1)))
    assert [b.identity for b in twins.branches] == [plain.branches[0].identity, again.branches[0].identity]


def test_dropout_can_follow_the_hidden_layer() -> None:
    spec = {"backbones": TWO[:1], "classes": CLASSES, "picture": 64}
    for at, expected in (("input", False), ("hidden", True)):
        head = HeadSpec(kind="dense", dropout=0.999, dropout_at=at)
        ours = classifiers.build_classifier(ClassifierSpec(**spec, head=head), seed=0).train()
        features = (torch.ones(50, ours.branches[0].num_features),)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            hidden = ours.forward_head(features).features
        same = bool((hidden == hidden[0]).all())  # dropout before the hidden layer makes rows differ, after it they do not
        assert same is expected


def finished(folder: Path, seed: int, **fields: Any) -> Classifier:
    """A classifier with one backbone, saved as a bundle."""
    spec = {"backbones": (TWO[seed],), "classes": CLASSES, "picture": 64, "head": HeadSpec(kind="dense", dropout=0.5)}
    lone = classifiers.build_classifier(ClassifierSpec(**{**spec, **fields}), seed=seed)
    classifiers.save_classifier(lone, folder)
    return lone


@pytest.mark.parametrize("mode", ["ensemble", "logits"])
def test_branches_loaded_from_bundles_start_with_their_heads(mode: str, tmp_path: Path) -> None:
    alone = [finished(tmp_path / str(i), i) for i in (0, 1)]
    ours = fused(mode, backbones=tuple(b.with_changes(weights=str(tmp_path / str(i))) for i, b in enumerate(TWO)))
    out = ours.forward_outputs(pictures())
    for i in (0, 1):
        torch.testing.assert_close(out.branch_logits[i], alone[i](pictures()))
    if mode == "ensemble":
        mean = (alone[0](pictures()).softmax(1) + alone[1](pictures()).softmax(1)) / 2
        torch.testing.assert_close(out.logits.softmax(1), mean)


@pytest.mark.parametrize("fields", [{"classes": ("a", "b", "x")}, {"head": HeadSpec()}])
def test_an_ensemble_with_an_untrained_head_is_refused(fields: dict[str, Any], tmp_path: Path) -> None:
    finished(tmp_path / "0", 0, **fields)
    backbones = (TWO[0].with_changes(weights=str(tmp_path / "0")), TWO[1])
    with pytest.raises(WeightsError, match="has another head or other classes than the ensemble"):
        fused("ensemble", backbones=backbones)
    assert fused("logits", backbones=backbones).forward_outputs(pictures()).logits.shape == (6, 3)

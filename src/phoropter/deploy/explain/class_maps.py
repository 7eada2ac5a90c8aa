"""Class maps of a classifier: where on the picture each branch found evidence for a class, and the share of each branch.

Methods:

    grad-cam         ReLU of the sum over channels of mean gradient × activation (Selvaraju et al. 2017, arXiv 1610.02391)
    token-gradient   ReLU of the sum over channels of gradient × activation, patch by patch: of tokens, whose channels do not mean
                     the same at every patch (for maps: HiResCAM, Draelos & Carin 2020, arXiv 2011.08891)
    gradient-rollout of ViTs: what patches carry through the attention of all blocks, weighted by its gradient (rollout.py)
    rollout          of ViTs: attention rollout, the same for every class (rollout.py)
    auto             gradient-rollout for ViTs; token-gradient for others whose answer is read off a class token; else grad-cam

The gradient is that of the class's logit; in an average of networks each branch's own, because the logit of the average does not
change where one of them is certain.

The share of a branch (`measure_shares`). T is the class's logit minus the mean of all logits, which is what decides; of several
labels a picture, which are decided one by one, the label's logit alone (and l in place of l - mean of l):

    logit fusion     sum of ∂T/∂l · (l - mean of l) over the C logits l of the branch
    feature fusion   sum of ∂T/∂f · f over the features f of the branch
    average          the probability that the branch gives the class

Negative sums, of branches that speak against the class, count as 0; shares add up to 1, and are equal where all sums are 0.

    B pictures    C classes    S pixels a side of the picture    n branches
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from phoropter.core.errors import SpecError, did_you_mean, join_words
from phoropter.deploy.explain.feature_tap import FeatureTap, find_branch_layer, reads_class_token, tap_features
from phoropter.deploy.explain.rollout import compute_rollout, find_attention_layers, record_attention
from phoropter.models.backbones import BackboneModule
from phoropter.models.classifier import Classifier
from phoropter.models.fusion import AverageFusion, FeatureFusion, log_mean_probability
from phoropter.models.heads import Outputs

MapMethod = Literal["auto", "grad-cam", "token-gradient", "gradient-rollout", "rollout"]
_OF_ATTENTION = ("gradient-rollout", "rollout")


@dataclass(frozen=True)
class ClassMaps:
    """logits: (B, C) · targets: (B,) classes

    maps: of each branch (B, S, S), not negative, as computed · shares: (B, n), rows add up to 1
    """

    logits: Tensor
    targets: Tensor
    maps: tuple[Tensor, ...]
    shares: Tensor


@dataclass(frozen=True)
class BranchPlan:
    """name: of the branch · method: any but auto · layer: what is recorded"""

    name: str
    method: str
    layer: str


class MapMaker:
    """Makes class maps of a classifier in eval mode.

    method: of all branches · layers: branch → name of a layer, in place of that of feature_tap.py
    plans: one per branch. Raises SpecError for an unknown method, branch or layer.
    """

    def __init__(self, model: Classifier, method: MapMethod = "auto", layers: Mapping[str, str] | None = None) -> None:
        words, names, layers = get_args(MapMethod), name_branches(model), layers or {}
        if method not in words:
            raise SpecError(f"method: expected {join_words(words)}, came {method!r}{did_you_mean(str(method), words)}")
        if unknown := [name for name in layers if name not in names]:
            raise SpecError(f"layer: '{unknown[0]}' is no branch; there are {join_words(names)}")
        self.model = model
        self.plans = [_plan_branch(b, n, method, layers.get(n)) for b, n in zip(model.branches, names, strict=True)]

    def split_members(self) -> list[MapMaker]:
        """Of an average of classifiers one for each member, with its part of the plans; else itself alone."""
        members, plans = self.model.members, iter(self.plans)
        if len(members) == 1:
            return [self]
        makers = []
        for member in members:
            maker = copy.copy(self)
            maker.model, maker.plans = member, [next(plans) for _ in member.branches]
            makers.append(maker)
        return makers

    def make_maps(self, pictures: Tensor, targets: Tensor | None = None) -> ClassMaps:
        """(B, 3, S, S) uint8 and (B,) classes (None: the likeliest of each) → their maps, in float32.

        Raises SpecError where a layer gives no map, or the class does not depend on it.
        """
        makers = self.split_members()
        if len(makers) > 1 and targets is None:
            with torch.no_grad():
                targets = self.model(pictures).argmax(1)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        try:
            self.model.requires_grad_(False)
            with torch.enable_grad():
                found = [_make_member_maps(m.model, m.plans, pictures, targets) for m in makers]
                return average_members(found, self.model.member_weights, self.model.spec.multi_label)
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)


def average_members(found: Sequence[ClassMaps], weights: Sequence[float] = (), multi_label: bool = False) -> ClassMaps:
    """The maps of all members' branches; the share of each in its member, times the member's share in the mean probability.

    weights: of the members in that mean; empty: all are equal
    """
    if len(found) == 1:
        return found[0]
    at = found[0].targets[:, None]
    answers = torch.cat([_to_probabilities(f.logits, multi_label).gather(1, at) for f in found], 1).cpu()
    of_members = _divide_by_sum(answers * torch.tensor(weights) if weights else answers)
    shares = torch.cat([f.shares * of_members[:, i : i + 1] for i, f in enumerate(found)], 1)
    logits = log_mean_probability([f.logits for f in found], weights, multi_label)
    return ClassMaps(logits, found[0].targets, tuple(m for f in found for m in f.maps), shares)


def _make_member_maps(model: Classifier, plans: list[BranchPlan], pictures: Tensor, targets: Tensor | None) -> ClassMaps:
    taps: list[FeatureTap | list[Tensor]] = []
    with ExitStack() as recording:
        for branch, plan in zip(model.branches, plans, strict=True):
            if plan.method in _OF_ATTENTION:
                taps.append(recording.enter_context(record_attention(branch)))
            else:
                taps.append(recording.enter_context(tap_features(branch, plan.layer)))
        features = tuple(f if f.requires_grad else f.requires_grad_() for f in model.forward_features(pictures))
        outputs = model.forward_head(features)
    chosen = outputs.logits.argmax(1) if targets is None else targets.to(outputs.logits.device)
    side = int(pictures.shape[-1])
    seen = min(side, model.spec.center_crop or side)
    start = (side - seen) // 2  # the classifier crops the middle, and sees nothing around it
    around = (start, side - seen - start) * 2
    own = outputs.branch_logits if isinstance(model.head, AverageFusion) else (outputs.logits,) * len(plans)
    maps = []
    for branch, tap, plan, logits in zip(model.branches, taps, plans, own, strict=True):
        if isinstance(tap, list):
            score = logits.gather(1, chosen[:, None]).sum() if plan.method == "gradient-rollout" else None
            small = compute_rollout(branch, tap, score)
        else:
            small = weigh_features(tap, plan.method, logits, chosen)
        maps.append(F.pad(F.interpolate(small[:, None].float(), [seen, seen], mode="bilinear")[:, 0], around))
    return ClassMaps(outputs.logits.detach(), chosen, tuple(maps), measure_shares(model, features, outputs, chosen))


def _to_probabilities(logits: Tensor, multi_label: bool) -> Tensor:
    return logits.sigmoid() if multi_label else logits.softmax(1)


def weigh_features(tap: FeatureTap, method: str, logits: Tensor, targets: Tensor) -> Tensor:
    """(B, h, w): the recorded values weighted by the gradient of the class's logit, by grad-cam or token-gradient.

    Raises SpecError where nothing was recorded, or the logit does not depend on it.
    """
    values, gradient = tap.values, None
    if values is not None:
        sums = logits.gather(1, targets[:, None]).sum()
        (gradient,) = torch.autograd.grad(sums, values, retain_graph=True, allow_unused=True)
    if values is None or gradient is None:
        raise tap.refuse("is not what the class is read off")
    values, gradient = tap.to_map(values.detach()), tap.to_map(gradient)
    if not gradient.any():
        raise tap.refuse("gives patches that the class no longer depends on")
    weights = gradient.mean((2, 3), keepdim=True) if method == "grad-cam" else gradient
    return (weights * values).sum(1).relu()


def measure_shares(model: Classifier, features: Sequence[Tensor], outputs: Outputs, targets: Tensor) -> Tensor:
    """(B, n) the share of each branch in the decision for the class, as the text above says; rows add up to 1."""
    if len(features) == 1:
        return torch.ones(len(targets), 1)
    at, several = targets[:, None], model.spec.multi_label
    if isinstance(model.head, AverageFusion):
        sums = torch.cat([_to_probabilities(logits, several).gather(1, at) for logits in outputs.branch_logits], 1)
    else:
        reads_features = isinstance(model.head, FeatureFusion)
        parts = tuple(features) if reads_features else outputs.branch_logits
        rest = 0.0 if several else outputs.logits.mean(1, keepdim=True)
        decisive = (outputs.logits.gather(1, at) - rest).sum()
        gradients = torch.autograd.grad(decisive, parts)
        values = parts if reads_features or several else tuple(p - p.mean(1, keepdim=True) for p in parts)
        sums = torch.stack([(g * v).sum(1) for g, v in zip(gradients, values, strict=True)], 1)
    positive = sums.detach().float().cpu().clamp_min(0)
    return _divide_by_sum(positive)


def _divide_by_sum(parts: Tensor) -> Tensor:
    """(B, n) not negative → rows that add up to 1, with equal parts where all are 0."""
    total = parts.sum(1, keepdim=True)
    return torch.where(total > 0, parts / total.clamp_min(1e-30), torch.full_like(parts, 1 / parts.shape[1]))


def name_branches(model: Classifier) -> list[str]:
    """The name of each branch's backbone; where several are the same, numbered: `resnet18 1`, `resnet18 2`."""
    names = [branch.name for branch in model.branches]
    return [n if names.count(n) == 1 else f"{n} {names[: i + 1].count(n)}" for i, n in enumerate(names)]


def _plan_branch(branch: BackboneModule, name: str, method: MapMethod, layer: str | None) -> BranchPlan:
    if method == "auto":
        tokens: MapMethod = "token-gradient" if reads_class_token(branch) else "grad-cam"
        method = "gradient-rollout" if find_attention_layers(branch) and layer is None else tokens
    if method in _OF_ATTENTION:
        if layer is not None:
            raise SpecError(f"layer: method {method} reads all blocks of {name}; with a layer, choose grad-cam or token-gradient")
        return BranchPlan(name, method, "attention of all blocks")
    if layer is None:
        layer = find_branch_layer(branch, torch.zeros(1, 3, branch.side, branch.side, device=branch.scale.device))
    return BranchPlan(name, method, layer)

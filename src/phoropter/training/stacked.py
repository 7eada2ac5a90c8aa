"""Heads of one shape as one tensor program: their parameters stacked, runs first, and a step's gradients left in buffers.

`Plain` writes out the gradient of a linear head and of a dense one (Bishop 2006, §4.3.4 and §5.3): no graph is built, and the
runs of a lane share one matrix product. `Mapped` maps any head and lets torch differentiate: for fusions. What their dropout
drops is drawn beforehand (`Drops`). A test holds both to `fit`.

Letters: R = L · r runs (L lanes of r), U rows of a window, B of a batch, D width, H hidden, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from phoropter.models.heads import Alone, Dense, dropouts
from phoropter.training.lanes import Lane
from phoropter.training.loop import seed_step
from phoropter.training.losses import Criterion
from phoropter.training.recipe import Loss

NARROW = 64  # columns of a first layer up to which a shared window is worth its extra rows


Scales = dict[str, Tensor]  # name of a dropout's scale → (L, U, width); empty where a head drops nothing


class Heads(Protocol):
    """parameters, gradients: name → (R, …), the same buffers throughout."""

    parameters: dict[str, Tensor]
    gradients: dict[str, Tensor]
    buffers: dict[str, Tensor]

    def step(self, features: tuple[Tensor, ...], labels: Tensor, member: Tensor, counts: Tensor, scales: Scales) -> Tensor:
        """(L, U, D_i) features, (L, U) labels, (L, r, U) member, (L, r) counts → (2, R) mean loss, hits; fills the gradients."""
        ...


def plain(head: nn.Module) -> Dense | None:
    """The layers of a head that `Plain` knows; None: it does not."""
    return head.head if isinstance(head, Alone) and isinstance(head.head, Dense) else None


def narrow(head: nn.Module) -> bool:
    """Whether runs of this head may share windows. What is dropped from a row depends on its place in the run's own batch."""
    known = plain(head)
    return known is not None and not dropouts(head) and (known.hidden or known.last).out_features <= NARROW


class Drops:
    """What the dropout of lanes drops: at each step the draws of a head alone, which are the same for all runs of one seed
    whose batches are equally long. Each lane's runs have one batch."""

    def __init__(self, head: nn.Module, lanes: Sequence[Lane], device: torch.device) -> None:
        self.layers = dropouts(head)
        self.seeds = [lane.orders[0].seed for lane in lanes]
        self.device = device

    def at(self, epoch: int, index: int, counts: Sequence[int], window: int) -> Scales:
        """counts: of the L lanes' batches, B each, which begin windows of `window` rows."""
        if not self.layers:
            return {}
        lanes = list(zip(self.seeds, counts, strict=True))
        drawn: dict[tuple[int, int], list[Tensor]] = {}
        for seed, count in dict.fromkeys(lanes):
            seed_step(seed, epoch, index)
            scales = [layer.drawn(count, self.device) for layer in self.layers.values()]
            drawn[seed, count] = [F.pad(scale, (0, 0, 0, window - count)) for scale in scales]
        return {f"{name}.scale": torch.stack([drawn[lane][i] for lane in lanes]) for i, name in enumerate(self.layers)}


def _stacked(heads: Sequence[nn.Module]) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    stacked, buffers = stack_module_state(list(heads))  # type: ignore[arg-type]
    parameters = {k: v.detach().clone().contiguous() for k, v in stacked.items()}
    return parameters, {k: torch.zeros_like(v) for k, v in parameters.items()}, dict(buffers)


class Plain:
    """Linear heads, or dense ones with a ReLU, on one branch; classes before rows, so that no tensor is turned over.

    weights: (R, C) of the classes, or None
    """

    def __init__(self, heads: Sequence[nn.Module], loss: Loss, weights: Tensor | None) -> None:
        self.parameters, self.gradients, self.buffers = _stacked(heads)
        self.loss, self.weights = loss, weights
        known = plain(heads[0])
        assert known is not None
        self.at_input = known.at_input  # of dropout

    @torch.no_grad()
    def step(self, features: tuple[Tensor, ...], labels: Tensor, member: Tensor, counts: Tensor, scales: Scales) -> Tensor:
        x, (lanes, runs, window) = features[0], member.shape
        scale = scales.get("head.dropout.scale")
        if scale is not None and self.at_input:
            x = x * scale
        own = labels[:, None].expand(lanes, runs, window).reshape(lanes * runs, 1, window)  # (R, 1, U)
        inside, counts = member.view(lanes * runs, window), counts.flatten()
        if "head.hidden.weight" not in self.parameters:
            sums, slope = self._loss(self._columns(x, "head.last"), own, inside, counts)
            self._descend(x, slope, "head.last")
            return sums
        h = self._columns(x, "head.hidden").relu_()  # (R, H, U)
        within = None if scale is None or self.at_input else scale.mT.repeat_interleave(runs, 0)  # (R, H, U)
        if within is not None:
            h *= within
        last = self.parameters["head.last.weight"]
        sums, slope = self._loss(torch.baddbmm(self.parameters["head.last.bias"][..., None], last, h), own, inside, counts)
        torch.bmm(slope, h.mT, out=self.gradients["head.last.weight"])
        torch.sum(slope, 2, out=self.gradients["head.last.bias"])
        onto = torch.bmm(last.mT, slope)
        if within is not None:
            onto *= within
        self._descend(x, torch.ops.aten.threshold_backward(onto, h, 0), "head.hidden")
        return sums

    def _columns(self, x: Tensor, layer: str) -> Tensor:
        """(L, U, D) through the layer of every run → (R, K, U): one product a lane."""
        weight, bias = self.parameters[f"{layer}.weight"], self.parameters[f"{layer}.bias"]
        (lanes, window, width), (runs, out, _) = x.shape, weight.shape
        rows = runs // lanes * out
        return torch.baddbmm(bias.view(lanes, rows, 1), weight.view(lanes, rows, width), x.mT).view(runs, out, window)

    def _descend(self, x: Tensor, slope: Tensor, layer: str) -> None:
        """The gradient of a layer on x from that of what comes out of it, (R, K, U)."""
        (lanes, window, width), (runs, out, _) = x.shape, slope.shape
        rows = runs // lanes * out
        torch.bmm(slope.view(lanes, rows, window), x, out=self.gradients[f"{layer}.weight"].view(lanes, rows, width))
        torch.sum(slope, 2, out=self.gradients[f"{layer}.bias"])

    def _loss(self, z: Tensor, labels: Tensor, member: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """(R, C, U) logits → (2, R) mean loss and hits, (R, C, U) the slope of the mean loss."""
        said = z.gather(1, labels)  # (R, 1, U)
        hits = ((said == z.amax(1, keepdim=True))[:, 0] * member).sum(1)
        if self.loss.kind == "focal":
            losses, slope = self._differentiated(z, labels, member)
            return torch.stack([losses, hits]), slope
        logp = torch.log_softmax(z, 1)
        smoothing, weights = self.loss.smoothing, self.weights
        if smoothing == 0 and weights is None:
            losses = (logp.gather(1, labels)[:, 0] * member).sum(1) / -counts
            share = (member / counts[:, None])[:, None]  # (R, 1, U)
            return torch.stack([losses, hits]), logp.exp_().mul_(share).scatter_add_(1, labels, -share)
        of_class = torch.ones_like(z[..., 0]) if weights is None else weights  # (R, C)
        own = of_class.gather(1, labels[:, 0])  # (R, U)
        target = (of_class * (smoothing / z.shape[1]))[..., None].expand_as(z).clone()
        target.scatter_add_(1, labels, ((1 - smoothing) * own)[:, None])
        share = member / (own * member).sum(1, keepdim=True)
        losses = -((target * logp).sum(1) * share).sum(1)
        slope = (logp.exp_() * target.sum(1, keepdim=True) - target) * share[:, None]
        return torch.stack([losses, hits]), slope

    def _differentiated(self, z: Tensor, labels: Tensor, member: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            losses = _mapped_loss(self.loss, z.mT, labels[:, 0], member, self.weights)
            (slope,) = torch.autograd.grad(losses.sum(), z)
        return losses.detach(), slope.contiguous()


class Mapped:
    """Heads of any kind: one of them mapped over all runs. A lane may hold several runs; each sees the lane's rows.

    auxiliary: weight of each branch's own loss beside that of the whole
    """

    def __init__(self, heads: Sequence[nn.Module], loss: Loss, weights: Tensor | None, auxiliary: float = 0.0) -> None:
        self.parameters, self.gradients, self.buffers = _stacked(heads)
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)
        self.template, self.loss, self.weights, self.auxiliary = heads[0], loss, weights, auxiliary

    def step(self, features: tuple[Tensor, ...], labels: Tensor, member: Tensor, counts: Tensor, scales: Scales) -> Tensor:
        lanes, runs, _ = member.shape

        def each(of_lane: Tensor) -> Tensor:
            """(L, U, …) → (R, U, …)."""
            return of_lane[:, None].expand(lanes, runs, *of_lane.shape[1:]).flatten(0, 1)

        def answer(p: dict[str, Tensor], b: dict[str, Tensor], f: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
            out = functional_call(self.template, (p, b), (f,))
            return out.logits, out.branch_logits if self.auxiliary else ()

        given = {**self.buffers, **{name: each(scale) for name, scale in scales.items()}}
        logits, of_branches = vmap(answer)(self.parameters, given, tuple(each(f) for f in features))
        own, inside = each(labels), member.flatten(0, 1)
        losses = _mapped_loss(self.loss, logits, own, inside, self.weights)
        for of_branch in of_branches:
            losses = losses + self.auxiliary * _mapped_loss(self.loss, of_branch, own, inside, self.weights)
        slopes = torch.autograd.grad(losses.sum(), list(self.parameters.values()))
        for gradient, slope in zip(self.gradients.values(), slopes, strict=True):
            gradient.copy_(slope)
        with torch.no_grad():
            hits = ((logits.argmax(-1) == own) * inside).sum(1)
            return torch.stack([losses.detach(), hits])


def _mapped_loss(loss: Loss, logits: Tensor, labels: Tensor, member: Tensor, weights: Tensor | None) -> Tensor:
    """(R, U, C) logits, (R, U) labels and whether they count → (R,) mean losses."""
    if weights is None:
        return vmap(lambda z, y, m: Criterion(loss).over(z, y, m))(logits, labels, member)
    return vmap(lambda z, y, m, w: Criterion(loss, w).over(z, y, m))(logits, labels, member, weights)

"""Heads of one shape as one tensor program: their parameters stacked, runs first, and a step's gradients left in buffers.

The gradients are written out (Bishop 2006, §4.3.4 and §5.3): no graph is built, the runs of a lane share one matrix product, and
what dropout drops is drawn beforehand. A test holds them to `fit`, which lets torch differentiate.

Letters: R = L · r runs (L lanes of r), U rows of a window, B of a batch, D width, H hidden, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import vmap

from phoropter.models.fusion import LogitFusion
from phoropter.models.heads import MlpHead, SingleHead
from phoropter.training.candidates.recipe import LossSpec
from phoropter.training.frozen.batch_schedule import SharedSchedule
from phoropter.training.loop.losses import Criterion
from phoropter.training.loop.training_loop import seed_step

MAX_SHARED_WIDTH = 64  # columns of a first layer up to which a shared window is worth its extra rows

DropoutScales = dict[str, Tensor]  # name of a Dense → (L, U, width) what its dropout multiplies by; none where it drops nothing


def can_share_window(head: nn.Module) -> bool:
    """Whether runs of this head may share windows. What is dropped from a row depends on its place in the run's own batch."""
    known = head.head if isinstance(head, SingleHead) and isinstance(head.head, MlpHead) else None
    return known is not None and not known.dropout.p and (known.hidden or known.last).out_features <= MAX_SHARED_WIDTH


def dense_layers(head: nn.Module) -> dict[str, MlpHead]:
    """By name, in the order in which they are asked (and drop): branches, then what reads them."""
    return {name: layer for name, layer in head.named_modules() if isinstance(layer, MlpHead)}


class BatchedDropout:
    """What the dropout of lanes drops: at each step the draws of a head alone, which are the same for all runs of one seed
    whose batches are equally long. Each lane's runs have one batch."""

    def __init__(self, head: nn.Module, lanes: Sequence[SharedSchedule], device: torch.device) -> None:
        self.layers = {name: layer for name, layer in dense_layers(head).items() if layer.dropout.p}
        self.seeds = [lane.orders[0].seed for lane in lanes]
        self.device = device

    def draw_scales(self, epoch: int, index: int, counts: Sequence[int], window: int) -> DropoutScales:
        """counts: of the L lanes' batches, B each, which begin windows of `window` rows. The other rows are nobody's."""
        if not self.layers:
            return {}
        lanes = list(zip(self.seeds, counts, strict=True))
        drawn: dict[tuple[int, int], list[Tensor]] = {}
        for seed, count in dict.fromkeys(lanes):
            seed_step(seed, epoch, index)
            scales = [self._draw_layer_scale(layer, count) for layer in self.layers.values()]
            drawn[seed, count] = [F.pad(scale, (0, 0, 0, window - count)) for scale in scales]
        return {name: torch.stack([drawn[lane][i] for lane in lanes]) for i, name in enumerate(self.layers)}

    def _draw_layer_scale(self, layer: MlpHead, rows: int) -> Tensor:
        """(rows, width): 0 where it would drop now, else 1 / (1 − p)."""
        read = layer.hidden if layer.at_input and layer.hidden is not None else layer.last
        return F.dropout(torch.ones(rows, read.in_features, device=self.device), layer.dropout.p, training=True)


class BatchedHeads:
    """Heads on one branch, or fusions of several; classes before rows, so that no tensor is turned over.

    parameters, gradients: name → (R, …), the same buffers throughout · weights: (R, C) of the classes, or None
    auxiliary: weight of each branch's own loss beside that of the whole
    """

    def __init__(self, heads: Sequence[nn.Module], loss: LossSpec, weights: Tensor | None, auxiliary: float = 0.0) -> None:
        states = [head.state_dict() for head in heads]
        self.parameters = {name: torch.stack([state[name] for state in states]) for name in states[0]}
        self.gradients = {name: torch.zeros_like(stacked) for name, stacked in self.parameters.items()}
        self.loss, self.class_weights, self.auxiliary = loss, weights, auxiliary
        self.reads_logits = isinstance(heads[0], LogitFusion)
        *self.branches, self.output_layer = (
            _BatchedDense(name, layer, self.parameters, self.gradients) for name, layer in dense_layers(heads[0]).items()
        )

    @torch.no_grad()
    def forward_backward(
        self, features: tuple[Tensor, ...], labels: Tensor, member: Tensor, counts: Tensor, scales: DropoutScales
    ) -> Tensor:
        """(L, U, D_i) features, (L, U) labels, (L, r, U) member, (L, r) counts → (2, R) mean loss, hits; fills the gradients."""
        inside, counts = member.flatten(0, 1), counts.flatten()  # (R, U), (R,)
        own = _repeat_per_run(labels[:, None], len(inside))  # (R, 1, U)
        said = [branch.forward(x, scales) for branch, x in zip(self.branches, features, strict=False)]  # (R, C, U) each
        read = torch.cat(said, 1).mT if self.reads_logits else features[0] if len(features) == 1 else torch.cat(features, 2)
        sums, slope = self._loss_and_gradient(self.output_layer.forward(read, scales), own, inside, counts)
        slope = self.output_layer.backward(slope)
        slopes = (
            self.output_layer.input_gradient(slope).chunk(len(said), 1)
            if self.reads_logits
            else [torch.zeros_like(z) for z in said]
        )
        for branch, z, of_whole in zip(self.branches, said, slopes, strict=True):
            if self.auxiliary:
                beside, of_branch = self._loss_and_gradient(z, own, inside, counts)
                sums[0] += self.auxiliary * beside[0]
                of_whole = of_whole + self.auxiliary * of_branch
            branch.backward(of_whole.contiguous())
        return sums

    def _loss_and_gradient(self, z: Tensor, labels: Tensor, member: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """(R, C, U) logits → (2, R) mean loss and hits, (R, C, U) the slope of the mean loss."""
        said = z.gather(1, labels)  # (R, 1, U)
        hits = ((said == z.amax(1, keepdim=True))[:, 0] * member).sum(1)
        if self.loss.kind == "focal":
            losses, slope = self._loss_by_autograd(z, labels, member)
            return torch.stack([losses, hits]), slope
        logp = torch.log_softmax(z, 1)
        smoothing, weights = self.loss.smoothing, self.class_weights
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

    def _loss_by_autograd(self, z: Tensor, labels: Tensor, member: Tensor) -> tuple[Tensor, Tensor]:
        def compute_run_loss(z: Tensor, y: Tensor, m: Tensor, w: Tensor | None) -> Tensor:
            return Criterion(self.loss, w).masked_loss(z, y, m)

        with torch.enable_grad():
            z = z.detach().requires_grad_()
            over = vmap(compute_run_loss, in_dims=(0, 0, 0, None if self.class_weights is None else 0))
            losses: Tensor = over(z.mT, labels[:, 0], member, self.class_weights)
            (slope,) = torch.autograd.grad(losses.sum(), z)
        return losses.detach(), slope.contiguous()


class _BatchedDense:
    """One Dense of every run. What it last read, and said within, is kept for its gradients."""

    def __init__(self, name: str, like: MlpHead, parameters: dict[str, Tensor], gradients: dict[str, Tensor]) -> None:
        self.name, self.at_input = name, like.at_input

        def select_layer_tensors(kind: str) -> list[Tensor]:
            return [of[f"{name}.{kind}.{part}"] for of in (parameters, gradients) for part in ("weight", "bias")]

        self.first = select_layer_tensors("last" if like.hidden is None else "hidden")
        self.last = None if like.hidden is None else select_layer_tensors("last")
        self.input_scale: Tensor | None = None  # what its dropout multiplied by: (L, U, D) at the input
        self.hidden_scale: Tensor | None = None  # or (R, H, U) behind the ReLU

    def forward(self, x: Tensor, scales: DropoutScales) -> Tensor:
        """(L, U, D), or (R, U, D), → (R, C, U): one product a lane."""
        scale = scales.get(self.name)
        weight, bias, *_ = self.first
        (lanes, window, width), (runs, out, _) = x.shape, weight.shape
        rows = runs // lanes * out
        if scale is not None and self.at_input:
            self.input_scale = _repeat_per_run(scale, lanes)
        elif scale is not None:
            self.hidden_scale = _repeat_per_run(scale.mT, runs)
        self.x = x if self.input_scale is None else x * self.input_scale
        z = torch.baddbmm(bias.view(lanes, rows, 1), weight.view(lanes, rows, width), self.x.mT).view(runs, out, window)
        if self.last is None:
            return z
        self.h = z.relu_()  # (R, H, U)
        if self.hidden_scale is not None:
            self.h *= self.hidden_scale
        return torch.baddbmm(self.last[1][..., None], self.last[0], self.h)

    def backward(self, slope: Tensor) -> Tensor:
        """Fills the gradients from the slope of the loss on what came out, (R, C, U); → that on what the first layer said."""
        if self.last is not None:
            weight, _, of_weight, of_bias = self.last
            torch.bmm(slope, self.h.mT, out=of_weight)
            torch.sum(slope, 2, out=of_bias)
            slope = torch.bmm(weight.mT, slope)
            if self.hidden_scale is not None:
                slope *= self.hidden_scale
            slope = torch.ops.aten.threshold_backward(slope, self.h, 0)
        (lanes, window, width), (runs, out, _) = self.x.shape, slope.shape
        rows = runs // lanes * out
        _, _, of_weight, of_bias = self.first
        torch.bmm(slope.view(lanes, rows, window), self.x, out=of_weight.view(lanes, rows, width))
        torch.sum(slope, 2, out=of_bias)
        return slope

    def input_gradient(self, slope: Tensor) -> Tensor:
        """The slope on what was read, (R, D, U), from that on what the first layer said."""
        under = torch.bmm(self.first[0].mT, slope)
        return under if self.input_scale is None else under * self.input_scale.mT


def _repeat_per_run(of_lanes: Tensor, count: int) -> Tensor:
    """(L, …) → (R, …): each lane's for all its runs."""
    return of_lanes if len(of_lanes) == count else of_lanes.repeat_interleave(count // len(of_lanes), 0)

"""Heads of one shape as one tensor program: their parameters are stacked, runs first, and a step fills gradient buffers.

The gradients of the layers are written out (Bishop 2006, §4.3.4 and §5.3): no graph is built, the runs of a schedule share one
matrix product, and dropout masks are drawn beforehand. That of the loss is its closed form where it has one, else autograd's
(loop/losses). Tests compare the result with `fit`, where torch differentiates everything; benchmarks/README.md says how much
slower torch.func is.

Letters: R = L · r runs (L schedules of r), U rows of a window, B of a batch, D width, H hidden, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phoropter.models.fusion import FeatureFusion, LogitFusion
from phoropter.models.heads import MlpHead, SingleHead
from phoropter.training.candidates.recipe import LossSpec
from phoropter.training.frozen.batch_schedule import SharedSchedule
from phoropter.training.loop.losses import WindowLabels, find_loss
from phoropter.training.loop.parallel.batch_gradients import seed_step

MAX_SHARED_WIDTH = 64  # columns of a first layer up to which a shared window is worth its extra rows

BATCHED_FUSIONS = ("logits", "concat")  # modes whose forward and backward passes are written out below
DropoutScales = dict[str, Tensor]  # name of a Dense → (L, U, width) what its dropout multiplies by; none where it drops nothing


def can_share_window(head: nn.Module) -> bool:
    """Whether runs of this head may share windows: one narrow head without dropout.

    With dropout they may not, because the mask of a row depends on its place in the run's own batch.
    """
    layer = head.head if isinstance(head, SingleHead) and isinstance(head.head, MlpHead) else None
    return layer is not None and not layer.dropout.p and (layer.hidden or layer.last).out_features <= MAX_SHARED_WIDTH


def dense_layers(head: nn.Module) -> dict[str, MlpHead]:
    """Name → layer, in the order in which they run and draw their dropout: branches first, then the layer that fuses them."""
    return {name: layer for name, layer in head.named_modules() if isinstance(layer, MlpHead)}


class BatchedDropout:
    """Dropout masks of batched heads, equal to those that `fit` draws for each head at the same step.

    torch's generator is seeded by (seed, epoch, step), so runs of one seed with batches of one size have the same masks, drawn
    once. All runs of a schedule have the same batch.
    """

    def __init__(self, head: nn.Module, schedules: Sequence[SharedSchedule], device: torch.device) -> None:
        self.layers = {name: layer for name, layer in dense_layers(head).items() if layer.dropout.p}
        self.seeds = [schedule.samplers[0].split.seed for schedule in schedules]
        self.device = device

    def draw_scales(self, epoch: int, index: int, batch_sizes: Sequence[int], window: int) -> DropoutScales:
        """batch_sizes: B of each of the L schedules; a window of `window` rows begins with the batch, the rest is padding."""
        if not self.layers:
            return {}
        keys = list(zip(self.seeds, batch_sizes, strict=True))
        drawn: dict[tuple[int, int], list[Tensor]] = {}
        for seed, size in dict.fromkeys(keys):
            seed_step(seed, epoch, index)
            scales = [self._draw_layer_scale(layer, size) for layer in self.layers.values()]
            drawn[seed, size] = [F.pad(scale, (0, 0, 0, window - size)) for scale in scales]
        return {name: torch.stack([drawn[key][i] for key in keys]) for i, name in enumerate(self.layers)}

    def _draw_layer_scale(self, layer: MlpHead, rows: int) -> Tensor:
        """(rows, width) factors: 0 where a value is dropped, else 1 / (1 − p)."""
        input_layer = layer.hidden if layer.at_input and layer.hidden is not None else layer.last
        # F.dropout on ones consumes the generator exactly as nn.Dropout does in `fit`
        return F.dropout(torch.ones(rows, input_layer.in_features, device=self.device), layer.dropout.p, training=True)


class BatchedHeads:
    """R heads on one branch, or R fusions of several branches; classes stand before rows, so that no tensor is transposed.

    parameters, gradients: name → (R, …), the same buffers throughout, which the optimiser holds
    class_weights: (R, C), or (R, 2, C) of several labels a row, or None
    auxiliary: weight of each branch's own loss beside that of the fusion
    """

    def __init__(
        self,
        heads: Sequence[nn.Module],
        loss: LossSpec,
        weights: Tensor | None,
        auxiliary: float = 0.0,
        multi_label: bool = False,
    ) -> None:
        states = [head.state_dict() for head in heads]
        self.parameters = {name: torch.stack([state[name] for state in states]) for name in states[0]}
        self.gradients = {name: torch.zeros_like(stacked) for name, stacked in self.parameters.items()}
        self.loss, self.loss_function = loss, find_loss(loss, multi_label)
        self.class_weights, self.auxiliary = weights, auxiliary
        if type(heads[0]) not in (SingleHead, LogitFusion, FeatureFusion):
            raise TypeError(f"{type(heads[0]).__name__} has no batched form; add it to BatchedHeads and to BATCHED_FUSIONS")
        self.reads_logits = isinstance(heads[0], LogitFusion)
        self.averages = isinstance(heads[0], LogitFusion) and heads[0].averages
        *self.branches, self.output_layer = (
            _BatchedDense(name, layer, self.parameters, self.gradients) for name, layer in dense_layers(heads[0]).items()
        )

    @torch.no_grad()
    def forward_backward(
        self, features: tuple[Tensor, ...], labels: Tensor, mask: Tensor, batch_sizes: Tensor, scales: DropoutScales
    ) -> Tensor:
        """Fills the gradients of a step.

        (L, U, D_i) features, (L, U) labels or (L, U, C) of several a row, (L, r, U) mask, (L, r) batch sizes
        → (2, R) mean losses and hits
        """
        of_runs = mask.flatten(0, 1)  # (R, U)
        window = WindowLabels(_repeat_per_run(labels, len(of_runs)), of_runs, batch_sizes.flatten(), self.class_weights)
        branch_logits = [b.forward(x, scales) for b, x in zip(self.branches, features, strict=False)]  # (R, C, U) each
        if self.reads_logits:
            inputs = torch.cat(branch_logits, 1).mT
        else:
            inputs = features[0] if len(features) == 1 else torch.cat(features, 2)
        logits = self.output_layer.forward(inputs, scales)
        if self.averages:
            logits = logits + torch.stack(branch_logits).mean(0)
        sums, on_logits = self._loss_and_gradient(logits, window)
        gradient = self.output_layer.backward(on_logits)
        if self.reads_logits:
            branch_gradients = list(self.output_layer.input_gradient(gradient).chunk(len(branch_logits), 1))
            if self.averages:
                branch_gradients = [of_branch + on_logits / len(branch_logits) for of_branch in branch_gradients]
        else:  # heads beside fused features, which the fusion's loss does not reach
            branch_gradients = [torch.zeros_like(z) for z in branch_logits]
        for branch, logits, from_fusion in zip(self.branches, branch_logits, branch_gradients, strict=True):
            if self.auxiliary:
                own_sums, own_gradient = self._loss_and_gradient(logits, window)
                sums[0] += self.auxiliary * own_sums[0]
                from_fusion = from_fusion + self.auxiliary * own_gradient
            branch.backward(from_fusion.contiguous())
        return sums

    def _loss_and_gradient(self, logits: Tensor, window: WindowLabels) -> tuple[Tensor, Tensor]:
        """(R, C, U) logits → (2, R) mean loss and hits, (R, C, U) the gradient of the mean loss."""
        if window.labels.ndim == 3:
            hits = (((logits > 0) == (window.labels.mT == 1)).float().mean(1) * window.mask).sum(1)
        else:
            own = logits.gather(1, window.labels[:, None])[:, 0]  # (R, U)
            # A comparison with the largest costs less than an argmax; a tie counts as a hit, in the history alone
            hits = ((own == logits.amax(1)) * window.mask).sum(1)
        losses, gradient = self.loss_function.differentiate_window(self.loss, logits, window)
        return torch.stack([losses, hits]), gradient


class _BatchedDense:
    """One MlpHead of every run. Its last input and hidden activations are kept for the gradients."""

    def __init__(self, name: str, like: MlpHead, parameters: dict[str, Tensor], gradients: dict[str, Tensor]) -> None:
        self.name, self.at_input = name, like.at_input

        def select_layer_tensors(kind: str) -> list[Tensor]:
            return [tensors[f"{name}.{kind}.{part}"] for tensors in (parameters, gradients) for part in ("weight", "bias")]

        self.first = select_layer_tensors("last" if like.hidden is None else "hidden")
        self.last = None if like.hidden is None else select_layer_tensors("last")
        self.input_scale: Tensor | None = None  # the factors of its dropout: (L, U, D) at the input
        self.hidden_scale: Tensor | None = None  # or (R, H, U) after the ReLU

    def forward(self, x: Tensor, scales: DropoutScales) -> Tensor:
        """(L, U, D), or (R, U, D), → (R, C, U) logits.

        The weights of a schedule's r runs stand below each other as one (r · H, D) matrix, so that the window's rows are read
        once for all of them: one large product instead of r small ones.
        """
        scale = scales.get(self.name)
        weight, bias, *_ = self.first
        (schedules, window, width), (runs, out, _) = x.shape, weight.shape
        rows = runs // schedules * out
        if scale is not None and self.at_input:
            self.input_scale = _repeat_per_run(scale, schedules)
        elif scale is not None:
            self.hidden_scale = _repeat_per_run(scale.mT, runs)
        self.x = x if self.input_scale is None else x * self.input_scale
        z = torch.baddbmm(bias.view(schedules, rows, 1), weight.view(schedules, rows, width), self.x.mT).view(runs, out, window)
        if self.last is None:
            return z
        self.h = z.relu_()  # (R, H, U)
        if self.hidden_scale is not None:
            self.h *= self.hidden_scale
        return torch.baddbmm(self.last[1][..., None], self.last[0], self.h)

    def backward(self, gradient: Tensor) -> Tensor:
        """(R, C, U) gradient on its output → (R, H, U) gradient on the output of its first layer; fills the buffers."""
        if self.last is not None:
            weight, _, weight_gradient, bias_gradient = self.last
            torch.bmm(gradient, self.h.mT, out=weight_gradient)
            torch.sum(gradient, 2, out=bias_gradient)
            gradient = torch.bmm(weight.mT, gradient)
            if self.hidden_scale is not None:
                gradient *= self.hidden_scale
            # `h` after dropout is 0 where the ReLU cut or dropout dropped: both pass no gradient
            gradient = torch.ops.aten.threshold_backward(gradient, self.h, 0)
        (schedules, window, width), (runs, out, _) = self.x.shape, gradient.shape
        rows = runs // schedules * out
        _, _, weight_gradient, bias_gradient = self.first
        torch.bmm(gradient.view(schedules, rows, window), self.x, out=weight_gradient.view(schedules, rows, width))
        torch.sum(gradient, 2, out=bias_gradient)
        return gradient

    def input_gradient(self, gradient: Tensor) -> Tensor:
        """(R, H, U) gradient on the output of the first layer → (R, D, U) gradient on the input."""
        on_input = torch.bmm(self.first[0].mT, gradient)
        return on_input if self.input_scale is None else on_input * self.input_scale.mT


def _repeat_per_run(of_schedules: Tensor, count: int) -> Tensor:
    """(L, …) → (R, …): each schedule's for all its runs."""
    return of_schedules if len(of_schedules) == count else of_schedules.repeat_interleave(count // len(of_schedules), 0)

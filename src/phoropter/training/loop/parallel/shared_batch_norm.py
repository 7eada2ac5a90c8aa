"""Batch norm whose statistics are those of the whole batch, though each process computes a share of it.

torch's SyncBatchNorm does so on GPUs alone and takes the place of modules; this stands in for the function that all of them call,
on any device, so that networks stay as they are. The gradient is that of the loss of the whole batch: processes differentiate
their parts of one sum, and what a row adds to the others' statistics comes back from them (Ioffe & Szegedy 2015).

Letters: B rows of the share, C channels, P processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

Tensor = torch.Tensor


class SharedBatchNorm(TorchFunctionMode):
    """Within it, `torch.nn.functional.batch_norm` in training takes the statistics of all processes.

    sum_tensors: sums tensors over the processes, in place · rank, size: of this process
    counts: whether the rows of this process count; False where it has none of the batch and computes on another's
    """

    def __init__(self, sum_tensors: Callable[[Sequence[Tensor]], None], rank: int, size: int, counts: bool = True) -> None:
        super().__init__()
        self.sum_tensors, self.rank, self.size, self.counts = sum_tensors, rank, size, counts

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.batch_norm:
            given = dict(zip(_ARGUMENTS, args, strict=False)) | (kwargs or {})
            if given.get("training", False):
                return self._normalise_batch(**given)
        return func(*args, **(kwargs or {}))

    def _normalise_batch(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = True,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        out, mean, variance, count = _Normalisation.apply(input, weight, bias, eps, self)  # type: ignore[no-untyped-call]
        if running_mean is not None and running_var is not None:
            with torch.no_grad():  # of the running variance torch takes the unbiased one
                running_mean.lerp_(mean.to(running_mean.dtype), momentum)
                running_var.lerp_((variance * (count / (count - 1).clamp_min(1))).to(running_var.dtype), momentum)
        return out  # type: ignore[no-any-return]

    def gather_moments(self, x: Tensor, over: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """(B, C, …) → (C,) mean, (C,) biased variance and the number of values a channel, of all processes."""
        variance, mean = torch.var_mean(x, over, correction=0)
        count = mean.new_full((1,), x.numel() // x.shape[1] if self.counts else 0)
        table = mean.new_zeros(self.size, 2 * len(mean) + 1)  # (P, 2C + 1): the sum over processes is all of their rows
        table[self.rank] = torch.cat([mean, variance, count])
        self.sum_tensors([table])
        means, variances = table[:, :-1].chunk(2, 1)  # each (P, C)
        counts = table[:, -1:]
        total = counts.sum()
        mean = (counts * means).sum(0) / total
        return mean, (counts * (variances + (means - mean) ** 2)).sum(0) / total, total


_ARGUMENTS = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")


class _Normalisation(torch.autograd.Function):
    """(B, C, …) → the same, each channel with mean 0 and variance 1 over all processes, times weight, plus bias."""

    @staticmethod
    def forward(
        ctx: Any, given: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, shared: SharedBatchNorm
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x, over = _widen(given), [0, *range(2, given.ndim)]
        mean, variance, count = shared.gather_moments(x, over)
        shape = [1, -1] + [1] * (given.ndim - 2)
        scale = torch.rsqrt(variance + eps)
        normal = (x - mean.view(shape)) * scale.view(shape)
        out = normal if weight is None else normal * weight.view(shape)
        out = out if bias is None else out + bias.view(shape)
        ctx.save_for_backward(given, weight, mean, scale, count)
        ctx.shared, ctx.over, ctx.shape, ctx.has_bias = shared, over, shape, bias is not None
        ctx.mark_non_differentiable(mean, variance, count)
        return out.to(given.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        given, weight, mean, scale, count = ctx.saved_tensors
        slope, shape = _widen(gradients[0]), ctx.shape
        if not ctx.shared.counts:
            slope = torch.zeros_like(slope)
        normal = (_widen(given) - mean.view(shape)) * scale.view(shape)
        own = torch.stack([slope.sum(ctx.over), (slope * normal).sum(ctx.over)])  # (2, C), of the bias and of the weight
        shared = own.clone()
        ctx.shared.sum_tensors([shared])
        towards_mean, towards_variance = (shared / count).unbind()
        inner = slope - towards_mean.view(shape) - normal * towards_variance.view(shape)
        factor = scale if weight is None else scale * weight
        inner = inner * factor.view(shape) if ctx.shared.counts else torch.zeros_like(inner)
        of_weight = None if weight is None else own[1].to(weight.dtype)
        return inner.to(given.dtype), of_weight, own[0] if ctx.has_bias else None, None, None


def _widen(x: Tensor) -> Tensor:
    """Half precision as float32: sums over a batch need its digits."""
    return x if x.dtype == torch.float64 else x.float()

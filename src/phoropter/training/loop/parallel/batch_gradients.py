"""Adds the gradient of a batch to the parameters': at once, in micro-batches where memory is short, or this process's share.

Each part is divided by what the whole batch is divided by, so that gradients of parts add up to that of the batch. Two things are
not the same in parts. Dropout draws for each part by itself. And batch norm in training takes the statistics of what it is given:
processes therefore share theirs (shared_batch_norm.py), and a network that has it is not cut where memory is short.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from phoropter.core.errors import RunError
from phoropter.core.seeds import seed_of
from phoropter.core.storage.checksums import print_notice
from phoropter.training.batches.loading import Batch
from phoropter.training.batches.parts import cut_batch
from phoropter.training.candidates.recipe import Recipe
from phoropter.training.loop.fatal_errors import MemoryWatch, is_out_of_memory
from phoropter.training.loop.label_losses import count_hits
from phoropter.training.loop.parallel.shared_batch_norm import SharedBatchNorm
from phoropter.training.loop.parallel.training_group import Standing, TrainingGroup
from phoropter.training.loop.precision import autocast_context

Objective = Callable[[Batch], tuple[torch.Tensor, torch.Tensor]]  # → loss (of a part: its share of the batch's), logits
SUM_NAMES = ("loss", "hits", "count")  # of an epoch: the losses of its rows, how many were right, and how many there were


class BatchGradients:
    """Computes gradients of batches, batch_size rows at most, by an objective.

    most_rows: of a micro-batch, once memory was short; 0: a batch, or this process's share of it, is computed at once
    """

    def __init__(
        self,
        model: torch.nn.Module,
        objective: Objective,
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
        scaler: torch.amp.GradScaler,
        group: TrainingGroup | None,
    ) -> None:
        self.model, self.objective, self.seed, self.device, self.dtype = model, objective, seed, device, dtype
        self.scaler, self.group = scaler, group
        self.most_rows = 0
        self._shortage: BaseException | None = None

    def add_batch(self, batch: Batch, epoch: int, index: int, of: int) -> torch.Tensor | None:
        """Adds 1/of of the gradient of batch number `index`; returns the (3,) SUM_NAMES of its rows that are computed here.

        None where memory was short, here or in another process: the gradients then hold a part of the batch, and are to be thrown
        away. Raises what the objective raises, RunError where another process failed.
        """
        self._shortage = None
        try:
            sums = self._add_parts(batch, epoch, index, of)
        except Exception as error:
            if self.group is not None and has_batch_statistics(self.model):  # the others wait in the middle of the network
                raise self.group.give_up(error) from error
            if not is_out_of_memory(error):
                raise
            self._shortage, sums = error.with_traceback(None), None  # whose frames hold the tensors
        if self.group is not None:
            standing = self.group.meet(Standing.FINE if sums is not None else Standing.SHORT_OF_MEMORY)
            return sums if standing is Standing.FINE else None
        return sums

    def halve_parts(self, batch_rows: int) -> None:
        """Lets later batches of at most `batch_rows` rows be computed in parts of half the rows, and says so once each time.

        Raises RunError, out of the shortage, where parts would not give the same gradients, and where one row is too much.
        """
        rows = self.most_rows or -(-batch_rows // (1 if self.group is None else self.group.size))
        MemoryWatch.release_memory()
        if rows == 1 or has_batch_statistics(self.model):
            why = "its batch norm needs the statistics of all of them" if rows > 1 else "no batch can be smaller"
            raise RunError(
                f"the memory does not suffice to train on {rows} rows at once, and {why}: say grad_checkpointing: true in the "
                "recipe, or lower batch_size, or size"
            ) from self._shortage
        self.most_rows = -(-rows // 2)
        print_notice(
            f"the memory does not suffice to train on {rows} rows at once: batches are computed in parts of {self.most_rows} "
            "rows, with the same gradients"
        )

    def _add_parts(self, batch: Batch, epoch: int, index: int, of: int) -> torch.Tensor:
        counts = self.group is None or len(batch.rows[self.group.find_share(len(batch.rows))]) > 0
        sums = torch.zeros(len(SUM_NAMES), dtype=choose_sum_dtype(self.device), device=self.device)
        for part in cut_batch(batch, self.most_rows):
            seed_step(self.seed, epoch, index, part.first_row)
            with self._share_statistics(counts):
                with autocast_context(self.device, self.dtype):
                    loss, logits = self.objective(part)
                # The mean over the accumulated batches
                self.scaler.scale((loss if counts else 0 * loss) / of).backward()  # type: ignore[no-untyped-call]
            if counts:
                sums += _sum_up(part, loss, logits)
        return sums

    def _share_statistics(self, counts: bool) -> AbstractContextManager[object]:
        if self.group is None:
            return nullcontext()
        return SharedBatchNorm(self.group.sum_tensors, self.group.rank, self.group.size, counts)


def has_batch_statistics(model: torch.nn.Module) -> bool:
    """Whether a row's answer depends on the rows beside it, by batch norm, in the mode the network is in."""
    return any(isinstance(m, _BatchNorm) and (m.training or m.running_mean is None) for m in model.modules())


def raise_on_unshared(model: torch.nn.Module, recipe: Recipe) -> None:
    """Raises RunError for a recipe that several processes cannot follow together."""
    if recipe.compile:
        raise RunError("several processes do not train a compiled network together: leave compile out, or use one process")
    if recipe.grad_checkpointing and any(isinstance(m, _BatchNorm) for m in model.modules()):
        raise RunError(
            "several processes that share the statistics of batch norm do not compute activations again: leave "
            "grad_checkpointing out, or use one process"
        )


def seed_step(seed: int, epoch: int, index: int, first_row: int = 0) -> None:
    """Seeds torch's generator for the batch of this number, as every run of this seed does. first_row: of a part of the batch"""
    torch.manual_seed(seed_of(seed, "step", epoch, index, *([first_row] if first_row else [])))


def choose_sum_dtype(device: torch.device) -> torch.dtype:
    """The type in which losses are summed up over an epoch: Apple's GPUs have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


@torch.no_grad()
def _sum_up(part: Batch, loss: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    hits = count_hits(logits, part.own_labels)
    losses = loss.detach() * len(part.rows)
    return torch.stack([losses, hits, torch.full_like(hits, len(part.own_labels))]).to(choose_sum_dtype(loss.device))

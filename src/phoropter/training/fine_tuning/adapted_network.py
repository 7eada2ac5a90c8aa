"""AdaptedNetwork: a classifier while it is trained: with adapters, less memory, or from what was kept of its frozen part.

Letters: B images, C classes.
"""

from __future__ import annotations

import torch

from phoropter.core.seeds import seed_of
from phoropter.models.classifier import Classifier
from phoropter.models.fine_tuning.grad_checkpointing import GradCheckpointing
from phoropter.models.fine_tuning.lora import LoraAdapter, attach_adapters
from phoropter.models.heads import Outputs
from phoropter.training.candidates.recipe import Recipe
from phoropter.training.fine_tuning.kept_prefix import KeptPrefix


class AdaptedNetwork:
    """`forward_batch` answers while it is trained; `end` leaves an ordinary network with the trained weights.

    prefix: the kept frozen part that batches begin with; None: they are pictures, or pooled features of a frozen candidate
    adapter_parameters: how many numbers of adapters are trained
    """

    def __init__(self, model: Classifier, recipe: Recipe, seed: int) -> None:
        """seed: of the split. Raises SpecError for a network without layers for adapters, or that keeps all activations."""
        trains_backbone = bool(recipe.phases) and not recipe.trains_head_alone
        self.model = model
        self.prefix: KeptPrefix | None = None
        self._adapters: list[LoraAdapter] = []
        if recipe.lora is not None and trains_backbone:
            for i, branch in enumerate(model.branches):
                lora, own_seed = recipe.lora, seed_of(seed, "lora", i)
                self._adapters += attach_adapters(branch, lora.rank, lora.alpha, lora.layers, own_seed)
        self.adapter_parameters = sum(adapter.parameter_count for adapter in self._adapters)
        self._checkpointing = GradCheckpointing(model.branches) if recipe.grad_checkpointing and trains_backbone else None
        # Only the network is compiled: the loss is small, and a Loss of the user's own need not be traceable
        self._forward = torch.compile(model.forward_outputs) if recipe.compile else model.forward_outputs

    def forward_batch(self, inputs: torch.Tensor | tuple[torch.Tensor, ...]) -> Outputs:
        """(B, 3, S, S) pictures, or what was kept of each branch → (B, C) logits and what else the head says."""
        if isinstance(inputs, tuple):
            return self.model.forward_head(inputs) if self.prefix is None else self.prefix.forward_outputs(self.model, inputs)
        if self._checkpointing is None:
            return self._forward(inputs)
        with self._checkpointing.record_statistics():
            return self._forward(inputs)

    def end(self) -> None:
        """Merges the adapters into the weights, and lets the network keep its activations again."""
        for adapter in self._adapters:
            adapter.merge()
        if self._checkpointing is not None:
            self._checkpointing.end()

"""The features that batched heads train on: extracted from their frozen backbones, and held in memory for a step to gather.

Letters: L schedules (batch_schedule), U rows of a window, D_i width of branch i.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phoropter.models.classifier import Classifier
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.feature_cache import CachedFeatures, extract_features
from phoropter.training.fit import TrainingTask, build_model, training_features


@dataclass(frozen=True, eq=False)
class FrozenFeatures:
    """The features of one set of frozen backbones, and the tasks that train on them.

    task_indices: which of the tasks · model: the network · features: of the unaugmented images · identities: of its backbones
    training_features: what heads train on, epoch by epoch, in a cycle: `features`, or those of the recipe's cached views
    """

    task_indices: list[int]
    model: Classifier
    features: CachedFeatures
    identities: tuple[str, ...]
    training_features: tuple[CachedFeatures, ...]


def extract_for_tasks(tasks: Sequence[TrainingTask]) -> list[FrozenFeatures]:
    """The frozen features of tasks of one candidate, computed where they are not cached.

    Random backbones and cached views are functions of the seed, so there is an entry for each seed; else one for all tasks.
    """
    by_seed: dict[int, list[int]] = defaultdict(list)
    for i, task in enumerate(tasks):
        by_seed[task.split.seed if _has_random_backbone(task.candidate) or task.candidate.recipe.n_cached_views else 0].append(i)
    extracted: list[FrozenFeatures] = []
    for indices in by_seed.values():
        task = tasks[indices[0]]
        if extracted and not _has_random_backbone(task.candidate):
            model, identities, features = extracted[0].model, extracted[0].identities, extracted[0].features
        else:
            model = build_model(task)
            model.freeze("head")
            identities = tuple(b.identity for b in model.branches)
            kept = task.candidate.recipe.feature_format
            features = extract_features(model, task.pixels, task.cache, task.device, task.progress, identities, *kept)
        trained_on = training_features(task, model, features, identities)
        extracted.append(FrozenFeatures(indices, model, features, identities, trained_on))
    return extracted


def _has_random_backbone(candidate: Candidate) -> bool:
    return any(b.depends_on_seed for b in candidate.backbones)


class FeatureTable:
    """The features that the runs train on, in memory once for each set of backbones and one view at a time."""

    def __init__(self, frozen: Sequence[FrozenFeatures], tasks: Sequence[TrainingTask]) -> None:
        """frozen: what each of the L schedules reads · tasks: of all their runs, on one dataset."""
        self.device, dataset = tasks[0].device, tasks[0].dataset
        self.rows = np.unique(np.concatenate([task.split.train for task in tasks]))
        self.row_positions = np.full(len(dataset), -1, dtype=np.int64)
        self.row_positions[self.rows] = np.arange(len(self.rows))
        self.labels = torch.from_numpy(dataset.labels).to(self.device)
        tables = {id(one): one.training_features for one in frozen}
        begins = {name: number * len(self.rows) for number, name in enumerate(tables)}
        self.table_offsets = np.array([begins[id(one)] for one in frozen])[:, None]  # (L, 1) where each schedule's table begins
        self.tables = list(tables.values())
        self.view_count = len(self.tables[0])
        self.current_view = -1
        self.branch_features: tuple[Tensor, ...] = ()

    def load_view(self, epoch: int) -> None:
        """Replaces the view in memory by that of the epoch; the old one is freed first."""
        if epoch % self.view_count == self.current_view:
            return
        self.current_view, self.branch_features = epoch % self.view_count, ()
        self.branch_features = tuple(
            torch.from_numpy(np.concatenate([np.asarray(f[self.rows], dtype=np.float32) for f in each])).to(self.device)
            for each in zip(*(views[self.current_view] for views in self.tables), strict=True)
        )

    def gather_rows(self, rows: NDArray[np.int64]) -> tuple[tuple[Tensor, ...], Tensor]:
        """(L, U) rows → (L, U, D_i) features of each branch, (L, U) labels."""
        shape = rows.shape
        positions = torch.from_numpy((self.row_positions[rows] + self.table_offsets).ravel()).to(self.device)
        labels = self.labels[torch.from_numpy(rows).to(self.device)]
        return tuple(b.index_select(0, positions).view(*shape, -1) for b in self.branch_features), labels

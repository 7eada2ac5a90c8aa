"""KeptPrefix: the frozen part of a network whose last blocks are trained, computed once for each picture and kept in the cache.

An entry is keyed as features are, by pixels, weights, side, crop and view, and by the block where it ends. All folds and seeds
share it.

Letters: B images, N images of a dataset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phoropter.core.files import require_space
from phoropter.data.images.pixels import Pixels
from phoropter.models.classifier import Classifier
from phoropter.models.fine_tuning.last_blocks import SplitBackbone, split_backbone
from phoropter.models.heads import Outputs
from phoropter.training.array_cache import CachedArray, ProgressFunction
from phoropter.training.batches.loading import PixelLoader
from phoropter.training.candidates.recipe import Recipe
from phoropter.training.feature_cache import (
    CachedFeatures,
    feature_entry_key,
    identify_views,
    load_or_extract_rows,
    load_view_images,
    share_progress,
)

# What is kept of a study's pictures, for each view and branch. Above it the frozen part is computed in every epoch: whether it is
# must not depend on the disk, since the sums of a convolution may differ in the last bit with the size of its batch.
MAX_KEPT_BYTES = 16 * 2**30


@dataclass(frozen=True, eq=False)
class KeptPrefix:
    """splits: each branch in two parts · views: of each view what reaches the second parts, (N, …) a branch, memory-mapped"""

    splits: tuple[SplitBackbone, ...]
    views: tuple[CachedFeatures, ...]

    def forward_outputs(self, model: Classifier, reached: Sequence[torch.Tensor]) -> Outputs:
        """(B, …) of each branch → what the classifier answers."""
        return model.forward_head(tuple(split.forward_trained(x) for split, x in zip(self.splits, reached, strict=True)))


def keep_prefix(
    model: Classifier,
    recipe: Recipe,
    loader: PixelLoader,
    cache: Path,
    progress: ProgressFunction | None,
    identities: Sequence[str],
) -> KeptPrefix | None:
    """The frozen part of a model under a recipe, computed for all pictures of the loader unless it is in the cache.

    identities: of the backbones, before training. None where it is computed in every epoch: nothing is frozen in all phases, the
    pictures of an epoch are new ones, a network is compiled or its activations are computed again, its parts are not one behind
    the other, or it would take more than MAX_KEPT_BYTES. Raises DiskError before anything is computed.
    """
    if not can_keep_prefix(recipe):
        return None
    found = [split_backbone(branch, recipe.kept_blocks or 0) for branch in model.branches]
    splits = tuple(split for split in found if split is not None)
    if len(splits) < len(found):
        return None
    count, branches = recipe.n_cached_views or 1, list(zip(identities, splits, strict=True))
    made = [
        [_make_array(model, i, identity, split, loader.pixels, cache, view) for i, (identity, split) in enumerate(branches)]
        for view in identify_views(loader, count)
    ]
    arrays = [array for view in made for array in view]
    if any(array.nbytes > MAX_KEPT_BYTES for array in arrays):
        return None
    require_space(cache, sum(a.nbytes for a in arrays if not a.is_complete), "keeping what the frozen part of a network says")
    report = share_progress(progress, arrays)
    model.eval()

    def load_or_compute(view: int, branch: int) -> NDArray[np.float32]:
        split, array = splits[branch], made[view][branch]

        def run_frozen(images: torch.Tensor) -> torch.Tensor:
            return split.forward_frozen(model.preprocess_pictures(images, branch))

        load_images, side = partial(load_view_images, loader, view), split.backbone.side
        return load_or_extract_rows(array, run_frozen, load_images, side, loader.device, report(array))

    views = tuple(tuple(load_or_compute(view, branch) for branch in range(len(splits))) for view in range(count))
    return KeptPrefix(splits, views)


def can_keep_prefix(recipe: Recipe) -> bool:
    """Whether what is frozen is frozen in all phases, and sees the same pictures in every epoch or cycle of views."""
    same_pictures = not recipe.augment or recipe.cached_views is not None
    return bool(recipe.kept_blocks) and same_pictures and not recipe.compile and not recipe.grad_checkpointing


def _make_array(
    model: Classifier, branch: int, identity: str, split: SplitBackbone, pixels: Pixels, cache: Path, view: Any
) -> CachedArray:
    return CachedArray(
        cache / "features" / feature_entry_key(model, branch, identity, pixels, view=view, more=("before", split.entry_name)),
        "features.npy",
        (len(pixels), *split.entry_shape),
        "float32",
        f"what {split.backbone.name} says before {split.entry_name}",
    )

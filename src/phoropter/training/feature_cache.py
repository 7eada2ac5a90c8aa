"""A frozen network's outputs over a dataset, once: each picture passes each frozen backbone one time for the whole study.

An entry is keyed by what made it: the pixels, the backbone's weights and the view: the clean one, or one of the fixed views of a
recipe that augments (the draw of an epoch's number), each of which is an entry of its own. It is written in blocks; a killed
pass goes on at the last whole block that was noted; a finished one is renamed into place and memory-mapped by everyone. A
teacher's answers (teacher.py) are kept by the same hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phoropter.core.files import digest, digest_array, require_space, write_json
from phoropter.data.images.pixels import Pixels
from phoropter.models.classifier import Classifier
from phoropter.models.spec import BackboneSpec
from phoropter.training.array_cache import CachedArray, ProgressFunction
from phoropter.training.batches.gpu_pixels import load_pictures_on_device
from phoropter.training.batches.loading import PixelLoader
from phoropter.training.malloc import tune_malloc

NUMERICS = 1  # raise when the numbers of a feature pass change
BLOCK_ROWS = 256

CachedFeatures = tuple[NDArray[np.float32], ...]  # (N, D) of each branch, memory-mapped


def extract_features(
    model: Classifier,
    pixels: Pixels,
    cache: Path,
    device: torch.device,
    progress: ProgressFunction | None = None,
    identities: Sequence[str] | None = None,
    dtype: str = "float32",
) -> CachedFeatures:
    """The model's backbones over all N pictures → (N, D) for each branch, memory-mapped, computed where not there yet.

    dtype: float32 or float16, as they are stored and given
    identities: of the backbones, where they are known already (a digest of all weights takes a while)
    """
    known = identities or tuple(b.identity for b in model.branches)
    wanted = [_make_feature_array(model, i, name, pixels, cache, dtype, "clean") for i, name in enumerate(known)]
    found = tuple(
        _load_or_extract_branch(model, i, one, len(pixels), lambda rows: load_pictures_on_device(pixels, rows, device), progress)
        for i, one in enumerate(wanted)
    )
    for one, backbone in zip(wanted, model.spec.backbones, strict=True):
        _write_about_file(one.folder, pixels, backbone)
    return found


def extract_cached_views(
    model: Classifier,
    tap: PixelLoader,
    count: int,
    cache: Path,
    progress: ProgressFunction | None,
    identities: Sequence[str],
    dtype: str = "float32",
) -> tuple[CachedFeatures, ...]:
    """As `frozen_features` for each of the first `count` fixed views, which the tap shows in epochs 0 to count − 1.

    The tap's augmentation must not depend on the batch. Raises DiskError before the first view is asked for.
    """
    assert tap.augmentation is not None and not tap.augmentation.depends_on_batch
    drawn, hashes, total = tap.augmentation.identity(), digest_array(tap.dataset.hashed_ids), len(tap.pixels)
    views = [
        [
            _make_feature_array(model, i, name, tap.pixels, cache, dtype, [drawn, hashes, view])
            for i, name in enumerate(identities)
        ]
        for view in range(count)
    ]
    missing = [one for branches in views for one in branches if not one.is_complete]
    require_space(cache, sum(one.nbytes for one in missing), f"keeping the features of {count} fixed views")

    def load_view_pictures(view: int, rows: NDArray[np.int64]) -> torch.Tensor:
        pictures = tap.batch(rows, view, 0).inputs
        assert isinstance(pictures, torch.Tensor)
        return pictures

    def report_progress(before: int, done: int, of: int) -> None:
        if progress:
            progress(before * total + done, len(missing) * total)

    return tuple(
        tuple(
            _load_or_extract_branch(
                model,
                i,
                one,
                total,
                partial(load_view_pictures, view),
                partial(report_progress, missing.index(one) if one in missing else 0),
            )
            for i, one in enumerate(branches)
        )
        for view, branches in enumerate(views)
    )


def feature_entry_key(
    model: Classifier, branch: int, identity: str, pixels: Pixels, dtype: str = "float32", view: Any = "clean"
) -> str:
    """The name of a branch's entry: a digest of pixels, weights, size, crop and view, and of the type where it is not float32."""
    narrow = [] if dtype == "float32" else [dtype]
    return digest([pixels.identity, identity, model.branches[branch].side, model.spec.crop, view, NUMERICS, *narrow])


def _make_feature_array(
    model: Classifier, branch: int, identity: str, pixels: Pixels, cache: Path, dtype: str, view: Any
) -> CachedArray:
    return CachedArray(
        cache / "features" / feature_entry_key(model, branch, identity, pixels, dtype, view),
        "features.npy",
        (len(pixels), model.branches[branch].num_features),
        dtype,
        f"the features of {model.spec.backbones[branch].name}",
    )


def _load_or_extract_branch(
    model: Classifier,
    branch: int,
    wanted: CachedArray,
    count: int,
    pictures_of: Callable[[NDArray[np.int64]], torch.Tensor],
    progress: ProgressFunction | None,
) -> NDArray[np.float32]:
    """(N, D) of one branch over the pictures that `pictures_of` gives for rows, from where they are stored."""

    def extract_rows(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        pictures = pictures_of(rows)
        with torch.inference_mode():
            made = model.forward_features(pictures, only=branch)[0].float()
        if wanted.dtype == "float16":
            made = made.clamp(-65504, 65504).half()
        stored: NDArray[np.float32] = made.cpu().numpy()
        return stored

    tune_malloc()
    model.eval()
    blocks = [np.arange(start, min(start + BLOCK_ROWS, count), dtype=np.int64) for start in range(0, count, BLOCK_ROWS)]
    return wanted.load_or_compute([len(b) for b in blocks], lambda i: extract_rows(blocks[i]), progress)


def _write_about_file(folder: Path, pixels: Pixels, backbone: BackboneSpec) -> None:
    """Whose features of which pictures these are, for those who look for copies among them without torch (study/audit.py)."""
    if not (folder / "about.json").exists():
        write_json(folder / "about.json", {"pixels": pixels.identity, "backbone": backbone.name, "weights": backbone.weights})

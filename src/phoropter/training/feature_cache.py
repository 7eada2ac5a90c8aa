"""The features of frozen backbones over a dataset, computed once for a whole study and cached.

An entry is keyed by what made it: the pixels, the backbone's weights and the view, which is the unaugmented image or one of the
recipe's cached views (the augmentation draw of one epoch). A killed pass resumes at the last block noted, and all processes
memory-map a complete entry, once its checksums were compared (array_cache.py). What a pass took is kept with what it left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cache as call_once
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phoropter.core.files import digest, digest_array, require_space
from phoropter.data.images.pixels import Pixels
from phoropter.models.classifier import Classifier
from phoropter.models.inference.folded_norms import fold_norms
from phoropter.models.inference.onnx_branch import make_onnx_branch
from phoropter.training.array_cache import CachedArray, FeatureEntryInfo, ProgressFunction, write_entry_info
from phoropter.training.batches.gpu_pixels import load_pictures_on_device
from phoropter.training.batches.loading import PixelLoader
from phoropter.training.candidates.recipe import FeatureEngine
from phoropter.training.costs.inference_batch import choose_inference_batch
from phoropter.training.costs.pass_cost import PassCost, read_pass_cost, write_pass_cost
from phoropter.training.costs.peak_memory import PeakMemory
from phoropter.training.malloc import tune_malloc

NUMERICS = 3  # raise when the numbers of a feature pass change

BranchNetwork = Callable[[torch.Tensor], torch.Tensor]
CachedFeatures = tuple[NDArray[np.float32], ...]  # (N, D) of each branch, memory-mapped


def extract_features(
    model: Classifier,
    pixels: Pixels,
    cache: Path,
    device: torch.device,
    progress: ProgressFunction | None = None,
    identities: Sequence[str] | None = None,
    dtype: str = "float32",
    engine: FeatureEngine = "torch",
) -> CachedFeatures:
    """(N, D) features of all N images for each branch, memory-mapped; what is not cached is computed.

    dtype:      float32 or float16, in which they are stored and returned
    identities: of the backbones, where they are known already: hashing all weights takes seconds
    engine:     what computes them; raises what `make_branch_network` raises, where any are computed
    """
    known = identities or tuple(b.identity for b in model.branches)
    arrays = [_make_feature_array(model, i, identity, pixels, cache, dtype, "clean", engine) for i, identity in enumerate(known)]

    def load_images(rows: NDArray[np.int64]) -> torch.Tensor:
        return load_pictures_on_device(pixels, rows, device)

    report = share_progress(progress, arrays)
    networks = _make_when_asked(model, engine)
    features = tuple(
        _load_or_extract_branch(model, i, array, load_images, report(array), networks[i]) for i, array in enumerate(arrays)
    )
    for array, backbone in zip(arrays, model.spec.backbones, strict=True):
        about = {"pixels": pixels.identity, "backbone": backbone.name, "weights": backbone.weights}
        write_entry_info(array.folder, FeatureEntryInfo(**about, dtype=dtype, engine=engine))
    return features


def extract_cached_views(
    model: Classifier,
    loader: PixelLoader,
    count: int,
    cache: Path,
    progress: ProgressFunction | None,
    identities: Sequence[str],
    dtype: str = "float32",
    engine: FeatureEngine = "torch",
) -> tuple[CachedFeatures, ...]:
    """As `extract_features`, for each of `count` augmented views: those that the loader shows in epochs 0 to count − 1.

    Its augmentation must not depend on the batch. Raises DiskError before the first view is computed.
    """
    assert loader.augmentation is not None and not loader.augmentation.depends_on_batch
    views = [
        [_make_feature_array(model, i, name, loader.pixels, cache, dtype, view, engine) for i, name in enumerate(identities)]
        for view in identify_views(loader, count)
    ]
    arrays = [array for branches in views for array in branches]
    missing_bytes = sum(array.nbytes for array in arrays if not array.is_complete)
    require_space(cache, missing_bytes, f"keeping the features of {count} cached views")

    report, networks = share_progress(progress, arrays), _make_when_asked(model, engine)

    def load_or_extract(view: int, branch: int) -> NDArray[np.float32]:
        array = views[view][branch]
        show = partial(load_view_images, loader, view)
        return _load_or_extract_branch(model, branch, array, show, report(array), networks[branch])

    return tuple(tuple(load_or_extract(view, branch) for branch in range(len(identities))) for view in range(count))


def identify_views(loader: PixelLoader, count: int) -> list[Any]:
    """What decides the images of each of `count` views, as entries are keyed by it; `clean` where nothing is augmented."""
    if loader.augmentation is None:
        return ["clean"] * count
    augmentation, ids = loader.augmentation.identity(), digest_array(loader.dataset.hashed_ids)
    return [[augmentation, ids, view] for view in range(count)]


def load_view_images(loader: PixelLoader, view: int, rows: NDArray[np.int64]) -> torch.Tensor:
    """(B,) rows → (B, 3, S, S) as the loader shows them in epoch `view`, on its device."""
    images = loader.batch(rows, view, 0).inputs
    assert isinstance(images, torch.Tensor)
    return images


def share_progress(
    progress: ProgressFunction | None, arrays: Sequence[CachedArray]
) -> Callable[[CachedArray], ProgressFunction | None]:
    """One progress for all arrays that must be computed: each counts on behind those before it, and the total is that of all."""
    missing = [array for array in arrays if not array.is_complete]

    def report_on(array: CachedArray) -> ProgressFunction | None:
        if progress is None or array not in missing:
            return progress
        before = missing.index(array)
        return lambda done, total: progress(before * total + done, len(missing) * total)

    return report_on


def feature_entry_key(
    model: Classifier,
    branch: int,
    identity: str,
    pixels: Pixels,
    dtype: str = "float32",
    view: Any = "clean",
    more: Sequence[str] = (),
) -> str:
    """The folder name of a branch's entry: a digest of pixels, weights, size, crop and view, and of the dtype if not float32.

    more: what else tells it from the entry of the whole branch as torch computes it
    """
    more = [*([] if dtype == "float32" else [dtype]), *more]
    return digest([pixels.identity, identity, model.branches[branch].side, model.spec.center_crop, view, NUMERICS, *more])


def _make_feature_array(
    model: Classifier, branch: int, identity: str, pixels: Pixels, cache: Path, dtype: str, view: Any, engine: FeatureEngine
) -> CachedArray:
    more = () if engine == "torch" else (engine,)
    return CachedArray(
        cache / "features" / feature_entry_key(model, branch, identity, pixels, dtype, view, more),
        "features.npy",
        (len(pixels), model.branches[branch].num_features),
        dtype,
        f"the features of {model.spec.backbones[branch].name}",
    )


def _load_or_extract_branch(
    model: Classifier,
    branch: int,
    array: CachedArray,
    load_images: Callable[[NDArray[np.int64]], torch.Tensor],
    progress: ProgressFunction | None,
    make_network: Callable[[], BranchNetwork],
) -> NDArray[np.float32]:
    """(N, D) features of one branch, from the cache or computed. load_images: (B,) rows → (B, 3, S, S) uint8 on the device"""

    def run_network(images: torch.Tensor) -> torch.Tensor:
        return make_network()(images)

    model.eval()
    device = next(model.parameters()).device
    return load_or_extract_rows(array, run_network, load_images, model.branches[branch].side, device, progress, make_network)


def _make_when_asked(model: Classifier, engine: FeatureEngine) -> list[Callable[[], BranchNetwork]]:
    """Of each branch what makes its network, once, when the first batch of a pass is computed."""
    return [call_once(partial(make_branch_network, model, i, engine)) for i in range(len(model.branches))]


def make_branch_network(model: Classifier, branch: int, engine: FeatureEngine) -> BranchNetwork:
    """What computes the features of one frozen branch: (B, 3, S, S) uint8 on the model's device → (B, D) float32.

    engine: onnxruntime only of a model on the processor. Raises what `make_onnx_branch` raises.
    """
    if engine == "torch":
        folded = fold_norms(model, branch)
        return lambda images: folded.forward_features(images, only=branch)[0]
    run_branch = make_onnx_branch(model.branches[branch])
    return lambda images: run_branch(model.preprocess_pictures(images, branch))


class _PassClock:
    """What a pass takes here: once to get its network ready, and for each block of images."""

    def __init__(self, get_ready: Callable[[], object], extract_rows: Callable[[NDArray[np.int64]], NDArray[np.float32]]) -> None:
        self.get_ready, self.extract_rows = get_ready, extract_rows
        self.setup_seconds: float | None = None  # none before the first block
        self.block_seconds, self.images = 0.0, 0

    def time_block(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        began = time.perf_counter()
        if self.setup_seconds is None:
            self.get_ready()
            ready = time.perf_counter()
            self.setup_seconds, began = ready - began, ready
        block = self.extract_rows(rows)
        self.block_seconds += time.perf_counter() - began
        self.images += len(rows)
        return block

    def scale_to(self, count: int) -> float:
        """Seconds of a pass over so many images, of which some may have been computed before."""
        return (self.setup_seconds or 0.0) + self.block_seconds * count / self.images


def load_or_extract_rows(
    array: CachedArray,
    run_network: Callable[[torch.Tensor], torch.Tensor],
    load_images: Callable[[NDArray[np.int64]], torch.Tensor],
    side: int,
    device: torch.device,
    progress: ProgressFunction | None,
    get_ready: Callable[[], object] = lambda: None,
) -> NDArray[np.float32]:
    """(N, …) what a frozen network says of each image, from the cache or computed in batches, and what the pass took beside it.

    run_network: (B, 3, S, S) → (B, …) · load_images: (B,) rows → (B, 3, S, S) uint8 on the device · side: of the network's input
    get_ready: what `run_network` needs before its first batch; its seconds are counted once, whatever was in the cache already
    """

    def extract_rows(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        images = load_images(rows)
        with torch.inference_mode():
            features = run_network(images).float()
        if array.dtype == "float16":
            features = features.clamp(-65504, 65504).half()
        block: NDArray[np.float32] = features.cpu().numpy()
        return block

    tune_malloc()
    count = array.shape[0]
    size = choose_inference_batch(side, device.type)
    blocks = [np.arange(start, min(start + size, count), dtype=np.int64) for start in range(0, count, size)]
    clock = _PassClock(get_ready, extract_rows)

    def extract_block(number: int) -> NDArray[np.float32]:
        return clock.time_block(blocks[number])

    with PeakMemory(device, trim=not array.folder.exists()) as peak:
        features = array.load_or_compute([len(b) for b in blocks], extract_block, progress)
        if not clock.images and read_pass_cost(array.folder) is None:
            extract_block(0)  # what the pass took was lost: the first block tells
    if clock.images:
        spent = {"seconds": clock.scale_to(count), "setup_seconds": clock.setup_seconds or 0.0}
        cost = PassCost(**spent, images=count, batch=size, peak_memory_bytes=peak.bytes, device=device.type)
        write_pass_cost(array.folder, cost)
    return features

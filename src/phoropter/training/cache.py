"""A frozen network's outputs over a dataset, once: each picture passes each frozen backbone one time for the whole study.

An entry is keyed by what made it: the pixels, the backbone's weights and the view: the clean one, or one of the fixed views of a
recipe that augments (the draw of an epoch's number), each of which is an entry of its own. It is written in blocks; a killed
pass goes on at the last whole block that was noted; a finished one is renamed into place and memory-mapped by everyone. A
teacher's answers (teacher.py) are kept by the same hand.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from phoropter.core.files import digest, digest_array, file_lock, require_space, write_json
from phoropter.data.pixels import Pixels
from phoropter.models.classifier import Classifier
from phoropter.models.spec import BackboneSpec
from phoropter.training.batches import PixelLoader
from phoropter.training.memory import tune_malloc
from phoropter.training.resident import load_pictures_on_device

NUMERICS = 1  # raise when the numbers of a feature pass change
BLOCK_ROWS = 256
CHECKPOINT_BLOCKS = 16  # blocks after which it is noted how far a pass has come
CHECKPOINT_INTERVAL_S = 0.1  # or so many seconds, if that is sooner: what a kill may cost

ProgressFunction = Callable[[int, int], None]
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


@dataclass(frozen=True)
class CachedArray:
    """An array that is in the cache whole or not at all.

    folder: of the entry; `file` lies in it · what: in words, for the message when the disk is too small
    """

    folder: Path
    file_name: str
    shape: tuple[int, ...]
    dtype: str
    description: str

    @property
    def is_complete(self) -> bool:
        return self.folder.exists()

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def load_or_compute(
        self, blocks: Sequence[int], compute: Callable[[int], NDArray[Any]], progress: ProgressFunction | None = None
    ) -> NDArray[Any]:
        """The array, memory-mapped; where it is not there yet `compute(i)` gives block i of so many rows, in order.

        Two processes never compute the same array; the second waits. Raises DiskError before anything is computed.
        """
        if not self.is_complete:
            with file_lock(self.folder.with_name(self.folder.name + ".lock")):
                if not self.is_complete:
                    self._compute_blocks(blocks, compute, progress)
        stored: NDArray[Any] = np.load(self.folder / self.file_name, mmap_mode="r", allow_pickle=False)
        return stored

    def _compute_blocks(
        self, blocks: Sequence[int], compute: Callable[[int], NDArray[Any]], progress: ProgressFunction | None
    ) -> None:
        require_space(self.folder.parent, self.nbytes, self.description)
        aside = self.folder.with_name(f"{self.folder.name}.part")
        done = self._count_resumed_rows(aside)
        aside.mkdir(parents=True, exist_ok=True)
        file, total = aside / self.file_name, self.shape[0]
        stored = open_memmap(file, mode="r+") if done else open_memmap(file, mode="w+", dtype=self.dtype, shape=self.shape)
        start = 0
        noted = time.monotonic()
        for i, rows in enumerate(blocks):
            if start >= done:
                stored[start : start + rows] = compute(i)
                if i % CHECKPOINT_BLOCKS == CHECKPOINT_BLOCKS - 1 or time.monotonic() - noted >= CHECKPOINT_INTERVAL_S:
                    stored.flush()
                    write_json(aside / "done.json", {"rows": start + rows})
                    noted = time.monotonic()
                if progress:
                    progress(start + rows, total)
            start += rows
        stored.flush()
        (aside / "done.json").unlink(missing_ok=True)
        aside.rename(self.folder)

    def _count_resumed_rows(self, aside: Path) -> int:
        """How many rows an interrupted pass left behind; a partial file of another shape is removed."""
        try:
            done = int(json.loads((aside / "done.json").read_text())["rows"])
            left = np.load(aside / self.file_name, mmap_mode="r", allow_pickle=False)
            if left.shape == self.shape and left.dtype == np.dtype(self.dtype):
                return done
        except (OSError, ValueError, KeyError, TypeError):
            pass
        shutil.rmtree(aside, ignore_errors=True)
        return 0

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

from phoropter.core.files import digest, digest_array, lock, require_space, write_json
from phoropter.data.pixels import Pixels
from phoropter.models.classifier import Classifier
from phoropter.models.spec import BackboneSpec
from phoropter.training.batches import PixelTap
from phoropter.training.memory import keep_memory
from phoropter.training.resident import pictures_on

NUMERICS = 1  # raise when the numbers of a feature pass change
CHUNK = 256
NOTED = 16  # blocks after which it is noted how far a pass has come
NOTED_S = 0.1  # or so many seconds, if that is sooner: what a kill may cost

Progress = Callable[[int, int], None]
Features = tuple[NDArray[np.float32], ...]  # (N, D) of each branch, memory-mapped


def frozen_features(
    model: Classifier,
    pixels: Pixels,
    cache: Path,
    device: torch.device,
    progress: Progress | None = None,
    identities: Sequence[str] | None = None,
    dtype: str = "float32",
) -> Features:
    """The model's backbones over all N pictures → (N, D) for each branch, memory-mapped, computed where not there yet.

    dtype: float32 or float16, as they are stored and given
    identities: of the backbones, where they are known already (a digest of all weights takes a while)
    """
    known = identities or tuple(b.identity for b in model.branches)
    wanted = [_wanted(model, i, name, pixels, cache, dtype, "clean") for i, name in enumerate(known)]
    found = tuple(
        _branch(model, i, one, len(pixels), lambda rows: pictures_on(pixels, rows, device), progress)
        for i, one in enumerate(wanted)
    )
    for one, backbone in zip(wanted, model.spec.backbones, strict=True):
        _describe(one.folder, pixels, backbone)
    return found


def fixed_views(
    model: Classifier,
    tap: PixelTap,
    count: int,
    cache: Path,
    progress: Progress | None,
    identities: Sequence[str],
    dtype: str = "float32",
) -> tuple[Features, ...]:
    """As `frozen_features` for each of the first `count` fixed views, which the tap shows in epochs 0 to count − 1.

    The tap's augmentation must not depend on the batch. Raises DiskError before the first view is asked for.
    """
    assert tap.augmentation is not None and not tap.augmentation.bound
    drawn, hashes, total = tap.augmentation.identity(), digest_array(tap.dataset.hashes), len(tap.pixels)
    views = [
        [_wanted(model, i, name, tap.pixels, cache, dtype, [drawn, hashes, view]) for i, name in enumerate(identities)]
        for view in range(count)
    ]
    missing = [one for branches in views for one in branches if not one.there]
    require_space(cache, sum(one.bytes for one in missing), f"keeping the features of {count} fixed views")

    def shown(view: int, rows: NDArray[np.int64]) -> torch.Tensor:
        pictures = tap.batch(rows, view, 0).inputs
        assert isinstance(pictures, torch.Tensor)
        return pictures

    def told(before: int, done: int, of: int) -> None:
        if progress:
            progress(before * total + done, len(missing) * total)

    return tuple(
        tuple(
            _branch(model, i, one, total, partial(shown, view), partial(told, missing.index(one) if one in missing else 0))
            for i, one in enumerate(branches)
        )
        for view, branches in enumerate(views)
    )


def entry(model: Classifier, branch: int, identity: str, pixels: Pixels, dtype: str = "float32", view: Any = "clean") -> str:
    """The name of a branch's entry: a digest of pixels, weights, size, crop and view, and of the type where it is not float32."""
    narrow = [] if dtype == "float32" else [dtype]
    return digest([pixels.identity, identity, model.branches[branch].side, model.spec.crop, view, NUMERICS, *narrow])


def _wanted(model: Classifier, branch: int, identity: str, pixels: Pixels, cache: Path, dtype: str, view: Any) -> Stored:
    return Stored(
        cache / "features" / entry(model, branch, identity, pixels, dtype, view),
        "features.npy",
        (len(pixels), model.branches[branch].width),
        dtype,
        f"the features of {model.spec.backbones[branch].name}",
    )


def _branch(
    model: Classifier,
    branch: int,
    wanted: Stored,
    count: int,
    pictures_of: Callable[[NDArray[np.int64]], torch.Tensor],
    progress: Progress | None,
) -> NDArray[np.float32]:
    """(N, D) of one branch over the pictures that `pictures_of` gives for rows, from where they are stored."""

    def features(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        pictures = pictures_of(rows)
        with torch.inference_mode():
            made = model.features(pictures, only=branch)[0].float()
        if wanted.dtype == "float16":
            made = made.clamp(-65504, 65504).half()
        stored: NDArray[np.float32] = made.cpu().numpy()
        return stored

    keep_memory()
    model.eval()
    blocks = [np.arange(start, min(start + CHUNK, count), dtype=np.int64) for start in range(0, count, CHUNK)]
    return wanted.get([len(b) for b in blocks], lambda i: features(blocks[i]), progress)


def _describe(folder: Path, pixels: Pixels, backbone: BackboneSpec) -> None:
    """Whose features of which pictures these are, for those who look for copies among them without torch (study/audit.py)."""
    if not (folder / "about.json").exists():
        write_json(folder / "about.json", {"pixels": pixels.identity, "backbone": backbone.name, "weights": backbone.weights})


@dataclass(frozen=True)
class Stored:
    """An array that is in the cache whole or not at all.

    folder: of the entry; `file` lies in it · what: in words, for the message when the disk is too small
    """

    folder: Path
    file: str
    shape: tuple[int, ...]
    dtype: str
    what: str

    @property
    def there(self) -> bool:
        return self.folder.exists()

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def get(
        self, blocks: Sequence[int], compute: Callable[[int], NDArray[Any]], progress: Progress | None = None
    ) -> NDArray[Any]:
        """The array, memory-mapped; where it is not there yet `compute(i)` gives block i of so many rows, in order.

        Two processes never compute the same array; the second waits. Raises DiskError before anything is computed.
        """
        if not self.there:
            with lock(self.folder.with_name(self.folder.name + ".lock")):
                if not self.there:
                    self._compute(blocks, compute, progress)
        stored: NDArray[Any] = np.load(self.folder / self.file, mmap_mode="r", allow_pickle=False)
        return stored

    def _compute(self, blocks: Sequence[int], compute: Callable[[int], NDArray[Any]], progress: Progress | None) -> None:
        require_space(self.folder.parent, self.bytes, self.what)
        aside = self.folder.with_name(f"{self.folder.name}.part")
        done = self._resumed(aside)
        aside.mkdir(parents=True, exist_ok=True)
        file, total = aside / self.file, self.shape[0]
        stored = open_memmap(file, mode="r+") if done else open_memmap(file, mode="w+", dtype=self.dtype, shape=self.shape)
        start = 0
        noted = time.monotonic()
        for i, rows in enumerate(blocks):
            if start >= done:
                stored[start : start + rows] = compute(i)
                if i % NOTED == NOTED - 1 or time.monotonic() - noted >= NOTED_S:
                    stored.flush()
                    write_json(aside / "done.json", {"rows": start + rows})
                    noted = time.monotonic()
                if progress:
                    progress(start + rows, total)
            start += rows
        stored.flush()
        (aside / "done.json").unlink(missing_ok=True)
        aside.rename(self.folder)

    def _resumed(self, aside: Path) -> int:
        """How many rows an interrupted pass left behind; a partial file of another shape is removed."""
        try:
            done = int(json.loads((aside / "done.json").read_text())["rows"])
            left = np.load(aside / self.file, mmap_mode="r", allow_pickle=False)
            if left.shape == self.shape and left.dtype == np.dtype(self.dtype):
                return done
        except (OSError, ValueError, KeyError, TypeError):
            pass
        shutil.rmtree(aside, ignore_errors=True)
        return 0

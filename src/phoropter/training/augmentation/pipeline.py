"""Augmentation, a batch at a time. Each sample's draw is a function of (seed, step, epoch, id); the pixel work is whatever is
fastest on the device.

On a processor every picture goes through its steps alone, as bytes, into a batch allocated once: measured there, crops and
antialiased resizes in C beat whole-batch sampling. On a GPU each step takes the whole batch. Both use the same draws and agree
within a grey level, except AutoAugment and RandAugment, which torchvision and Pillow compute on the processor in either case.

Left out: interpolation other than bilinear, and augmenting at prediction time (training/predict has its own fixed views).

Letters: B pictures, H × W their size, N draws (B: one a picture; 1: one for the batch).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from phoropter.core.files import digest
from phoropter.training.augmentation import spec
from phoropter.training.augmentation.ops import AUGMENTATION_OPS, LARGE_IMAGE_BYTES, output_shape
from phoropter.training.augmentation.randomness import AugmentationDraws, Bytes, DrawnParameters, IntArray, Shape, spatial_shape
from phoropter.training.augmentation.spec import AugmentationStep, CutoutStep, MixingStep, parse_steps

NUMERICS = 1  # to be raised when the same draws give other pixels: stored answers to augmented views are found by it


@dataclass(frozen=True, eq=False)
class AugmentedBatch:
    """A batch as training sees it.

    pictures: (B, 3, H, W) uint8, or after MixUp float32 in 0..255 ·
    partner: (B,) int64, whose label is mixed in, and share: (B,) float32, the share of the own label; None where nothing is mixed
    """

    pictures: torch.Tensor
    mix_index: torch.Tensor | None = None
    mix_lambda: torch.Tensor | None = None


@dataclass(frozen=True)
class Augmentation:
    """The steps of a recipe with the seed of their draws."""

    steps: tuple[AugmentationStep, ...]
    seed: int

    def __post_init__(self) -> None:
        parse_steps(self.steps)

    def apply(
        self, pictures: torch.Tensor | Sequence[Bytes], hashes: NDArray[np.uint64], epoch: int, batch_name: int
    ) -> AugmentedBatch:
        """(B, 3, H, W) uint8 pictures with the (B,) hashes of their ids → Augmented; the pictures given stay as they are.

        Pictures that lie apart, as B arrays of one shape on the processor, are not gathered first.
        `batch_name` ≥ 0 names the batch within the epoch; only what is drawn once for a batch depends on it (λ, box and
        permutation of CutMix and its like). Raises SpecError when a crop is larger than the pictures.
        """
        draws = AugmentationDraws(hashes, self.seed, epoch, batch_name)
        if isinstance(pictures, torch.Tensor) and pictures.device.type != "cpu":
            seen = apply_batched(self.steps, pictures, draws)
        else:
            seen = apply_per_image(self.steps, pictures, draws)
        for step in self.steps:
            if isinstance(step, CutoutStep):
                seen = _apply_cutout(step, seen, draws)
            elif isinstance(step, MixingStep):
                return _apply_mixing(step, seen, draws)
        return AugmentedBatch(seen)

    def output_size(self, side_in: int) -> int:
        """The side of the pictures that come out when those that go in have side `side_in`. Raises SpecError as `apply`."""
        shape = (side_in, side_in)
        for step in self.steps:
            shape = output_shape(step, shape)
        return shape[0]

    @property
    def mixes_labels(self) -> bool:
        """Whether pictures and labels of a batch are mixed, so that a view is more than (epoch, id)."""
        return bool(self.steps) and isinstance(self.steps[-1], MixingStep)

    @property
    def depends_on_batch(self) -> bool:
        """Whether a view depends on the batch it is in, so that it is more than (epoch, id)."""
        return spec.batch_dependent(self.steps)

    def identity(self) -> str:
        """A digest of all that decides a view of a picture but (epoch, id, batch)."""
        return digest({"steps": [s.plain() for s in self.steps], "seed": self.seed, "numerics": NUMERICS})


def apply_per_image(
    steps: Sequence[AugmentationStep], pictures: torch.Tensor | Sequence[Bytes], draws: AugmentationDraws
) -> torch.Tensor:
    """(B, 3, H, W) uint8 on the processor → new pictures that have been through every step that needs one picture alone.

    After a resize they are channels-last in memory, as its kernel leaves them; the numbers are the same.
    """
    source = pictures.numpy() if isinstance(pictures, torch.Tensor) else pictures
    plan, (height, width) = _plan_steps(steps, len(source), source[0], draws)
    rows = [(step, AUGMENTATION_OPS[step.kind].apply_image, drawn.tolist()) for step, drawn in plan]
    resized = any(isinstance(step, spec.RandomResizedCrop) for step in steps)
    if resized:
        out = np.empty((len(source), height, width, 3), np.uint8).transpose(0, 3, 1, 2)
    else:
        out = np.empty((len(source), 3, height, width), np.uint8)

    def augment_rows(share: range) -> None:
        for i in share:
            picture = source[i]
            for step, one, drawn in rows:
                picture = one(step, picture, drawn[i])
            out[i] = picture

    threads = torch.get_num_threads()
    if threads == 1 or out[:1].nbytes < LARGE_IMAGE_BYTES or not resized:
        augment_rows(range(len(out)))
    else:  # measured: only the resize takes long enough outside the interpreter for threads to help
        list(_get_thread_pool(os.getpid(), threads).map(augment_rows, [range(k, len(out), threads) for k in range(threads)]))
    return torch.from_numpy(out)


def apply_batched(steps: Sequence[AugmentationStep], pictures: torch.Tensor, draws: AugmentationDraws) -> torch.Tensor:
    """As `one_by_one`, each step for the whole batch, wherever it lies."""
    plan, _ = _plan_steps(steps, len(pictures), pictures[0], draws)
    seen = pictures.clone()
    for step, drawn in plan:
        kernel = AUGMENTATION_OPS[step.kind]
        if kernel.apply_batch is not None:
            seen = kernel.apply_batch(step, seen, torch.tensor(drawn, dtype=torch.float32, device=seen.device))
        else:
            alone = zip(seen.cpu().numpy(), drawn.tolist(), strict=True)
            seen = torch.from_numpy(np.stack([kernel.apply_image(step, picture, row) for picture, row in alone])).to(seen.device)
    return seen


def _plan_steps(
    steps: Sequence[AugmentationStep], count: int, first: torch.Tensor | Bytes, draws: AugmentationDraws
) -> tuple[list[tuple[AugmentationStep, DrawnParameters]], Shape]:
    if str(first.dtype).removeprefix("torch.") != "uint8" or first.ndim != 3 or count != len(draws.hashes):
        raise ValueError(f"expected {len(draws.hashes)} uint8 pictures, not {count} of {tuple(first.shape)}, {first.dtype}")
    shape = spatial_shape(first)
    plan = []
    for step in steps:
        if step.kind in AUGMENTATION_OPS:
            plan.append((step, AUGMENTATION_OPS[step.kind].draw_parameters(step, draws, shape)))
            shape = output_shape(step, shape)
    return plan, shape


@cache
def _get_thread_pool(process: int, threads: int) -> ThreadPoolExecutor:
    """One pool a process: threads do not survive a fork."""
    return ThreadPoolExecutor(threads, thread_name_prefix="augment")


# ---- cutting out and mixing


def boxes_from_lambda(lam: NDArray[np.float64], centre: IntArray, shape: Shape, form: str) -> IntArray:
    """(N,) λ and (N, 2) centres (y, x) → (N, 4) y0, y1, x0, x1, clipped to the picture.

    form: rect: √(1−λ) of height and width (Yun et al. 2019) · area: a slit of 1−λ of the width · sqrt: one of √(1−λ) of it
    """
    part = 1 - lam if form == "area" else np.sqrt(1 - lam)
    sides = np.floor(part[:, None] * shape).astype(np.int64)
    boxes = _clip_boxes(sides, centre, shape)
    if form != "rect":
        boxes[:, :2] = 0, shape[0]
    return boxes


def _clip_boxes(sides: IntArray, centre: IntArray, shape: Shape) -> IntArray:
    begin = centre - sides // 2
    begin, end = np.clip(begin, 0, shape), np.clip(begin + sides, 0, shape)
    return np.stack([begin[:, 0], end[:, 0], begin[:, 1], end[:, 1]], 1)


def _draw_boxes(step: CutoutStep | spec.CutMix | spec.SlitCutMix, draws: AugmentationDraws, shape: Shape) -> IntArray:
    """(N, 4) boxes, empty where the picture or the batch is left alone."""
    chance, lam, y, x = _draw_mix_parameters(step, draws)
    centre = np.stack([np.floor(y * shape[0]), np.floor(x * shape[1])], 1).astype(np.int64)
    fixed = step.box_size if isinstance(step, spec.CutOut) else None
    if fixed is not None:
        boxes = _clip_boxes(np.full((len(centre), 2), fixed), centre, shape)
    else:
        boxes = boxes_from_lambda(lam, centre, shape, getattr(step, "width", "rect"))
    boxes[chance >= step.p] = 0
    return boxes


def _draw_mix_parameters(step: CutoutStep | MixingStep, draws: AugmentationDraws) -> NDArray[np.float64]:
    """(4, N): chance, λ ~ Beta(alpha, alpha), and two more in [0, 1)."""
    u = (draws.per_image_uniforms if step.per_sample else draws.per_batch_uniforms)(step.kind, 4).T.copy()
    if step.alpha != 1:  # Beta(1, 1) is uniform
        from scipy.special import betaincinv

        u[1] = betaincinv(step.alpha, step.alpha, u[1])
    return u


def _apply_cutout(step: CutoutStep, pictures: torch.Tensor, draws: AugmentationDraws) -> torch.Tensor:
    return _paste_boxes(pictures, _draw_boxes(step, draws, spatial_shape(pictures)), step.fill)


def _apply_mixing(step: MixingStep, pictures: torch.Tensor, draws: AugmentationDraws) -> AugmentedBatch:
    count, (height, width) = len(pictures), spatial_shape(pictures)
    if isinstance(step, spec.MixUp):
        chance, lam, _, _ = _draw_mix_parameters(step, draws)
        shares = np.where(chance < step.p, lam, 1.0)
    else:
        boxes = _draw_boxes(step, draws, (height, width))
        shares = 1 - (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2]) / (height * width)
    if (shares == 1).all():
        return AugmentedBatch(pictures.float() if isinstance(step, spec.MixUp) else pictures)
    own = np.where(shares < 1, draws.mix_permutation(step.kind), np.arange(count))  # a picture left alone is its own partner
    partner = torch.from_numpy(own).to(pictures.device)
    share = torch.tensor(np.broadcast_to(shares, count), dtype=torch.float32, device=pictures.device)
    if isinstance(step, spec.MixUp):
        part = share[:, None, None, None]
        return AugmentedBatch(pictures.float().mul_(part).add_(pictures[partner].float().mul_(1 - part)), partner, share)
    return AugmentedBatch(_paste_boxes(pictures, boxes, partner), partner, share)


def _paste_boxes(pictures: torch.Tensor, boxes: IntArray, source: int | torch.Tensor) -> torch.Tensor:
    """A grey level, or the (B,) pictures of the same batch, put into the boxes; one box for all is pasted in place."""
    if len(boxes) == 1:
        y0, y1, x0, x1 = boxes[0].tolist()
        part = pictures[:, :, y0:y1, x0:x1]
        part[...] = source if isinstance(source, int) else part[source]
        return pictures
    y0, y1, x0, x1 = torch.from_numpy(boxes).to(pictures.device).T[:, :, None, None]  # each (B, 1, 1)
    ys = torch.arange(pictures.shape[2], device=pictures.device)[:, None]
    xs = torch.arange(pictures.shape[3], device=pictures.device)
    inside = (ys >= y0) & (ys < y1) & (xs >= x0) & (xs < x1)  # (B, H, W)
    return torch.where(inside[:, None], source if isinstance(source, int) else pictures[source], pictures)

"""Augmentation of a batch: steps in order, then cutting out and mixing.

Parameters are a function of (seed, step, epoch, sample id); the pixel work is whatever is fastest on the device. On a CPU every
image goes through its steps alone, as bytes, into a batch allocated once: measured there, crops and antialiased resizes in C beat
sampling of whole batches. On a GPU each step takes the whole batch. Both use the same parameters and agree within a grey level,
except AutoAugment and RandAugment, which torchvision and Pillow compute on the CPU in either case.

Left out: interpolation other than bilinear, and augmenting at prediction time (training/predict has fixed views for that).

Letters: B images, H × W their size, N draws (B: one per image; 1: one per batch).
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
from phoropter.training.augmentation.custom_step import AugmentationStep
from phoropter.training.augmentation.device_arrays import send_array
from phoropter.training.augmentation.ops import LARGE_IMAGE_BYTES, AugmentationOp, apply_custom_step, find_op, output_shape
from phoropter.training.augmentation.randomness import AugmentationDraws, Bytes, DrawnParameters, IntArray, Shape, spatial_shape
from phoropter.training.augmentation.spec import CutoutStep, MixingStep, StepSpec, parse_steps

NUMERICS = 1  # raise it when the same draws give other pixels: caches of augmented views are found by it


@dataclass(frozen=True, eq=False)
class AugmentedBatch:
    """A batch as training sees it.

    pictures:   (B, 3, H, W) uint8, or after MixUp float32 in 0..255
    mix_index:  (B,) int64, the row whose label is mixed in; None where nothing is mixed
    mix_lambda: (B,) float32, the weight of the row's own label; None where nothing is mixed
    """

    pictures: torch.Tensor
    mix_index: torch.Tensor | None = None
    mix_lambda: torch.Tensor | None = None


@dataclass(frozen=True)
class Augmentation:
    """The steps of a recipe with the seed of their draws."""

    steps: tuple[StepSpec, ...]
    seed: int

    def __post_init__(self) -> None:
        parse_steps(self.steps)

    def apply(
        self, pictures: torch.Tensor | Sequence[Bytes], hashes: NDArray[np.uint64], epoch: int, batch_index: int
    ) -> AugmentedBatch:
        """(B, 3, H, W) uint8 images with the (B,) hashes of their ids → AugmentedBatch; the input is not changed.

        On a CPU the images may also be B separate (3, H, W) arrays of one shape, which are not gathered first.
        `batch_index` ≥ 0 is the number of the batch in the epoch; only parameters drawn once per batch depend on it (λ, box and
        permutation of CutMix and the like). Raises SpecError when a crop is larger than the images.
        """
        draws = AugmentationDraws(hashes, self.seed, epoch, batch_index)
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

    @property
    def depends_on_batch(self) -> bool:
        """Whether an augmented image depends on the batch it is in, and not on (epoch, id) alone."""
        return spec.batch_dependent(self.steps)

    def identity(self) -> str:
        """Digest of everything that decides an augmented image besides (epoch, id, batch)."""
        return digest({"steps": [s.plain() for s in self.steps], "seed": self.seed, "numerics": NUMERICS})


def apply_per_image(
    steps: Sequence[StepSpec], pictures: torch.Tensor | Sequence[Bytes], draws: AugmentationDraws
) -> torch.Tensor:
    """(B, 3, H, W) uint8 on the CPU → new images after every per-image step.

    After a resize they are channels-last in memory, as its kernel leaves them; the values are the same.
    """
    source = pictures.numpy() if isinstance(pictures, torch.Tensor) else pictures
    plan, (height, width) = _plan_steps(steps, len(source), source[0], draws)
    ops = [(step, op.apply_image, drawn.tolist()) for step, op, drawn in plan]
    resized = any(isinstance(step, spec.RandomResizedCrop) for step in steps)
    if resized:
        out = np.empty((len(source), height, width, 3), np.uint8).transpose(0, 3, 1, 2)
    else:
        out = np.empty((len(source), 3, height, width), np.uint8)

    def augment_rows(share: range) -> None:
        for i in share:
            picture = source[i]
            for step, apply_image, drawn in ops:
                picture = apply_image(step, picture, drawn[i])
            out[i] = picture

    threads = torch.get_num_threads()
    if threads == 1 or out[:1].nbytes < LARGE_IMAGE_BYTES or not resized:
        augment_rows(range(len(out)))
    else:  # measured: only the resize holds the interpreter lock so briefly that threads help
        list(_get_thread_pool(os.getpid(), threads).map(augment_rows, [range(k, len(out), threads) for k in range(threads)]))
    return torch.from_numpy(out)


def apply_batched(steps: Sequence[StepSpec], pictures: torch.Tensor, draws: AugmentationDraws) -> torch.Tensor:
    """As `apply_per_image`, each step on the whole batch, on whichever device it lies."""
    plan, _ = _plan_steps(steps, len(pictures), pictures[0], draws)
    seen = pictures.clone()
    for step, op, drawn in plan:
        if isinstance(step, AugmentationStep):
            seen = apply_custom_step(step, seen, drawn)
        elif op.apply_batch is not None:
            seen = op.apply_batch(step, seen, send_array(drawn.astype(np.float32), seen.device))
        else:
            images = zip(seen.cpu().numpy(), drawn.tolist(), strict=True)
            seen = torch.from_numpy(np.stack([op.apply_image(step, picture, row) for picture, row in images])).to(seen.device)
    return seen


def _plan_steps(
    steps: Sequence[StepSpec], count: int, first: torch.Tensor | Bytes, draws: AugmentationDraws
) -> tuple[list[tuple[StepSpec, AugmentationOp, DrawnParameters]], Shape]:
    """Every per-image step with its op and its (B, k) parameters, and the (H, W) that comes out."""
    if str(first.dtype).removeprefix("torch.") != "uint8" or first.ndim != 3 or count != len(draws.hashes):
        raise ValueError(f"expected {len(draws.hashes)} uint8 images, not {count} of {tuple(first.shape)}, {first.dtype}")
    shape = spatial_shape(first)
    plan = []
    for step in steps:
        if (op := find_op(step)) is not None:
            plan.append((step, op, op.draw_parameters(step, draws, shape)))
            shape = output_shape(step, shape)
    return plan, shape


@cache
def _get_thread_pool(process: int, threads: int) -> ThreadPoolExecutor:
    """One pool per process: threads do not survive a fork."""
    return ThreadPoolExecutor(threads, thread_name_prefix="augment")


# ---- cutting out and mixing


def boxes_from_lambda(lam: NDArray[np.float64], centre: IntArray, shape: Shape, form: str) -> IntArray:
    """(N,) λ and (N, 2) centres (y, x) → (N, 4) y0, y1, x0, x1, clipped to the image.

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
    """(N, 4) boxes, empty where the image or the batch is left unchanged."""
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
    own = np.where(shares < 1, draws.mix_permutation(step.kind), np.arange(count))  # an unchanged image is its own partner
    partner = send_array(own, pictures.device)
    share = send_array(np.broadcast_to(shares, count).astype(np.float32), pictures.device)
    if isinstance(step, spec.MixUp):
        part = share[:, None, None, None]
        return AugmentedBatch(pictures.float().mul_(part).add_(pictures[partner].float().mul_(1 - part)), partner, share)
    return AugmentedBatch(_paste_boxes(pictures, boxes, partner), partner, share)


def _paste_boxes(pictures: torch.Tensor, boxes: IntArray, source: int | torch.Tensor) -> torch.Tensor:
    """Fills the boxes with a grey level, or with the images of rows `source` (B,); one box for the batch is pasted in place."""
    if len(boxes) == 1:
        y0, y1, x0, x1 = boxes[0].tolist()
        part = pictures[:, :, y0:y1, x0:x1]
        part[...] = source if isinstance(source, int) else part[source]
        return pictures
    y0, y1, x0, x1 = send_array(boxes, pictures.device).T[:, :, None, None]  # each (B, 1, 1)
    ys = torch.arange(pictures.shape[2], device=pictures.device)[:, None]
    xs = torch.arange(pictures.shape[3], device=pictures.device)
    inside = (ys >= y0) & (ys < y1) & (xs >= x0) & (xs < x1)  # (B, H, W)
    return torch.where(inside[:, None], source if isinstance(source, int) else pictures[source], pictures)

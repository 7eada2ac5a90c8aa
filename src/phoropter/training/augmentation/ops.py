"""Strokes: how each step of an augmentation that needs one picture alone is drawn and done, on one picture or a whole batch.

Augmentation (augment.py) puts them in order and mixes what they leave. Interpolation is bilinear throughout.

Letters: B pictures, H × W their size.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from phoropter.core.errors import SpecError
from phoropter.training.augmentation import spec
from phoropter.training.augmentation.policies import apply_autoaugment, apply_randaugment, draw_policy_parameters
from phoropter.training.augmentation.randomness import (
    AugmentationDraws,
    Bytes,
    DrawnParameters,
    IntArray,
    Shape,
    spatial_shape,
    to_channels_last,
)
from phoropter.training.augmentation.spec import AugmentationStep

LARGE_IMAGE_BYTES = 1 << 15  # bytes of a picture from which the start-up of a kernel or a thread is worth paying

with warnings.catch_warnings():  # torch says once that it cannot keep an array read-only; nothing here writes into what is given
    warnings.simplefilter("ignore")
    torch.from_numpy(np.broadcast_to(np.uint8(0), (1,)))


def output_shape(step: AugmentationStep, shape: Shape) -> Shape:
    if not isinstance(step, (spec.RandomCrop, spec.RandomResizedCrop)):
        return shape
    out = (step.size, step.size) if step.size else shape
    if isinstance(step, spec.RandomCrop) and step.size and step.size > min(shape) + 2 * step.padding:
        raise SpecError(
            f"augment: a crop of size {step.size} with padding {step.padding} does not fit into pictures of "
            f"{shape[0]} × {shape[1]}; give a smaller size or larger pictures"
        )
    return out


def _as_tensor(picture: Bytes) -> torch.Tensor:
    """The same bytes as a tensor, which cannot run backwards as a mirrored array does."""
    return torch.from_numpy(picture if min(picture.strides) > 0 else picture.copy())


def _channels_last(pixels: Bytes) -> torch.Tensor:
    """(H, W, 3) → (1, 3, H, W) whose strides tell torch that the colours lie together: then nothing is repacked."""
    return torch.from_numpy(pixels).view(1, *pixels.shape).permute(0, 3, 1, 2)


def _make_per_image(
    whole: Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor],
) -> Callable[[Any, Bytes, list[float]], Bytes]:
    def apply_to_image(step: Any, picture: Bytes, row: list[float]) -> Bytes:
        return np.asarray(whole(step, _as_tensor(picture)[None], torch.tensor([row], dtype=torch.float32))[0])

    return apply_to_image


# ---- mirrors and crops


def _draw_flip(step: spec.HorizontalFlip | spec.VerticalFlip, draws: AugmentationDraws, shape: Shape) -> DrawnParameters:
    return draws.per_image_uniforms(step.kind, 1) < step.p


def _flip_horizontal(step: spec.HorizontalFlip, picture: Bytes, row: list[bool]) -> Bytes:
    if not row[0]:
        return picture
    # NumPy copies a reversed row byte by byte; torch's kernels are worth their start-up on big pictures whose rows lie together
    if picture.nbytes >= LARGE_IMAGE_BYTES and picture.strides[2] == 1:
        return _as_tensor(picture).flip(-1).numpy()
    if picture.nbytes >= LARGE_IMAGE_BYTES and picture.strides == (1, 3 * picture.shape[2], 3):
        return _channels_last(picture.transpose(1, 2, 0)).flip(-1)[0].numpy()
    return picture[:, :, ::-1]


def _flip_vertical(step: spec.VerticalFlip, picture: Bytes, row: list[bool]) -> Bytes:
    return picture[:, ::-1] if row[0] else picture


def _flip_batch(step: spec.HorizontalFlip | spec.VerticalFlip, pictures: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return torch.where(rows[:, :, None, None] > 0, pictures.flip(-1 if isinstance(step, spec.HorizontalFlip) else -2), pictures)


def _draw_crop(step: spec.RandomCrop, draws: AugmentationDraws, shape: Shape) -> DrawnParameters:
    """top, left of the piece in the padded picture, evenly among the places it fits."""
    out = output_shape(step, shape)
    places = np.array([size + 2 * step.padding - piece + 1 for size, piece in zip(shape, out, strict=True)])
    corner: IntArray = (draws.per_image_uniforms(step.kind, 2) * places).astype(np.int64)
    return corner


def _crop_image(step: spec.RandomCrop, picture: Bytes, row: list[int]) -> Bytes:
    height, width = output_shape(step, spatial_shape(picture))
    if step.padding:
        padded = np.full((3, picture.shape[1] + 2 * step.padding, picture.shape[2] + 2 * step.padding), step.fill, np.uint8)
        padded[:, step.padding : -step.padding, step.padding : -step.padding] = picture
        picture = padded
    top, left = row
    return picture[:, top : top + height, left : left + width]


def _crop_batch(step: spec.RandomCrop, pictures: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    height, width = output_shape(step, spatial_shape(pictures))
    padded = F.pad(pictures, (step.padding,) * 4, value=step.fill)
    corner, device = rows.long(), pictures.device
    ys = (corner[:, 0, None] + torch.arange(height, device=device))[:, :, None]  # (B, height, 1)
    xs = (corner[:, 1, None] + torch.arange(width, device=device))[:, None, :]  # (B, 1, width)
    samples = torch.arange(len(pictures), device=device)[:, None, None]
    return padded[samples, :, ys, xs].permute(0, 3, 1, 2).contiguous()


def _draw_resized_crop(step: spec.RandomResizedCrop, draws: AugmentationDraws, shape: Shape) -> DrawnParameters:
    """top, left, height, width. Of ten tries the first that fits; else the middle, as near to the ratio as it goes."""
    height, width = shape
    u = draws.per_image_uniforms(step.kind, 22)
    area = height * width * (step.scale[0] + (step.scale[1] - step.scale[0]) * u[:, 0:10])
    low, high = math.log(step.ratio[0]), math.log(step.ratio[1])
    ratio = np.exp(low + (high - low) * u[:, 10:20])
    w, h = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))  # (B, 10)
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first, found = (np.arange(len(u)), fits.argmax(1)), fits.max(1)
    bounded = min(max(width / height, step.ratio[0]), step.ratio[1])
    w = np.where(found, w[first], min(width, max(1, round(height * bounded))))
    h = np.where(found, h[first], min(height, max(1, round(width / bounded))))
    free = np.stack([height - h, width - w], 1)
    corner = np.where(found[:, None], np.floor(u[:, 20:22] * (free + 1)), free // 2)
    return np.concatenate([corner, h[:, None], w[:, None]], 1).astype(np.int64)


def _resize_crop_image(step: spec.RandomResizedCrop, picture: Bytes, row: list[int]) -> Bytes:
    top, left, height, width = row
    piece = _channels_last(np.ascontiguousarray(to_channels_last(picture[:, top : top + height, left : left + width])))
    size = output_shape(step, spatial_shape(picture))
    return F.interpolate(piece, size, mode="bilinear", antialias=True)[0].numpy()


def _resize_crop_batch(step: spec.RandomResizedCrop, pictures: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """As two products with matrices of weights: (B, 1, h, H) @ (B, 3, H, W) @ (B, 1, W, w)."""
    height, width = output_shape(step, spatial_shape(pictures))
    down = _resize_weights(rows[:, 0], rows[:, 2], pictures.shape[2], height)[:, None]
    across = _resize_weights(rows[:, 1], rows[:, 3], pictures.shape[3], width)[:, None].mT
    return _to_uint8(down @ pictures.float() @ across)


def _resize_weights(start: torch.Tensor, length: torch.Tensor, size_in: int, size_out: int) -> torch.Tensor:
    """(B,) begin and length of the piece → (B, size_out, size_in): a triangle about each target, wider when shrinking."""
    device = start.device
    scale = (length / size_out)[:, None]
    centre = start[:, None] + (torch.arange(size_out, device=device) + 0.5) * scale  # (B, size_out)
    place = torch.arange(size_in, device=device) + 0.5
    weights = (1 - (place - centre[:, :, None]).abs() / scale.clamp_min(1)[:, :, None]).clamp_min(0)
    inside = (place > start[:, None]) & (place < (start + length)[:, None])  # (B, size_in)
    weights = weights * inside[:, None]
    return weights / weights.sum(2, keepdim=True)


def _draw_rotation(step: spec.RandomRotation, draws: AugmentationDraws, shape: Shape) -> DrawnParameters:
    return (2 * draws.per_image_uniforms(step.kind, 1) - 1) * math.radians(step.degrees)


def _rotate_batch(step: spec.RandomRotation, pictures: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    height, width = pictures.shape[2:]
    cos, sin = rows.cos()[:, :, None], rows.sin()[:, :, None]  # (B, 1, 1)
    ys = (torch.arange(height, device=rows.device) - (height - 1) / 2)[:, None]
    xs = torch.arange(width, device=rows.device) - (width - 1) / 2
    places = torch.stack([(xs * cos - ys * sin) * (2 / width), (xs * sin + ys * cos) * (2 / height)], -1)  # (B, H, W, 2)
    turned = F.grid_sample(pictures.float() - step.fill, places, padding_mode="zeros", align_corners=False)
    return _to_uint8(turned + step.fill)


def _to_uint8(pictures: torch.Tensor) -> torch.Tensor:
    return pictures.round_().clamp_(0, 255).to(torch.uint8)


# ---- colours


def _draw_pca_lighting(step: spec.PcaLighting, draws: AugmentationDraws, shape: Shape) -> DrawnParameters:
    """A shift in grey levels for R, G, B: Σ pᵢ αᵢ λᵢ, αᵢ ~ N(0, σ) by Box and Muller."""
    u = draws.per_image_uniforms(step.kind, 4)
    radius, angle = np.sqrt(-2 * np.log1p(-u[:, :2])), 2 * math.pi * u[:, 2:]
    normal = np.concatenate([radius * np.cos(angle), (radius * np.sin(angle))[:, :1]], 1)
    shift = (_EIGENVECTORS * (step.sigma * normal * _EIGENVALUES)[:, None, :]).sum(2)  # not @, whose sums depend on B
    levels: IntArray = np.rint(255 * shift).astype(np.int64)
    return levels


def _pca_lighting_batch(step: spec.PcaLighting, pictures: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return (pictures.to(torch.int16) + rows[:, :, None, None].to(torch.int16)).clamp_(0, 255).to(torch.uint8)


def _draw_color_jitter(step: spec.ColorJitter, draws: AugmentationDraws, shape: Shape) -> DrawnParameters:
    strengths = np.array([step.brightness, step.contrast, step.saturation, step.hue])
    drawn: DrawnParameters = (2 * draws.per_image_uniforms(step.kind, 4) - 1) * strengths + np.array([1.0, 1.0, 1.0, 0.0])
    return drawn


def _color_jitter_batch(step: spec.ColorJitter, pictures: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Whole grey levels after every part: the mean for the contrast is then a sum of integers, the same in any order."""
    brightness, contrast, saturation, turn = (rows[:, k, None, None, None] for k in range(4))
    x = pictures.float()
    if step.brightness:
        x = _round_levels(x * brightness)
    if step.contrast:
        mean = _rgb_to_grayscale(x).round().to(torch.int32).sum((1, 2, 3), keepdim=True) / (x.shape[2] * x.shape[3])
        x = _round_levels((x - mean) * contrast + mean)
    if step.saturation:
        grey = _rgb_to_grayscale(x)
        x = _round_levels((x - grey) * saturation + grey)
    if step.hue:
        x = _round_levels(_shift_hue(x, turn))
    return x.to(torch.uint8)


def _round_levels(x: torch.Tensor) -> torch.Tensor:
    return x.round_().clamp_(0, 255)


def _rgb_to_grayscale(x: torch.Tensor) -> torch.Tensor:
    return 0.299 * x[:, 0:1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:3]


def _shift_hue(x: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """The hue of HSV moved by `turn` of the circle, saturation and value kept (Smith 1978)."""
    red, green, blue = x[:, 0:1], x[:, 1:2], x[:, 2:3]
    value = x.amax(1, keepdim=True)
    chroma = value - x.amin(1, keepdim=True)
    safe = chroma.clamp_min(1)
    sixth = torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4)
    sixth = torch.where(value == red, (green - blue) / safe, sixth) + 6 * turn
    away = (sixth + torch.tensor([5.0, 3.0, 1.0], device=x.device)[:, None, None]) % 6
    return value - chroma * torch.minimum(away, 4 - away).clamp(0, 1)


@dataclass(frozen=True)
class AugmentationOp:
    """How a step that needs one picture alone is done: what is drawn, one picture, the whole batch (None: one after another)."""

    draw_parameters: Callable[[Any, AugmentationDraws, Shape], DrawnParameters]
    apply_image: Callable[[Any, Bytes, Any], Bytes]
    apply_batch: Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor] | None


AUGMENTATION_OPS: dict[str, AugmentationOp] = {
    "hflip": AugmentationOp(_draw_flip, _flip_horizontal, _flip_batch),
    "vflip": AugmentationOp(_draw_flip, _flip_vertical, _flip_batch),
    "crop": AugmentationOp(_draw_crop, _crop_image, _crop_batch),
    "resized-crop": AugmentationOp(_draw_resized_crop, _resize_crop_image, _resize_crop_batch),
    "rotate": AugmentationOp(_draw_rotation, _make_per_image(_rotate_batch), _rotate_batch),
    "pca_lighting": AugmentationOp(_draw_pca_lighting, _make_per_image(_pca_lighting_batch), _pca_lighting_batch),
    "color_jitter": AugmentationOp(_draw_color_jitter, _make_per_image(_color_jitter_batch), _color_jitter_batch),
    "autoaugment": AugmentationOp(draw_policy_parameters, apply_autoaugment, None),
    "randaugment": AugmentationOp(draw_policy_parameters, apply_randaugment, None),
}
# The RGB components of ImageNet's training pictures with values in 0..1, as published with fb.resnet.torch (Facebook 2016);
# columns are the eigenvectors. Krizhevsky et al. 2012 (§4.1) describe them and do not print them.
_EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
_EIGENVECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])

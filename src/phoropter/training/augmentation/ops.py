"""Per-image augmentation ops: parameter sampling, a per-image CPU kernel and a batched kernel for each.

pipeline.py puts them in order, and cuts out of images and mixes them afterwards. Interpolation is bilinear throughout.

Letters: B images, H × W their size.
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
from numpy.typing import NDArray

from phoropter.core.errors import RunError, SpecError
from phoropter.training.augmentation import spec
from phoropter.training.augmentation.custom_step import AugmentationStep
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
from phoropter.training.augmentation.spec import StepSpec

LARGE_IMAGE_BYTES = 1 << 15  # from this size on the start-up of a torch kernel or a thread costs less than it saves

with warnings.catch_warnings():  # torch warns once that it cannot keep an array read-only; no op here writes into its input
    warnings.simplefilter("ignore")
    torch.from_numpy(np.broadcast_to(np.uint8(0), (1,)))


def output_shape(step: StepSpec, shape: Shape) -> Shape:
    """(H, W) of an image after a step. Raises SpecError where a crop is larger than the padded image."""
    if not isinstance(step, (spec.RandomCrop, spec.RandomResizedCrop)):
        return shape
    out = (step.size, step.size) if step.size else shape
    if isinstance(step, spec.RandomCrop) and step.size and step.size > min(shape) + 2 * step.padding:
        raise SpecError(
            f"augment: a crop of size {step.size} with padding {step.padding} does not fit into images of "
            f"{shape[0]} × {shape[1]}; give a smaller size or larger images"
        )
    return out


def _as_tensor(picture: Bytes) -> torch.Tensor:
    """The same bytes as a tensor; a mirrored array is copied, because tensors have no negative strides."""
    return torch.from_numpy(picture if min(picture.strides) > 0 else picture.copy())


def _channels_last(pixels: Bytes) -> torch.Tensor:
    """(H, W, 3) → (1, 3, H, W) in channels-last strides, which torch's kernels take without repacking."""
    return torch.from_numpy(pixels).view(1, *pixels.shape).permute(0, 3, 1, 2)


def _make_per_image(
    apply_batch: Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor],
) -> Callable[[Any, Bytes, list[float]], Bytes]:
    """The per-image kernel of an op that is no faster in C: its batched kernel on a batch of one."""

    def apply_to_image(step: Any, picture: Bytes, row: list[float]) -> Bytes:
        return np.asarray(apply_batch(step, _as_tensor(picture)[None], torch.tensor([row], dtype=torch.float32))[0])

    return apply_to_image


# ---- mirrors and crops


def _draw_flip(step: spec.HorizontalFlip | spec.VerticalFlip, draws: AugmentationDraws, shape: Shape) -> DrawnParameters:
    return draws.per_image_uniforms(step.kind, 1) < step.p


def _flip_horizontal(step: spec.HorizontalFlip, picture: Bytes, row: list[bool]) -> Bytes:
    if not row[0]:
        return picture
    # NumPy copies a reversed row byte by byte; torch's kernel is faster on large images whose rows are contiguous
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
    """(B, 2) top and left of the crop in the padded image, uniform over the places where it fits."""
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
    """(B, 4) top, left, height, width: the first of ten tries that fits, else a central crop with the nearest allowed ratio."""
    height, width = shape
    u = draws.per_image_uniforms(step.kind, 22)
    area = height * width * (step.scale[0] + (step.scale[1] - step.scale[0]) * u[:, 0:10])
    low, high = math.log(step.ratio[0]), math.log(step.ratio[1])
    ratio = np.exp(low + (high - low) * u[:, 10:20])
    w, h = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))  # (B, 10)
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first, any_fits = (np.arange(len(u)), fits.argmax(1)), fits.max(1)
    bounded = min(max(width / height, step.ratio[0]), step.ratio[1])
    w = np.where(any_fits, w[first], min(width, max(1, round(height * bounded))))
    h = np.where(any_fits, h[first], min(height, max(1, round(width / bounded))))
    free = np.stack([height - h, width - w], 1)
    corner = np.where(any_fits[:, None], np.floor(u[:, 20:22] * (free + 1)), free // 2)
    return np.concatenate([corner, h[:, None], w[:, None]], 1).astype(np.int64)


def _resize_crop_image(step: spec.RandomResizedCrop, picture: Bytes, row: list[int]) -> Bytes:
    top, left, height, width = row
    piece = _channels_last(np.ascontiguousarray(to_channels_last(picture[:, top : top + height, left : left + width])))
    size = output_shape(step, spatial_shape(picture))
    return F.interpolate(piece, size, mode="bilinear", antialias=True)[0].numpy()


def _resize_crop_batch(step: spec.RandomResizedCrop, pictures: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Separable resampling as two matrix products: (B, 1, h, H) @ (B, 3, H, W) @ (B, 1, W, w)."""
    height, width = output_shape(step, spatial_shape(pictures))
    down = _resize_weights(rows[:, 0], rows[:, 2], pictures.shape[2], height)[:, None]
    across = _resize_weights(rows[:, 1], rows[:, 3], pictures.shape[3], width)[:, None].mT
    return _to_uint8(down @ pictures.float() @ across)


def _resize_weights(start: torch.Tensor, length: torch.Tensor, size_in: int, size_out: int) -> torch.Tensor:
    """(B,) start and length of the crop → (B, size_out, size_in) triangle filters, widened when shrinking (antialiasing)."""
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
    """(B, 3) shift of R, G, B in grey levels: Σ pᵢ αᵢ λᵢ with αᵢ ~ N(0, σ) by the Box–Muller transform."""
    u = draws.per_image_uniforms(step.kind, 4)
    radius, angle = np.sqrt(-2 * np.log1p(-u[:, :2])), 2 * math.pi * u[:, 2:]
    normal = np.concatenate([radius * np.cos(angle), (radius * np.sin(angle))[:, :1]], 1)
    shift = (_EIGENVECTORS * (step.sigma * normal * _EIGENVALUES)[:, None, :]).sum(2)  # not @: its rounding depends on B
    levels: IntArray = np.rint(255 * shift).astype(np.int64)
    return levels


def _pca_lighting_batch(step: spec.PcaLighting, pictures: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return (pictures.to(torch.int16) + rows[:, :, None, None].to(torch.int16)).clamp_(0, 255).to(torch.uint8)


def _draw_color_jitter(step: spec.ColorJitter, draws: AugmentationDraws, shape: Shape) -> DrawnParameters:
    strengths = np.array([step.brightness, step.contrast, step.saturation, step.hue])
    drawn: DrawnParameters = (2 * draws.per_image_uniforms(step.kind, 4) - 1) * strengths + np.array([1.0, 1.0, 1.0, 0.0])
    return drawn


def _color_jitter_batch(step: spec.ColorJitter, pictures: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Rounded to grey levels after every part: the mean for the contrast is then a sum of integers, equal in any order."""
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
    """The hue of HSV rotated by `turn` of the circle, saturation and value kept (Smith 1978)."""
    red, green, blue = x[:, 0:1], x[:, 1:2], x[:, 2:3]
    value = x.amax(1, keepdim=True)
    chroma = value - x.amin(1, keepdim=True)
    safe = chroma.clamp_min(1)
    sixth = torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4)
    sixth = torch.where(value == red, (green - blue) / safe, sixth) + 6 * turn
    away = (sixth + torch.arange(5, 0, -2, device=x.device)[:, None, None]) % 6
    return value - chroma * torch.minimum(away, 4 - away).clamp(0, 1)


@dataclass(frozen=True)
class AugmentationOp:
    """Parameter sampling, a per-image kernel and a batched kernel (None: a batch is done image by image)."""

    draw_parameters: Callable[[Any, AugmentationDraws, Shape], DrawnParameters]
    apply_image: Callable[[Any, Bytes, Any], Bytes]
    apply_batch: Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor] | None


AUGMENTATION_OPS: dict[str, AugmentationOp] = {
    "hflip": AugmentationOp(_draw_flip, _flip_horizontal, _flip_batch),
    "vflip": AugmentationOp(_draw_flip, _flip_vertical, _flip_batch),
    "random-crop": AugmentationOp(_draw_crop, _crop_image, _crop_batch),
    "random-resized-crop": AugmentationOp(_draw_resized_crop, _resize_crop_image, _resize_crop_batch),
    "rotate": AugmentationOp(_draw_rotation, _make_per_image(_rotate_batch), _rotate_batch),
    "pca-lighting": AugmentationOp(_draw_pca_lighting, _make_per_image(_pca_lighting_batch), _pca_lighting_batch),
    "color-jitter": AugmentationOp(_draw_color_jitter, _make_per_image(_color_jitter_batch), _color_jitter_batch),
    "autoaugment": AugmentationOp(draw_policy_parameters, apply_autoaugment, None),
    "randaugment": AugmentationOp(draw_policy_parameters, apply_randaugment, None),
}


def find_op(step: StepSpec) -> AugmentationOp | None:
    """The op of a step, None for steps that cut out of images or mix them (pipeline.py)."""
    return _CUSTOM_OP if isinstance(step, AugmentationStep) else AUGMENTATION_OPS.get(step.kind)


# ---- steps of the user's own


def _draw_custom(step: AugmentationStep, draws: AugmentationDraws, shape: Shape) -> DrawnParameters:
    return draws.per_image_uniforms(f"custom/{step.name}", step.uniforms)


def _apply_custom_image(step: AugmentationStep, picture: Bytes, row: list[float]) -> Bytes:
    # A copy: the image may be a read-only piece of a memory-mapped file, and the step may write into what it is given
    images = torch.from_numpy(picture.copy())[None]
    image: Bytes = apply_custom_step(step, images, np.array([row], np.float64)).numpy()[0]
    return image


def apply_custom_step(step: AugmentationStep, images: torch.Tensor, uniforms: NDArray[np.float64]) -> torch.Tensor:
    """(B, 3, H, W) uint8 and (B, k) → (B, 3, H, W) uint8. Raises RunError where the step does not keep to its contract.

    At its first use in a process a step is also applied to the first image again, alone: a result that differs shows random
    numbers of its own, or rows that depend on each other. Resumed runs and cached views would then differ from the first pass.
    """
    expected = None
    if step not in _verified_steps:
        expected = step.apply(images[:1].clone(), uniforms[:1].copy())
    out = step.apply(images.clone() if expected is not None else images, uniforms)
    if not isinstance(out, torch.Tensor) or out.dtype != torch.uint8 or out.shape != images.shape:
        came = f"{out.dtype} {tuple(out.shape)}" if isinstance(out, torch.Tensor) else type(out).__name__
        raise RunError(f"the augmentation step '{step.name}' returned {came}, expected torch.uint8 {tuple(images.shape)}")
    if expected is not None:
        if int((out[:1].int() - expected.int()).abs().max()) > 1:
            raise RunError(
                f"the augmentation step '{step.name}' changed an image in two ways under the same random numbers; let it use no "
                "random numbers but `uniforms`, and no image but the one it changes"
            )
        _verified_steps.add(step)
    return out


_verified_steps: set[AugmentationStep] = set()
_CUSTOM_OP = AugmentationOp(_draw_custom, _apply_custom_image, None)

# Principal components of the RGB values (in 0..1) of ImageNet's training images, as published with fb.resnet.torch (Facebook
# 2016); columns are the eigenvectors. Krizhevsky et al. 2012 (§4.1) describe them without printing them.
_EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
_EIGENVECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])

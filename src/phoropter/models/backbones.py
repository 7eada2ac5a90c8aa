"""Backbones: (B, 3, s, s) normalised images → (B, D) pooled features, with the preprocessing that belongs to their weights.

A backbone is a timm network, torchvision's `alexnet`, or `alexnet_2012`, without its last layer, or a network of the user's own.
Its identity is a digest of all that its output depends on: weights, side, normalisation, and custom code.

Left out: feature pyramids and intermediate maps; explaining a classifier hooks the network itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from phoropter.core.errors import SpecError, WeightsError, cut_message
from phoropter.core.files import digest, digest_array
from phoropter.core.seeds import seed_of
from phoropter.models import pretrained, timm_compat
from phoropter.models.catalog import Architecture, BuildRecord
from phoropter.models.spec import Backbone, BackboneSpec
from phoropter.models.weights.state_dicts import load_state_dict_strictly, read_state_dict
from phoropter.models.weights.weight_files import WeightFile

Pooling = Literal["pooled", "map", "tokens", "custom"]
CHUNK_ELEMENTS = 2**18  # values converted to float at a time: one megabyte stays in a core's cache


class BackboneModule(nn.Module):
    """A network without its last layer.

    name: as in the spec · architecture: without tag · num_features: D · side: s
    pretrained_heads: its last layer, or the two of a distilled network; filled only by `keep_heads`, not counted as parameters
    pooling: `pooled`: as the pretrained head reads it · `map`: the last map averaged over places · `tokens`: class and
    distillation token side by side, so that D is twice a token's width · `custom`: the output of a custom network, maps averaged
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, name: str, body: Any, record: BuildRecord, pooling: Pooling, custom: Backbone | None = None) -> None:
        super().__init__()
        preprocessing = record.preprocessing
        self.body, self.build_record, self.pooling, self.custom = body, record, pooling, custom
        self.name, self.architecture, self.num_features = name, name.partition(".")[0], 0
        self.side, self.mean, self.std = preprocessing.side, preprocessing.mean, preprocessing.std
        self.interpolation = preprocessing.interpolation
        self.pretrained_heads: tuple[nn.Module, ...] = ()
        mean, std = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (self.mean, self.std))
        self.register_buffer("scale", (1 / (255 * std)).float(), persistent=False)
        self.register_buffer("shift", (mean / std).float(), persistent=False)

    @property
    def identity(self) -> str:
        """Digest of everything its output depends on besides the image; recomputed each time, because weights change."""
        weights = {
            k: digest_array(_to_numpy(v)) for k, v in self.body.state_dict().items() if not k.endswith("num_batches_tracked")
        }
        code = [] if self.custom is None else [self.custom.identity(), self.custom.source_digest()]
        return digest(
            [self.architecture, self.build_record.options, self.pooling, self.side, self.mean, self.std, weights, *code]
        )

    def preprocess(self, pictures: Tensor) -> Tensor:
        """(B, 3, S, S) uint8, or float in 0..255 → (B, 3, s, s) resized (bilinear, antialiased) and normalised."""
        in_chunks = pictures.dtype is torch.uint8 and pictures.device.type == "cpu" and not torch.compiler.is_compiling()
        if in_chunks and pictures.shape[-2:] == (self.side, self.side):
            return self._preprocess_in_chunks(pictures)
        x = pictures.float()
        if x.shape[-2:] != (self.side, self.side):
            x = F.interpolate(x, size=(self.side, self.side), mode="bilinear", antialias=True, align_corners=False)
        return x * self.scale - self.shift if x is pictures else self._normalize_inplace(x)

    def _preprocess_in_chunks(self, pictures: Tensor) -> Tensor:
        """Bit-identical to one pass over the batch, but each chunk is still in the cache when it is scaled."""
        normalized = torch.empty_like(pictures, dtype=torch.float32)
        count = max(1, CHUNK_ELEMENTS // math.prod(pictures.shape[1:]))
        rows, scale, shift = self._flatten_channels_last(normalized)
        for start in range(0, len(pictures), count):
            normalized[start : start + count].copy_(pictures[start : start + count])
            rows[start : start + count].mul_(scale).sub_(shift)
        return normalized

    def _normalize_inplace(self, x: Tensor) -> Tensor:
        """x · scale − shift, bit-identical, in the memory of x."""
        if x.requires_grad:
            return x * self.scale - self.shift
        rows, scale, shift = self._flatten_channels_last(x)
        rows.mul_(scale).sub_(shift)
        return x

    def _flatten_channels_last(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A view of x to be scaled in place, with its scale and shift.

        Channels-last images are viewed as (B, s, 3 s): rows of only three values would make the kernels 4 × slower.
        """
        interleaved = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        if not interleaved or x.device.type != "cpu" or torch.compiler.is_compiling():
            return x, self.scale, self.shift
        scale, shift = (of.flatten().repeat(self.side) for of in (self.scale, self.shift))
        return x.permute(0, 2, 3, 1).flatten(2), scale, shift

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, s, s) normalised → (B, D)."""
        body: Any = self.body
        if self.pooling == "pooled":
            features: Tensor = body(x)
        elif self.pooling == "tokens":
            features = body.head_drop(body.forward_features(x)[:, :2]).flatten(1)
        elif self.pooling == "custom":
            features = body(x)
            features = features.mean((2, 3)) if features.ndim == 4 else features
        else:
            features = _global_average_pool(body, x)
        return features

    @cached_property
    def no_decay_names(self) -> frozenset[str]:
        """Names within the body that its authors exempt from weight decay."""
        exempt = getattr(self.body, "no_weight_decay", None)
        return frozenset(exempt()) if exempt else frozenset()


def build_backbone(
    spec: BackboneSpec,
    *,
    seed: int,
    base: Path | None = None,
    keep_heads: bool = False,
    tokens: bool = False,
    again: BuildRecord | None = None,
    stored: int | None = None,
) -> BackboneModule:
    """Builds the network of a spec with its weights, in eval mode. Its random parts depend on `seed` and the name alone.

    base: the folder relative paths start from · keep_heads: keep its own last layer, after a check that it can be separated ·
    tokens: return class and distillation token side by side · again: a recorded build to repeat, with random weights ·
    stored: numbers in the file that its weights are read from later; a larger network is refused

    Raises SpecError (name, size, option, custom code) and WeightsError (missing, not fitting). No global generator is touched.
    """
    plan = pretrained.resolve_load_plan(spec, base, again)
    if stored is not None:
        pretrained.check_parameter_count(plan, stored)
    with seeded_rng(seed_of(seed, "weights", plan.architecture.name)):
        body, classes = pretrained.build_body(plan)
    pooling: Pooling = (
        "tokens" if tokens else "map" if spec.pooling == "average" else "pooled" if spec.custom is None else "custom"
    )
    backbone = BackboneModule(spec.name, body, replace(plan.build_record, num_classes=classes), pooling, spec.custom)
    reference = _compute_reference_logits(backbone) if keep_heads else None
    heads = _detach_heads(backbone) if spec.custom is None else ()
    if plan.weight_file is not None and plan.weight_file.layout == "bundle":
        _load_bundle_branch(backbone, plan.weight_file)
    backbone.eval()
    if spec.custom is not None:
        backbone.num_features = _check_custom_features(backbone, spec.custom)
    else:
        backbone.num_features = _look_up_num_features(backbone, plan.architecture) or _infer_num_features(backbone)
    if reference is not None:
        backbone.pretrained_heads = heads
        _check_pretrained_heads(backbone, reference)
    return backbone


def _load_bundle_branch(backbone: BackboneModule, found: WeightFile) -> None:
    """Loads the weights of one branch of a bundle."""
    prefix = f"backbones.{found.branch}.body."
    state = {k.removeprefix(prefix): v for k, v in read_state_dict(found.path).items() if k.startswith(prefix)}
    load_state_dict_strictly(backbone.body, state, found.path, backbone.name)


def _detach_heads(backbone: BackboneModule) -> tuple[nn.Module, ...]:
    """Removes the last layer from the body and returns it (a distilled network has two, a headless one none)."""
    body: Any = backbone.body
    if hasattr(body, "get_classifier"):
        last = body.get_classifier()
        heads = tuple(last) if isinstance(last, (tuple, list, nn.ModuleList)) else (last,)
        body.reset_classifier(0)
        if backbone.pooling == "map":
            _prune_to_feature_map(backbone)
    else:
        heads = (body.classifier[-1],)
        body.classifier[-1] = nn.Identity()
        if backbone.pooling == "map":
            body.classifier = body.avgpool = nn.Identity()
    return tuple(h for h in heads if not isinstance(h, nn.Identity))


def _prune_to_feature_map(backbone: BackboneModule) -> None:
    """Removes the layers between the last map and the last layer, so that no parameter is left without a gradient."""
    body: Any = backbone.body
    try:
        body.prune_intermediate_layers(1, prune_norm=False, prune_head=True)
    except (AttributeError, TypeError, AssertionError, NotImplementedError):
        raise SpecError(f"backbone '{backbone.name}' does not expose its last feature map; leave out pooling: average") from None


def _global_average_pool(body: Any, x: Tensor) -> Tensor:
    """(B, 3, s, s) → (B, D): the mean of the last map over places, or of the patch tokens."""
    out: Tensor = body.forward_features(x) if hasattr(body, "forward_features") else body.features(x)
    if out.ndim == 3:
        return out[:, getattr(body, "num_prefix_tokens", 0) :].mean(1)
    return out.mean((1, 2) if getattr(body, "output_fmt", "NCHW") == "NHWC" else (2, 3))


def _look_up_num_features(backbone: BackboneModule, entry: Architecture) -> int | None:
    """D, as the catalogue measured it; None where options, the pooling or the side may make it another, or do not work.

    A pass on the meta device imports a part of torch, for longer than a network of usual size needs for an image. None, too,
    where timm says another width of the network it built than the one it had when the catalogue was made.
    """
    usual = backbone.pooling == "pooled" and not backbone.build_record.options and entry.accepts_side(backbone.side)
    said = [getattr(backbone.body, name, None) for name in ("head_hidden_size", "num_features")]
    widths = [width for width in said if isinstance(width, int)]
    return entry.num_features if usual and (not widths or entry.num_features in widths) else None


def _infer_num_features(backbone: BackboneModule) -> int:
    """D, from a pass of two images on the meta device. Raises SpecError if the network fails at its input size."""
    s = backbone.side
    try:
        tensors = {n: t.to("meta") for n, t in (*backbone.named_parameters(), *backbone.named_buffers())}
        with timm_compat.defer_compiler(), torch.no_grad():
            out = functional_call(backbone, tensors, (torch.empty(2, 3, s, s, device="meta"),))
        if not isinstance(out, Tensor) or out.ndim != 2:
            raise ValueError("it does not return one feature vector per image")
        return out.shape[1]
    except Exception as error:
        first = cut_message(error, 160)
        raise SpecError(f"backbone '{backbone.name}' does not accept images of {s} pixels: {first}") from error


def _check_custom_features(backbone: BackboneModule, custom: Backbone) -> int:
    """D, after a pass of two black images on the CPU: a network of unknown code may not run on the meta device."""
    images = torch.zeros(2, 3, backbone.side, backbone.side)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            out: Any = backbone.body(images)
    except Exception as error:
        first = cut_message(error, 160)
        raise SpecError(
            f"backbone '{custom.name}' fails on a batch of shape {tuple(images.shape)}: {first}; set input_size, or correct build"
        ) from error
    expected = isinstance(out, Tensor) and out.ndim in (2, 4) and out.shape[:2] == (2, custom.width) and out.is_floating_point()
    if not expected:
        came = f"shape {tuple(out.shape)} and type {out.dtype}" if isinstance(out, Tensor) else type(out).__name__
        raise SpecError(
            f"backbone '{custom.name}' returns {came} for two images, expected float features of shape (2, {custom.width}) "
            f"or a map (2, {custom.width}, H, W); correct width, or what build returns"
        )
    return custom.width


def _compute_reference_logits(backbone: BackboneModule) -> tuple[Tensor, Tensor]:
    """An image of noise, and the logits of the complete network for it."""
    if not backbone.build_record.num_classes:
        raise WeightsError(f"the weights of '{backbone.name}' have no last layer of their own; choose head linear or dense")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, backbone.side, backbone.side, generator=generator)
    with torch.no_grad():
        return x, backbone.body.eval()(x)


def _check_pretrained_heads(backbone: BackboneModule, reference: tuple[Tensor, Tensor]) -> None:
    """Raises WeightsError unless the detached heads on the features reproduce the logits of the complete network."""
    x, expected = reference
    with torch.no_grad():
        features = backbone(x)
        parts = features.chunk(len(backbone.pretrained_heads) or 1, dim=1)
        try:
            logits = [_apply_head(head, part) for head, part in zip(backbone.pretrained_heads, parts, strict=True)]
            same = torch.allclose(torch.stack(logits).mean(0), expected, rtol=1e-3, atol=1e-4)
        except (RuntimeError, ValueError):
            same = False
    if not same:
        raise WeightsError(
            f"the pretrained head of '{backbone.name}' cannot be separated from its features; choose head linear or dense"
        )


def _apply_head(head: nn.Module, features: Tensor) -> Tensor:
    logits: Tensor = head(features[:, :, None, None]).flatten(1) if isinstance(head, nn.Conv2d) else head(features)
    return logits


def _to_numpy(tensor: Tensor) -> Any:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).contiguous().numpy()


@contextmanager
def seeded_rng(seed: int) -> Iterator[None]:
    """Seeds torch's CPU generator within the block and restores its state afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield

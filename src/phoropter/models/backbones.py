"""The one door to pretrained networks: (B, 3, s, s) normalised pictures → (B, D) pooled features, and the input a network wants.

A Backbone is a timm network, torchvision's `alexnet`, or `alexnet_2012`, without its last layer. Its preparation (side, mean,
deviation) belongs to its weights. Its identity is a digest of what it would answer with: weights, side, normalisation.

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

from phoropter.core.errors import SpecError, WeightsError
from phoropter.core.files import digest, digest_array
from phoropter.core.seeds import seed_of
from phoropter.models import pretrained
from phoropter.models.pretrained import BuildRecord
from phoropter.models.spec import BackboneSpec
from phoropter.models.weights.state_dicts import load_state_dict_strictly, read_state_dict
from phoropter.models.weights.weight_files import WeightFile

Pooling = Literal["pooled", "map", "tokens"]
CHUNK_ELEMENTS = 2**18  # numbers that are turned into floats at a time: a megabyte stays in a core's cache


class Backbone(nn.Module):
    """A network without its last layer.

    name: as in the spec · architecture: without tag · width: D · side: s
    own_heads: its last layer, or the two of a distilled network, kept only when asked for and not counted among the parameters

    reading: `pooled` as the pretrained head reads it · `map` the last map averaged over places · `tokens` class and distillation
    token side by side, so that D is twice a token's width
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, name: str, body: Any, made: BuildRecord, reading: Pooling) -> None:
        super().__init__()
        preparation = made.preprocessing
        self.body, self.build_record, self.pooling = body, made, reading
        self.name, self.architecture, self.num_features = name, name.partition(".")[0], 0
        self.side, self.mean, self.std = preparation.side, preparation.mean, preparation.std
        self.interpolation = preparation.interpolation
        self.pretrained_heads: tuple[nn.Module, ...] = ()
        mean, std = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (self.mean, self.std))
        self.register_buffer("scale", (1 / (255 * std)).float(), persistent=False)
        self.register_buffer("shift", (mean / std).float(), persistent=False)

    @property
    def pretrained_head(self) -> nn.Module | None:
        """The pretrained last layer, (B, D) → (B, classes), where there is exactly one and it was kept."""
        return self.pretrained_heads[0] if len(self.pretrained_heads) == 1 else None

    @property
    def identity(self) -> str:
        """A digest of everything its answer depends on besides the picture; computed anew each time, for weights change."""
        weights = {
            k: digest_array(_to_numpy(v)) for k, v in self.body.state_dict().items() if not k.endswith("num_batches_tracked")
        }
        return digest([self.architecture, self.build_record.options, self.pooling, self.side, self.mean, self.std, weights])

    def preprocess(self, pictures: Tensor) -> Tensor:
        """(B, 3, S, S) uint8, or float in 0..255 → (B, 3, s, s) resized (bilinear, antialiased) and normalised."""
        here = pictures.dtype is torch.uint8 and pictures.device.type == "cpu" and not torch.compiler.is_compiling()
        if here and pictures.shape[-2:] == (self.side, self.side):
            return self._preprocess_in_chunks(pictures)
        x = pictures.float()
        if x.shape[-2:] != (self.side, self.side):
            x = F.interpolate(x, size=(self.side, self.side), mode="bilinear", antialias=True, align_corners=False)
        return x * self.scale - self.shift if x is pictures else self._normalize_inplace(x)

    def _preprocess_in_chunks(self, pictures: Tensor) -> Tensor:
        """As all at once, to the bit: what has been made a number is still in the cache when it is scaled."""
        made = torch.empty_like(pictures, dtype=torch.float32)
        count = max(1, CHUNK_ELEMENTS // math.prod(pictures.shape[1:]))
        rows, scale, shift = self._flatten_channels_last(made)
        for start in range(0, len(pictures), count):
            made[start : start + count].copy_(pictures[start : start + count])
            rows[start : start + count].mul_(scale).sub_(shift)
        return made

    def _normalize_inplace(self, x: Tensor) -> Tensor:
        """As x · scale − shift, to the bit, in x's own memory."""
        if x.requires_grad:
            return x * self.scale - self.shift
        rows, scale, shift = self._flatten_channels_last(x)
        rows.mul_(scale).sub_(shift)
        return x

    def _flatten_channels_last(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x as it is scaled where it lies, and its scale and shift. Where colours lie together it is (B, s, 3 s): three numbers
        are too short a row for the kernels, 4 × slower."""
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
        else:
            features = _global_average_pool(body, x)
        return features

    @cached_property
    def no_decay_names(self) -> frozenset[str]:
        """Names within the body that its makers exempt from weight decay."""
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
) -> Backbone:
    """The network a spec names, with its weights, in eval mode. Its random parts are a function of `seed` and the name.

    base: the folder relative paths start from · keep_heads: keep its own last layer, checked to be separable ·
    tokens: read class and distillation token apart · again: how it was made before, to be made so again from random weights

    Raises SpecError (name, size, option) and WeightsError (not to be had, not fitting). No global generator is touched.
    """
    plan = pretrained.resolve_load_plan(spec, base, again)
    with seeded_rng(seed_of(seed, "weights", plan.architecture.name)):
        body, classes = pretrained.build_body(plan)
    reading: Pooling = "tokens" if tokens else "map" if spec.pool == "average" else "pooled"
    backbone = Backbone(spec.name, body, replace(plan.build_record, num_classes=classes), reading)
    whole = _compute_reference_logits(backbone) if keep_heads else None
    heads = _detach_heads(backbone)
    if plan.weight_file is not None and plan.weight_file.layout == "bundle":
        _load_bundle_branch(backbone, plan.weight_file)
    backbone.eval()
    backbone.num_features = _infer_num_features(backbone)
    if whole is not None:
        backbone.pretrained_heads = heads
        _check_pretrained_heads(backbone, whole)
    return backbone


def _load_bundle_branch(backbone: Backbone, found: WeightFile) -> None:
    """The body of one branch out of a bundle's tensors."""
    prefix = f"backbones.{found.branch}.body."
    state = {k.removeprefix(prefix): v for k, v in read_state_dict(found.path).items() if k.startswith(prefix)}
    load_state_dict_strictly(backbone.body, state, found.path, backbone.name)


def _detach_heads(backbone: Backbone) -> tuple[nn.Module, ...]:
    """Takes the last layer off the body and returns it (a distilled network has two, a headless one none)."""
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


def _prune_to_feature_map(backbone: Backbone) -> None:
    """Removes what stands between the last map and the last layer, so that no parameter is left without a gradient."""
    body: Any = backbone.body
    try:
        body.prune_intermediate_layers(1, prune_norm=False, prune_head=True)
    except (AttributeError, TypeError, AssertionError, NotImplementedError):
        raise SpecError(f"backbone '{backbone.name}' does not give its last map; leave out pool: average") from None


def _global_average_pool(body: Any, x: Tensor) -> Tensor:
    """(B, 3, s, s) → (B, D): the mean over places of the last map, or over the picture's tokens."""
    out: Tensor = body.forward_features(x) if hasattr(body, "forward_features") else body.features(x)
    if out.ndim == 3:
        return out[:, getattr(body, "num_prefix_tokens", 0) :].mean(1)
    return out.mean((1, 2) if getattr(body, "output_fmt", "NCHW") == "NHWC" else (2, 3))


def _infer_num_features(backbone: Backbone) -> int:
    """D, from a pass of two pictures that have a shape and no numbers. Raises SpecError where the network refuses its side."""
    s = backbone.side
    try:
        tensors = {n: t.to("meta") for n, t in (*backbone.named_parameters(), *backbone.named_buffers())}
        with torch.no_grad():
            out = functional_call(backbone, tensors, (torch.empty(2, 3, s, s, device="meta"),))
        if not isinstance(out, Tensor) or out.ndim != 2:
            raise ValueError("it does not give one feature vector a picture")
        return out.shape[1]
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise SpecError(f"backbone '{backbone.name}' cannot be shown pictures of {s} pixels as asked: {first}") from error


def _compute_reference_logits(backbone: Backbone) -> tuple[Tensor, Tensor]:
    """A picture of noise and the whole network's logits for it."""
    if not backbone.build_record.num_classes:
        raise WeightsError(f"the weights of '{backbone.name}' have no last layer of their own; choose head linear or dense")
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, backbone.side, backbone.side, generator=draw)
    with torch.no_grad():
        return x, backbone.body.eval()(x)


def _check_pretrained_heads(backbone: Backbone, whole: tuple[Tensor, Tensor]) -> None:
    """The kept heads on the features must answer as the whole network did."""
    x, expected = whole
    with torch.no_grad():
        features = backbone(x)
        parts = features.chunk(len(backbone.pretrained_heads) or 1, dim=1)
        try:
            said = [_apply_head(head, part) for head, part in zip(backbone.pretrained_heads, parts, strict=True)]
            same = torch.allclose(torch.stack(said).mean(0), expected, rtol=1e-3, atol=1e-4)
        except (RuntimeError, ValueError):
            same = False
    if not same:
        raise WeightsError(
            f"the own head of '{backbone.name}' cannot be told apart from its features; choose head linear or dense"
        )


def _apply_head(head: nn.Module, features: Tensor) -> Tensor:
    said: Tensor = head(features[:, :, None, None]).flatten(1) if isinstance(head, nn.Conv2d) else head(features)
    return said


def _to_numpy(tensor: Tensor) -> Any:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).contiguous().numpy()


@contextmanager
def seeded_rng(seed: int) -> Iterator[None]:
    """torch's CPU generator begins at `seed` and is afterwards where it was before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield

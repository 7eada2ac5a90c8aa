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
from phoropter.models import bodies
from phoropter.models.bodies import Made
from phoropter.models.sources import Found
from phoropter.models.spec import BackboneSpec
from phoropter.models.weights import load_strictly, read_state

Reading = Literal["pooled", "map", "tokens"]
PIECE = 2**18  # numbers that are turned into floats at a time: a megabyte stays in a core's cache


class Backbone(nn.Module):
    """A network without its last layer.

    name: as in the spec · architecture: without tag · width: D · side: s
    own_heads: its last layer, or the two of a distilled network, kept only when asked for and not counted among the parameters

    reading: `pooled` as the pretrained head reads it · `map` the last map averaged over places · `tokens` class and distillation
    token side by side, so that D is twice a token's width
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, name: str, body: Any, made: Made, reading: Reading) -> None:
        super().__init__()
        preparation = made.preparation
        self.body, self.made, self.reading = body, made, reading
        self.name, self.architecture, self.width = name, name.partition(".")[0], 0
        self.side, self.mean, self.std = preparation.side, preparation.mean, preparation.std
        self.interpolation = preparation.interpolation
        self.own_heads: tuple[nn.Module, ...] = ()
        mean, std = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (self.mean, self.std))
        self.register_buffer("scale", (1 / (255 * std)).float(), persistent=False)
        self.register_buffer("shift", (mean / std).float(), persistent=False)

    @property
    def own_head(self) -> nn.Module | None:
        """The pretrained last layer, (B, D) → (B, classes), where there is exactly one and it was kept."""
        return self.own_heads[0] if len(self.own_heads) == 1 else None

    @property
    def identity(self) -> str:
        """A digest of everything its answer depends on besides the picture; computed anew each time, for weights change."""
        weights = {
            k: digest_array(_numbers(v)) for k, v in self.body.state_dict().items() if not k.endswith("num_batches_tracked")
        }
        return digest([self.architecture, self.made.options, self.reading, self.side, self.mean, self.std, weights])

    def prepare(self, pictures: Tensor) -> Tensor:
        """(B, 3, S, S) uint8, or float in 0..255 → (B, 3, s, s) resized (bilinear, antialiased) and normalised."""
        here = pictures.dtype is torch.uint8 and pictures.device.type == "cpu" and not torch.compiler.is_compiling()
        if here and pictures.shape[-2:] == (self.side, self.side):
            return self._piece_by_piece(pictures)
        x = pictures.float()
        if x.shape[-2:] != (self.side, self.side):
            x = F.interpolate(x, size=(self.side, self.side), mode="bilinear", antialias=True, align_corners=False)
        return x * self.scale - self.shift if x is pictures else self._normalised(x)

    def _piece_by_piece(self, pictures: Tensor) -> Tensor:
        """As all at once, to the bit: what has been made a number is still in the cache when it is scaled."""
        made = torch.empty_like(pictures, dtype=torch.float32)
        count = max(1, PIECE // math.prod(pictures.shape[1:]))
        rows, scale, shift = self._rows(made)
        for start in range(0, len(pictures), count):
            made[start : start + count].copy_(pictures[start : start + count])
            rows[start : start + count].mul_(scale).sub_(shift)
        return made

    def _normalised(self, x: Tensor) -> Tensor:
        """As x · scale − shift, to the bit, in x's own memory."""
        if x.requires_grad:
            return x * self.scale - self.shift
        rows, scale, shift = self._rows(x)
        rows.mul_(scale).sub_(shift)
        return x

    def _rows(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
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
        if self.reading == "pooled":
            features: Tensor = body(x)
        elif self.reading == "tokens":
            features = body.head_drop(body.forward_features(x)[:, :2]).flatten(1)
        else:
            features = _averaged_over_places(body, x)
        return features

    @cached_property
    def undecayed(self) -> frozenset[str]:
        """Names within the body that its makers exempt from weight decay."""
        exempt = getattr(self.body, "no_weight_decay", None)
        return frozenset(exempt()) if exempt else frozenset()


def build(
    spec: BackboneSpec,
    *,
    seed: int,
    base: Path | None = None,
    keep_heads: bool = False,
    tokens: bool = False,
    again: Made | None = None,
) -> Backbone:
    """The network a spec names, with its weights, in eval mode. Its random parts are a function of `seed` and the name.

    base: the folder relative paths start from · keep_heads: keep its own last layer, checked to be separable ·
    tokens: read class and distillation token apart · again: how it was made before, to be made so again from random weights

    Raises SpecError (name, size, option) and WeightsError (not to be had, not fitting). No global generator is touched.
    """
    plan = bodies.plan(spec, base, again)
    with seeded(seed_of(seed, "weights", plan.entry.name)):
        body, classes = bodies.body_of(plan)
    reading: Reading = "tokens" if tokens else "map" if spec.pool == "average" else "pooled"
    backbone = Backbone(spec.name, body, replace(plan.made, classes=classes), reading)
    whole = _own_answer(backbone) if keep_heads else None
    heads = _behead(backbone)
    if plan.found is not None and plan.found.layout == "bundle":
        _load_branch(backbone, plan.found)
    backbone.eval()
    backbone.width = _width(backbone)
    if whole is not None:
        backbone.own_heads = heads
        _check_heads(backbone, whole)
    return backbone


def _load_branch(backbone: Backbone, found: Found) -> None:
    """The body of one branch out of a bundle's tensors."""
    prefix = f"backbones.{found.branch}.body."
    state = {k.removeprefix(prefix): v for k, v in read_state(found.path).items() if k.startswith(prefix)}
    load_strictly(backbone.body, state, found.path, backbone.name)


def _behead(backbone: Backbone) -> tuple[nn.Module, ...]:
    """Takes the last layer off the body and returns it (a distilled network has two, a headless one none)."""
    body: Any = backbone.body
    if hasattr(body, "get_classifier"):
        last = body.get_classifier()
        heads = tuple(last) if isinstance(last, (tuple, list, nn.ModuleList)) else (last,)
        body.reset_classifier(0)
        if backbone.reading == "map":
            _prune_to_map(backbone)
    else:
        heads = (body.classifier[-1],)
        body.classifier[-1] = nn.Identity()
        if backbone.reading == "map":
            body.classifier = body.avgpool = nn.Identity()
    return tuple(h for h in heads if not isinstance(h, nn.Identity))


def _prune_to_map(backbone: Backbone) -> None:
    """Removes what stands between the last map and the last layer, so that no parameter is left without a gradient."""
    body: Any = backbone.body
    try:
        body.prune_intermediate_layers(1, prune_norm=False, prune_head=True)
    except (AttributeError, TypeError, AssertionError, NotImplementedError):
        raise SpecError(f"backbone '{backbone.name}' does not give its last map; leave out pool: average") from None


def _averaged_over_places(body: Any, x: Tensor) -> Tensor:
    """(B, 3, s, s) → (B, D): the mean over places of the last map, or over the picture's tokens."""
    out: Tensor = body.forward_features(x) if hasattr(body, "forward_features") else body.features(x)
    if out.ndim == 3:
        return out[:, getattr(body, "num_prefix_tokens", 0) :].mean(1)
    return out.mean((1, 2) if getattr(body, "output_fmt", "NCHW") == "NHWC" else (2, 3))


def _width(backbone: Backbone) -> int:
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


def _own_answer(backbone: Backbone) -> tuple[Tensor, Tensor]:
    """A picture of noise and the whole network's logits for it."""
    if not backbone.made.classes:
        raise WeightsError(f"the weights of '{backbone.name}' have no last layer of their own; choose head linear or dense")
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, backbone.side, backbone.side, generator=draw)
    with torch.no_grad():
        return x, backbone.body.eval()(x)


def _check_heads(backbone: Backbone, whole: tuple[Tensor, Tensor]) -> None:
    """The kept heads on the features must answer as the whole network did."""
    x, expected = whole
    with torch.no_grad():
        features = backbone(x)
        parts = features.chunk(len(backbone.own_heads) or 1, dim=1)
        try:
            said = [_asked(head, part) for head, part in zip(backbone.own_heads, parts, strict=True)]
            same = torch.allclose(torch.stack(said).mean(0), expected, rtol=1e-3, atol=1e-4)
        except (RuntimeError, ValueError):
            same = False
    if not same:
        raise WeightsError(
            f"the own head of '{backbone.name}' cannot be told apart from its features; choose head linear or dense"
        )


def _asked(head: nn.Module, features: Tensor) -> Tensor:
    said: Tensor = head(features[:, :, None, None]).flatten(1) if isinstance(head, nn.Conv2d) else head(features)
    return said


def _numbers(tensor: Tensor) -> Any:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).contiguous().numpy()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's CPU generator begins at `seed` and is afterwards where it was before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield

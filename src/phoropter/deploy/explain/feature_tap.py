"""Records the map or the tokens of a network that a class map is made of, and gives them as (B, C, h, w).

Which layer, where the caller names none:

| network | layer |
|---|---|
| timm's convolutional networks, Swin, CoAtNet, MaxViT, PoolFormer, mixers | what `forward_features` returns: the last map |
| the same on small pictures, where that has fewer than MIN_PLACES a side | the last stage of `feature_info` that has so many |
| ViT, DeiT and others whose answer is read off a class token | the last block but one: after the last, patches count no more |
| `alexnet`, `alexnet_2012` and networks of the user's own | the last layer that gives a map and is not a pooling |

Maps may be stored as (B, C, h, w) or (B, h, w, C); of tokens, those before the patches (class, distillation, registers) are left
out. The recorded values are cut from the layers before them, so that no gradient is computed there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from phoropter.core.errors import SpecError, did_you_mean
from phoropter.models.backbones import BackboneModule

MIN_PLACES = 4  # a side: coarser maps say hardly more than that there is a picture
_NO_MAPS_OF_THEIR_OWN = (nn.Dropout, nn.Dropout2d, nn.Identity, nn.Flatten)


@dataclass
class FeatureTap:
    """What was recorded of a backbone in a forward pass.

    backbone: the network · layer: name of the layer · values: what it gave, a leaf whose gradient can be asked for
    """

    backbone: BackboneModule
    layer: str
    values: Tensor | None = None

    def record(self, values: Any) -> Tensor:
        """Keeps the values and returns a copy, because layers that follow may work in place."""
        if not isinstance(values, Tensor) or values.ndim not in (3, 4):
            raise self.refuse("gives no map and no tokens")
        self.values = values.detach().requires_grad_()
        return self.values.clone()

    def refuse(self, what: str) -> SpecError:
        """The error for a layer that cannot be used: what is wrong with it, and what to pass."""
        return _refuse_layer(self.backbone, self.layer, what)

    def to_map(self, values: Tensor) -> Tensor:
        """The recorded values, or their gradient → (B, C, h, w). Raises SpecError for tokens that are no square."""
        if values.ndim == 4:
            return values.permute(0, 3, 1, 2) if self._is_channels_last(values) else values
        side, prefix = math.isqrt(values.shape[1]), 0
        if side * side != values.shape[1]:
            prefix = int(getattr(self.backbone.body, "num_prefix_tokens", 1))
            side = math.isqrt(values.shape[1] - prefix)
        if side < 2 or side * side + prefix != values.shape[1]:
            raise self.refuse(f"gives {values.shape[1]} tokens, which are no square of patches")
        return values[:, prefix:].transpose(1, 2).reshape(len(values), -1, side, side)

    def _is_channels_last(self, values: Tensor) -> bool:
        first, middle, last = values.shape[1:]
        if first == middle == last or (first != middle and middle != last):
            return getattr(self.backbone.body, "output_fmt", "NCHW") == "NHWC"
        return first == middle


def find_branch_layer(backbone: BackboneModule, example: Tensor) -> str:
    """The layer of the table above: `forward_features`, or a name as in `named_modules` ("": the network itself).

    example: (B, 3, s, s) normalised, which a network of unknown structure is run on. Raises SpecError where there is no map.
    """
    body: Any = backbone.body
    if hasattr(body, "forward_features"):
        if not reads_class_token(backbone):
            return _find_fine_map(backbone, example)
        return f"blocks.{len(body.blocks) - 2}" if len(body.blocks) > 1 else "patch_embed"
    name = _find_last_map(body, example)
    if name is None:
        raise _refuse_layer(backbone, None, "has no layer whose output is a map")
    return name


def reads_class_token(backbone: BackboneModule) -> bool:
    """Whether the features of a network of blocks are those of its class token (or class and distillation token) alone."""
    body: Any = backbone.body
    if not getattr(body, "num_prefix_tokens", 0) or not hasattr(body, "blocks") or backbone.pooling == "map":
        return False
    return backbone.pooling == "tokens" or getattr(body, "global_pool", "") == "token"


@contextmanager
def tap_features(backbone: BackboneModule, layer: str) -> Iterator[FeatureTap]:
    """Within the block, each forward pass of the backbone records the layer's values. Raises SpecError for an unknown layer."""
    tap, body = FeatureTap(backbone, layer), backbone.body
    with ExitStack() as undo:
        if layer == "forward_features" and hasattr(body, "forward_features"):
            original = body.forward_features
            body.forward_features = lambda x, *args, **kwargs: tap.record(original(x, *args, **kwargs))
            undo.callback(delattr, body, "forward_features")
        else:
            modules = dict(body.named_modules())
            if layer not in modules:
                raise SpecError(
                    f"layer: '{layer}' is no layer of {backbone.name}{did_you_mean(layer, [n for n in modules if n])}"
                )
            undo.callback(modules[layer].register_forward_hook(lambda _, given, out: tap.record(out)).remove)
        yield tap


def _find_fine_map(backbone: BackboneModule, example: Tensor) -> str:
    """The last map of a timm network, or of its stages, that has MIN_PLACES a side; the last of all where none has."""
    known: Any = getattr(backbone.body, "feature_info", None)
    stages = [str(s["module"]) for s in reversed(known)] if isinstance(known, list) and known else []
    for layer in ("forward_features", *stages):
        with tap_features(backbone, layer) as tap, torch.no_grad():
            backbone(example)
        if tap.values is not None and min(tap.to_map(tap.values).shape[2:]) >= MIN_PLACES:
            return layer
    return "forward_features"


def _find_last_map(body: nn.Module, example: Tensor) -> str | None:
    """The last module that returns a map in a forward pass: the network itself, or one without parts that is no pooling."""
    found: list[str] = []
    handles = []
    for name, module in body.named_modules():
        leaf = not list(module.children()) and not isinstance(module, _NO_MAPS_OF_THEIR_OWN)
        if not name or (leaf and "Pool" not in type(module).__name__):

            def note_map(_: nn.Module, given: Any, out: Any, name: str = name) -> None:
                if isinstance(out, Tensor) and out.ndim == 4 and min(out.shape[2:]) > 1:
                    found.append(name)

            handles.append(module.register_forward_hook(note_map))
    try:
        with torch.no_grad():
            body(example)
    finally:
        for handle in handles:
            handle.remove()
    return found[-1] if found else None


def _refuse_layer(backbone: BackboneModule, layer: str | None, what: str) -> SpecError:
    subject = backbone.name if layer is None else f"layer '{layer}' of {backbone.name}"
    names = [n for n, _ in backbone.body.named_children()]
    example = f", such as layer='{_suggest_layer(backbone, names)}'" if names else ""
    return SpecError(f"{subject} {what}; pass the name of a layer whose output is a map or patch tokens{example}")


def _suggest_layer(backbone: BackboneModule, names: list[str]) -> str:
    """The last stage by timm's own table, or the first part of the network."""
    known = getattr(backbone.body, "feature_info", None)
    last = known[-1] if isinstance(known, list) and known else {}
    return str(last.get("module") or names[0]) if isinstance(last, dict) else names[0]

"""A classifier of one timm network in timm's own layout, so that timm alone opens it: `timm.create_model("local-dir:FOLDER")`.

    FOLDER/config.json          architecture, classes, options of the constructor, preprocessing
    FOLDER/model.safetensors    every parameter and buffer under timm's names

What timm has no place for is refused: several networks, hidden layers, networks of other libraries or of a user's own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from phoropter.core.errors import SpecError
from phoropter.core.files import write_json
from phoropter.data.images.decode import SquareResize
from phoropter.models import timm_compat
from phoropter.models.backbones import BackboneModule
from phoropter.models.catalog import describe_backbone
from phoropter.models.classifier import Classifier
from phoropter.models.distilled_vit import DistilledVitHead
from phoropter.models.heads import MlpHead, PretrainedHead, SingleHead
from phoropter.models.weights.state_dicts import save_state_dict

MAX_DIFFERENCE = 1e-4  # of a logit, between timm's network and the classifier, relative to the largest
_CROP_MODES = {"center-crop": "center", "stretch": "squash", "pad": "border"}  # ours → timm's


def make_timm_module(classifier: Classifier) -> nn.Module:
    """The classifier as timm's own network: (B, 3, s, s) normalised → (B, C) logits, in eval mode.

    Its images are what `classifier.branches[0].preprocess` makes. Raises SpecError, with the reason, for a classifier that timm
    cannot hold, and for one whose logits it would not reproduce.
    """
    backbone, heads = _find_parts(classifier)
    options = _constructor_options(backbone, classifier)
    module: Any = timm_compat.import_timm().create_model(
        backbone.architecture, num_classes=len(classifier.spec.classes), **options
    )
    _load_weights(module, backbone, heads)
    module.eval()
    _check_same_logits(module, classifier)
    timm_module: nn.Module = module
    return timm_module


def write_timm_layout(classifier: Classifier, square: SquareResize, folder: Path) -> None:
    """Writes timm's layout into a new folder. square: how its pictures become square. Raises as `make_timm_module`."""
    module = make_timm_module(classifier)
    folder.mkdir(parents=True)
    save_state_dict(module, folder / "model.safetensors")
    write_json(folder / "config.json", _describe_module(module, classifier, square))


def _find_parts(classifier: Classifier) -> tuple[BackboneModule, list[MlpHead | PretrainedHead]]:
    """Its network and its last layers: one, or two of a distilled network. Raises SpecError where timm has no place for them."""
    spec, backbone = classifier.spec, classifier.branches[0]
    if len(classifier.branches) > 1:
        raise _refuse(f"it joins {len(classifier.branches)} networks ({' + '.join(b.name for b in classifier.branches)})")
    if backbone.custom is not None:
        raise _refuse(f"'{backbone.name}' is a network of your own")
    if describe_backbone(spec.backbones[0]).family == "alexnet":
        raise _refuse(f"'{backbone.name}' is not a network of timm")
    if backbone.pooling == "map":
        raise _refuse("its features are averaged over the last map (pooling: average), after which timm has layers of its own")
    if "stem" in backbone.build_record.options:
        raise _refuse("its first layer is not timm's (stem: cifar)")
    head = classifier.head
    if isinstance(head, DistilledVitHead):
        heads = [head.class_head, head.token_head]
    elif isinstance(head, SingleHead):
        heads = [head.head]
    else:
        raise _refuse(f"its head is a {type(head).__name__}")
    if any(isinstance(h, MlpHead) and h.hidden is not None for h in heads):
        raise _refuse("its head has a hidden layer (head: dense)")
    return backbone, heads


def _refuse(reason: str) -> SpecError:
    return SpecError(f"the classifier cannot be written in timm's layout: {reason}; use the bundle itself")


def _constructor_options(backbone: BackboneModule, classifier: Classifier) -> dict[str, Any]:
    """What timm's constructor is given besides the number of classes."""
    entry, options = describe_backbone(classifier.spec.backbones[0]), dict(backbone.build_record.options)
    return options | ({"img_size": backbone.side} if entry.fixed_input_size and backbone.side != entry.side else {})


def _load_weights(module: Any, backbone: BackboneModule, heads: list[MlpHead | PretrainedHead]) -> None:
    last = module.get_classifier()
    layers: list[Any] = list(last) if isinstance(last, (tuple, list, nn.ModuleList)) else [last]
    names = {id(layer): name for name, layer in module.named_modules()}
    state: dict[str, Tensor] = dict(backbone.body.state_dict())
    if len(layers) != len(heads) or any(id(layer) not in names for layer in layers):
        raise _refuse(f"'{backbone.name}' has {len(layers)} last layers and the classifier {len(heads)}")
    for layer, head in zip(layers, heads, strict=True):
        for key, value in head.last.state_dict().items():
            place = dict(layer.named_parameters()).get(key)
            if place is None or place.numel() != value.numel():
                raise _refuse(f"the last layer of '{backbone.name}' has another shape in timm")
            state[f"{names[id(layer)]}.{key}"] = value.reshape(place.shape)  # timm writes some as 1×1 convolutions
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError:
        raise _refuse(f"the weights of '{backbone.name}' have no place in timm's network of this name") from None


@torch.no_grad()
def _check_same_logits(module: nn.Module, classifier: Classifier) -> None:
    """Raises SpecError unless both give the same logits for images of noise."""
    side, first = classifier.spec.picture, classifier.branches[0]
    device = next(classifier.parameters()).device
    noise = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = classifier.eval()(noise.to(device)).cpu()
    crop = min(classifier.spec.center_crop or side, side)
    start = (side - crop) // 2
    cut = noise[..., start : start + crop, start : start + crop].to(device)
    came = module(first.preprocess(cut).cpu())
    if came.shape != expected.shape or (came - expected).abs().max() > MAX_DIFFERENCE * max(1.0, float(expected.abs().max())):
        raise _refuse(f"timm's '{first.architecture}' gives other logits with these weights")


def _describe_module(module: Any, classifier: Classifier, square: SquareResize) -> dict[str, Any]:
    """The contents of config.json, under the keys that timm reads."""
    backbone, spec = classifier.branches[0], classifier.spec
    known = {key: module.pretrained_cfg.get(key) for key in ("classifier", "first_conv", "pool_size", "fixed_input_size")}
    preprocessing = {
        "input_size": [3, backbone.side, backbone.side],
        "mean": list(backbone.mean),
        "std": list(backbone.std),
        "interpolation": square.interpolation,
        "crop_pct": (spec.center_crop or spec.picture) / spec.picture,
        "crop_mode": _CROP_MODES[square.resize],
    }
    config = {
        "architecture": backbone.architecture,
        "num_classes": len(spec.classes),
        "num_features": int(module.num_features),
        "label_names": list(spec.classes),
        "model_args": _constructor_options(backbone, classifier),
        "pretrained_cfg": {**{k: v for k, v in known.items() if v is not None}, **preprocessing},
    }
    plain: dict[str, Any] = json.loads(json.dumps(config))
    return plain

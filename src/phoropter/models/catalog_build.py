"""Builds catalogue entries: measures the architectures of the installed timm on the meta device, without weights.

scripts/make_catalog.py measures all names once and writes the catalogue. `python -m phoropter.models.catalog_build NAME` prints
one line of it, for a name that only a newer timm knows. Nothing is downloaded.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from phoropter.models import timm_compat
from phoropter.models.alexnet import AlexNet2012

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
CANDIDATE_SIDES = (32, 48, 64, 96, 128, 160, 192, 224)

Facts = dict[str, Any]


def measure_architecture(name: str) -> Facts:
    """Sizes, counts and weights of a timm architecture. Raises what timm raises; ValueError if it gives no feature vector."""
    model = _build_on_meta(name)
    cfg = model.pretrained_cfg
    side, fixed = cfg["input_size"][1], bool(cfg.get("fixed_input_size"))
    facts: Facts = {"family": type(model).__module__.rpartition(".")[2], "fixed": fixed}
    facts |= {"parameters": _count_parameters(model), "macs": count_macs(model, side)}
    model.reset_classifier(0)
    width = _infer_num_features(model, side)
    facts |= {"body": _count_parameters(model), "width": width, "tags": _list_tags(name)}

    def accepts_side(other: int) -> bool:
        return _accepts_side_rebuilt(name, other, width) if fixed else _accepts_side(model, other, width)

    return {**facts, **_find_allowed_sides(accepts_side, side, _patch_size(model) if fixed else 1)}


def measure_non_timm() -> Iterator[tuple[str, Facts]]:
    """The two networks that are not from timm: torchvision's alexnet and alexnet_2012."""
    models = timm_compat.import_torchvision("models")
    with torch.device("meta"):
        networks = {"alexnet": models.alexnet(weights=None).eval(), "alexnet_2012": AlexNet2012().eval()}
    sources = {"alexnet": ("tv_in1k", models.AlexNet_Weights.IMAGENET1K_V1.url), "alexnet_2012": (None, None)}
    for name, model in networks.items():

        def accepts_side(side: int, model: nn.Module = model) -> bool:
            return _accepts_side(model, side, 1000)

        tag, url = sources[name]
        weights = {
            "tag": tag,
            "side": 224,
            "mean": IMAGENET_MEAN,
            "std": IMAGENET_STD,
            "crop_pct": 0.875,
            "interpolation": "bilinear",
        }
        yield (
            name,
            {
                "family": "alexnet",
                "fixed": False,
                "parameters": _count_parameters(model),
                "body": _count_parameters(model) - _count_parameters(model.classifier[-1]),
                "width": 4096,
                "macs": count_macs(model, 224),
                "tags": [{**weights, "classes": 1000, "hub": None, "file": None, "url": url}],
                **_find_allowed_sides(accepts_side, 224, 1),
            },
        )


def format_catalog_line(name: str, facts: Facts, configs: dict[str, int] | None = None) -> list[Any]:
    """Facts → a line of the catalogue, as catalog.py reads it.

    configs: collects the preprocessing that many weights share; without it each line contains its own
    """
    tags = []
    for t in facts["tags"]:
        config: Any = [t[k] for k in ("side", "mean", "std", "crop_pct", "interpolation", "classes")]
        if configs is not None:
            config = configs.setdefault(json.dumps(config), len(configs))
        usual = f"timm/{name}.{t['tag']}" if t["tag"] else None
        hub = 1 if usual and t["hub"] == usual else t["hub"]  # 1: where timm keeps its own
        tags.append([t["tag"], config, hub, t["file"], t["url"]])
    keys = ("family", "fixed", "multiple", "least", "parameters", "body", "width", "macs")
    return [*(facts[k] for k in keys), tags]


def count_macs(model: nn.Module, side: int) -> int | None:
    """Multiply-adds per image, from matrix products and convolutions alone; None where they cannot be counted."""
    try:
        with FlopCounterMode(display=False) as counter:
            _forward_on_meta(model, side)
        return counter.get_total_flops() // 2 // 2 or None  # two images; a multiply-add is two operations
    except TimeoutError:
        raise
    except Exception:
        return None


def _find_allowed_sides(works: Callable[[int], bool], side: int, step: int) -> Facts:
    """`multiple`: the side may grow by multiples of it (None: it may not change); `least`: the smallest tried side that works."""
    multiple = next((m for m in sorted({step, 2 * step, 8, 16, 32, 64, 7 * 32}) if m >= step and works(side + m)), None)
    if multiple is None:
        return {"multiple": None, "least": side}
    tried = [s for s in CANDIDATE_SIDES if s < side]
    if multiple > 1:
        tried = sorted({side - (side - s) // multiple * multiple for s in tried})
    return {"multiple": multiple, "least": next((s for s in tried if s > 0 and works(s)), side)}


def _list_tags(name: str) -> list[Facts]:
    """The default tag first; an architecture without weights has one entry, tag None."""
    timm, registry = timm_compat.import_timm(), timm_compat.import_timm("models._registry")
    default = registry._model_default_cfgs.get(name)
    found = []
    for tag in list(default.tags) if default else [""]:
        cfg = timm.get_pretrained_cfg(f"{name}.{tag}" if tag else name) or timm.models.PretrainedCfg()
        config = {"side": cfg.input_size[1], "mean": list(cfg.mean), "std": list(cfg.std), "crop_pct": cfg.crop_pct}
        url = cfg.url if isinstance(cfg.url, str) and not cfg.hf_hub_id else None
        place = {"hub": cfg.hf_hub_id or None, "file": cfg.hf_hub_filename or None, "url": url or None}
        found.append({"tag": tag or None, **config, "interpolation": cfg.interpolation, "classes": cfg.num_classes, **place})
    return found


def _build_on_meta(name: str, **options: Any) -> Any:
    with torch.device("meta"):
        # the FLOP counter fails on parameters that require gradients
        return timm_compat.import_timm().create_model(name, **options).eval().requires_grad_(False)


def _forward_on_meta(model: nn.Module, side: int) -> Any:
    with torch.no_grad():
        return model(torch.empty(2, 3, side, side, device="meta"))


def _infer_num_features(model: nn.Module, side: int) -> int:
    out = _forward_on_meta(model, side)
    if not isinstance(out, torch.Tensor) or out.ndim != 2:
        shape = tuple(getattr(out, "shape", ())) or type(out).__name__
        raise ValueError(f"its pooled features are {shape}, not one vector per image")
    return out.shape[1]


def _accepts_side(model: nn.Module, side: int, width: int) -> bool:
    try:
        return tuple(_forward_on_meta(model, side).shape) == (2, width)
    except TimeoutError:
        raise
    except Exception:
        return False


def _accepts_side_rebuilt(name: str, side: int, width: int) -> bool:
    try:
        return _accepts_side(_build_on_meta(name, img_size=side, num_classes=0), side, width)
    except TimeoutError:
        raise
    except Exception:
        return False


def _patch_size(model: Any) -> int:
    size = getattr(getattr(model, "patch_embed", None), "patch_size", 1)
    return int(size[0] if isinstance(size, (tuple, list)) else size)


def _count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(format_catalog_line(sys.argv[1], measure_architecture(sys.argv[1]))))

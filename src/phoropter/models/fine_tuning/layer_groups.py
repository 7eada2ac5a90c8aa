"""The layers of a network, as its authors at timm count them: the stem, then block by block, then the head.

timm's networks say by `group_matcher` which parameter belongs to which layer. Layer-wise learning rates, as in timm, and the last
blocks of a phase are both told by that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from phoropter.core.errors import SpecError
from phoropter.models import timm_compat
from phoropter.models.backbones import BackboneModule


@dataclass(frozen=True)
class LayerGroups:
    """layer_of: name of a parameter within the body → its layer, 0 for the stem · head: number of the head's layer, the last"""

    layer_of: dict[str, int]
    head: int

    @property
    def n_blocks(self) -> int:
        """Layers between the stem and the head."""
        return self.head - 1


def group_layers(backbone: BackboneModule, asked: str) -> LayerGroups:
    """The layers of a backbone. asked: the key of a recipe that asks for them, for the message.

    Raises SpecError for a network that does not tell.
    """
    body: Any = backbone.body
    matcher = getattr(body, "group_matcher", None)
    if matcher is None:
        raise SpecError(
            f"{asked} needs to know which parameters of '{backbone.name}' form a layer, and this network has no group_matcher as "
            f"timm's have; leave {asked} out for it"
        )
    names = [name for name, _ in body.named_parameters()]
    head = f"{_find_head_name(body)}.weight"  # which was taken off; timm counts it as the last layer
    listed = SimpleNamespace(named_parameters=lambda: ((n, None) for n in dict.fromkeys([*names, head])))
    found = timm_compat.import_timm("models").group_parameters(listed, matcher(coarse=False), reverse=True)
    last = max(found.values())
    return LayerGroups({name: found.get(name, last) for name in names}, last)


def _find_head_name(body: Any) -> str:
    """timm's name of the last layer; of a network with two, the first."""
    named = getattr(body, "pretrained_cfg", {}).get("classifier") or "head"
    return named if isinstance(named, str) else str(named[0])


def scale_layers(branches: Sequence[BackboneModule], decay: float) -> dict[str, float]:
    """Name of a backbone's parameter (`backbones.0.body.…`) → share of the rate that its layer is trained at.

    The head has 1, the layer before it `decay`, the one before that decay², as in BEiT (Bao et al. 2021) and in timm's
    `param_groups_layer_decay`. Raises SpecError for a network that does not tell its layers.
    """
    scales = {}
    for i, backbone in enumerate(branches):
        groups = group_layers(backbone, "layer_decay")
        for name, layer in groups.layer_of.items():
            scales[f"backbones.{i}.body.{name}"] = decay ** (groups.head - layer)
    return scales

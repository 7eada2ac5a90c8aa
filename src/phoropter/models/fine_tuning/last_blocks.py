"""The last blocks of a network trained, all before them frozen, and the frozen part computed by itself.

Which blocks a network has, timm says (layer_groups.py). What reaches the first trained block is all that the frozen part has to
say of a picture, so that it can be computed once and kept; the rest of the network then begins there.

Left out: networks in which something of the frozen part goes around the first trained block, as in DenseNets. They are trained
all the same, their frozen part computed in every epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from phoropter.core.errors import SpecError
from phoropter.models.backbones import BackboneModule
from phoropter.models.fine_tuning.layer_groups import LayerGroups, group_layers

RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 1e-4, 1e-5  # within which a network in two parts must answer as in one


def freeze_first_blocks(backbone: BackboneModule, count: int) -> list[nn.Module]:
    """Lets the last `count` blocks and all behind them be trained, and nothing else.

    Returns the modules that stay in eval mode, so that no running statistic of the frozen part changes. Raises SpecError for a
    network that does not tell its blocks, or has fewer.
    """
    groups, body = _group_blocks(backbone, count), backbone.body
    for name, parameter in body.named_parameters():
        parameter.requires_grad_(groups.layer_of[name] >= groups.head - count)
    leaves = [m for m in body.modules() if _is_leaf(m)]
    trained = [any(p.requires_grad for p in m.parameters()) for m in leaves]
    last_frozen = max((i for i, m in enumerate(leaves) if any(not p.requires_grad for p in m.parameters())), default=-1)
    # What has no parameters belongs where it stands: dropout behind the last frozen layer is that of its block
    end = next((i for i in range(last_frozen + 1, len(leaves)) if trained[i]), len(leaves))
    kept = {id(m) for m, is_trained in zip(leaves[:end], trained, strict=False) if not is_trained}
    return [m for m in body.modules() if all(id(leaf) in kept for leaf in m.modules() if _is_leaf(leaf))]


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None


def _group_blocks(backbone: BackboneModule, count: int) -> LayerGroups:
    groups = group_layers(backbone, f"train: last-{count}")
    if count > groups.n_blocks:
        raise SpecError(
            f"train: last-{count} is more than the {groups.n_blocks} blocks of '{backbone.name}'; choose at most "
            f"last-{groups.n_blocks}, or all"
        )
    return groups


class _PrefixDone(Exception):
    """Ends a pass where the frozen part ends."""


class SplitBackbone:
    """A backbone in two parts: (B, 3, s, s) → `forward_frozen` → (B, …) → `forward_trained` → (B, D).

    `split_backbone` makes one. It holds no weights of its own.
    """

    def __init__(self, backbone: BackboneModule, count: int) -> None:
        """count: blocks of the second part. entry_name: the first of them, "" where no single module is
        memory_format: in which the second part is given what was kept · entry_shape: of what reaches it, of one image
        """
        groups = _group_blocks(backbone, count)
        first = groups.head - count
        body = backbone.body
        self.backbone, self.entry_name = backbone, next(iter(_find_modules(body, groups, first)), "")
        self._entry = body.get_submodule(self.entry_name)
        self.memory_format = torch.contiguous_format
        self.entry_shape: tuple[int, ...] = ()
        self._skipped = [body.get_submodule(n) for layer in range(1, first) for n in _find_modules(body, groups, layer)]

    def forward_frozen(self, x: Tensor) -> Tensor:
        """(B, 3, s, s) normalised → (B, …), what reaches the first trained block. Raises ValueError if that is no tensor."""
        reached: list[Tensor] = []

        def stop_there(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if not inputs or not isinstance(inputs[0], Tensor) or len(inputs[0]) != len(x):
                raise ValueError(f"{self.entry_name} is not given one value for each picture")
            reached.append(inputs[0])
            raise _PrefixDone

        hook = self._entry.register_forward_pre_hook(stop_there)
        try:
            self.backbone(x)
        except _PrefixDone:
            return reached[0]
        finally:
            hook.remove()
        raise ValueError(f"{self.entry_name} is not called")

    def forward_trained(self, reached: Tensor) -> Tensor:
        """(B, …) → (B, D). The network is called on one black picture, its frozen blocks skipped, and goes on from `reached`."""
        reached = reached.contiguous(memory_format=self.memory_format)
        hook = self._entry.register_forward_pre_hook(lambda module, inputs: (reached, *inputs[1:]))
        with _skip_modules(self._skipped):
            try:
                side = self.backbone.side
                features: Tensor = self.backbone(torch.zeros(1, 3, side, side, device=reached.device))
            finally:
                hook.remove()
        return features


def split_backbone(backbone: BackboneModule, count: int) -> SplitBackbone | None:
    """The backbone with its last `count` blocks apart; None where its parts do not answer as the whole does.

    Raises SpecError as `freeze_first_blocks`.
    """
    split = SplitBackbone(backbone, count)
    if not split.entry_name:
        return None
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, backbone.side, backbone.side, generator=generator).to(backbone.scale.device)
    was = backbone.training
    backbone.eval()
    try:
        with torch.no_grad():
            reached = split.forward_frozen(x)
            split.entry_shape = tuple(reached.shape[1:])
            # As the network itself lays it out, once and for all: another layout would be slower, and have other last bits
            interleaved = reached.ndim == 4 and reached.is_contiguous(memory_format=torch.channels_last)
            split.memory_format = torch.channels_last if interleaved and not reached.is_contiguous() else torch.contiguous_format
            whole, parts = backbone(x), split.forward_trained(reached)
        same = whole.shape == parts.shape and torch.allclose(whole, parts, RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE)
    except (RuntimeError, ValueError, TypeError, AttributeError, AssertionError, IndexError):
        same = False  # its parts are not one behind the other
    finally:
        backbone.train(was)
    return split if same else None


def _find_modules(body: nn.Module, groups: LayerGroups, layer: int) -> list[str]:
    """The modules of a layer, in order: the largest that hold parameters of it alone.

    A Sequential is left to its parts, since networks may call these one by one. A parameter without a module of its layer is not
    in any.
    """
    found: list[str] = []
    for parameter in (name for name, number in groups.layer_of.items() if number == layer):
        words = parameter.split(".")[:-1]
        paths = [".".join(words[:end]) for end in range(1, len(words) + 1)]
        if not any(path in found for path in paths):
            found += [path for path in paths if _holds_layer_alone(body, groups, layer, path)][:1]
    return found


def _holds_layer_alone(body: nn.Module, groups: LayerGroups, layer: int, path: str) -> bool:
    inside = {number for name, number in groups.layer_of.items() if name.startswith(f"{path}.")}
    return inside == {layer} and not isinstance(body.get_submodule(path), (nn.Sequential, nn.ModuleList))


@contextmanager
def _skip_modules(modules: list[nn.Module]) -> Iterator[None]:
    """Within it these modules return their first input."""
    with ExitStack() as stack:
        for module in modules:
            module.forward = _return_input
            stack.callback(module.__dict__.pop, "forward")
        yield


def _return_input(x: Any, *args: Any, **kwargs: Any) -> Any:
    return x

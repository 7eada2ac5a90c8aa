"""Batch norms of a network that only answers, folded into the convolutions before them (Jacob et al. 2018, eq. 14).

In eval mode a batch norm multiplies and shifts each channel by constants, which the weights and the bias of the convolution take
up as well: a pass over the map is saved. Features are the same up to the rounding of float32; their last bits differ.

Which norm follows which convolution is seen while an image of noise passes the network; a network that then answers otherwise is
left as it is. So are networks of the user's own, whose code may read what is folded.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from phoropter.models.backbones import BackboneModule
from phoropter.models.classifier import Classifier

MAX_DIFFERENCE = 1e-4  # of a feature, relative to the largest; rounding makes some 1e-6
_CONVOLUTIONS = {"Conv2d", "Conv2dSame"}  # whose output is linear in `weight`; timm's standardised ones are not
_NORMS = {"BatchNorm2d", "BatchNormAct2d"}  # the second is timm's, with dropout and an activation after it


def fold_norms(classifier: Classifier, only: int | None = None) -> Classifier:
    """The classifier with folded branches, or with that of index `only` folded; itself where there is nothing to fold.

    The head and all tensors but those of folded convolutions are shared with the classifier, which stays as it is.
    """
    branches = [fold_batch_norms(b) if only in (None, i) else b for i, b in enumerate(classifier.branches)]
    if all(made is given for made, given in zip(branches, classifier.branches, strict=True)):
        return classifier
    folded = Classifier(classifier.spec, branches, classifier.head)
    folded.base, folded.member_specs, folded.member_weights = classifier.base, classifier.member_specs, classifier.member_weights
    return folded.eval()


@torch.no_grad()
def fold_batch_norms(backbone: BackboneModule) -> BackboneModule:
    """A copy with folded batch norms, in eval mode; the backbone itself where it has none to fold, or would answer otherwise."""
    if backbone.custom is not None or not any(_is_foldable_norm(module) for module in backbone.modules()):
        return backbone
    backbone.eval()
    device = backbone.scale.device
    noise = torch.randn(1, 3, backbone.side, backbone.side, generator=torch.Generator().manual_seed(0)).to(device)
    pairs, expected = _find_pairs(backbone, noise)
    if not pairs:
        return backbone
    shared: dict[int, Any] = {id(tensor): tensor for tensor in chain(backbone.parameters(), backbone.buffers())}
    folded = copy.deepcopy(backbone, shared)
    for convolution, norm in pairs:
        _fold_pair(folded, convolution, norm)
    came = folded(noise)
    same = float((came - expected).abs().max()) <= MAX_DIFFERENCE * float(expected.abs().max())
    return folded if same else backbone


def _is_foldable_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm2d) and type(module).__name__ in _NORMS and module.running_var is not None


def _find_pairs(backbone: BackboneModule, image: Tensor) -> tuple[list[tuple[str, str]], Tensor]:
    """(name of a convolution, name of the norm that reads its output) of all that are used once; and the features."""
    made: dict[int, tuple[str, Tensor]] = {}  # kept until a norm reads them, so that no other gets the id of one
    used: Counter[str] = Counter()
    pairs: list[tuple[str, str]] = []

    def note_output(name: str, output: Tensor) -> None:
        used[name] += 1
        made[id(output)] = name, output

    def note_input(name: str, given: Tensor) -> None:
        used[name] += 1
        if (found := made.pop(id(given), None)) is not None:
            pairs.append((found[0], name))

    with _watched(backbone, note_output, note_input):
        features = backbone(image)
    return [pair for pair in pairs if used[pair[0]] == used[pair[1]] == 1], features


@contextmanager
def _watched(backbone: BackboneModule, note_output: Any, note_input: Any) -> Iterator[None]:
    """Within it, each convolution tells what it returns, and each norm what it is given."""
    handles = []
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Conv2d) and type(module).__name__ in _CONVOLUTIONS:
            handles.append(module.register_forward_hook(lambda _, __, output, name=name: note_output(name, output)))
        elif _is_foldable_norm(module):
            handles.append(module.register_forward_pre_hook(lambda _, given, name=name: note_input(name, given[0])))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _fold_pair(backbone: BackboneModule, convolution: str, norm: str) -> None:
    """Writes a norm into its convolution and puts what comes after the norm in its place. In float64, rounded once."""
    conv: Any = backbone.get_submodule(convolution)
    bn: Any = backbone.get_submodule(norm)
    one = torch.ones_like(bn.running_var)
    weight, bias = (one if bn.weight is None else bn.weight, 0 * one if bn.bias is None else bn.bias)
    factor = weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
    before = -bn.running_mean.double() + (0 if conv.bias is None else conv.bias.double())
    conv.weight = nn.Parameter((conv.weight.double() * factor.view(-1, 1, 1, 1)).to(conv.weight.dtype), requires_grad=False)
    conv.bias = nn.Parameter((before * factor + bias.double()).to(conv.weight.dtype), requires_grad=False)
    parent, _, name = norm.rpartition(".")
    after = nn.Sequential(bn.drop, bn.act) if hasattr(bn, "act") else nn.Identity()
    setattr(backbone.get_submodule(parent), name, after.eval())

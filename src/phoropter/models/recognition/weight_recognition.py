"""Weights that somebody put into a folder by hand: whether a file is whole, which network it loads into, and its digest.

A file whose name or JSON states a network is loaded into it as a study would. Of any other, the networks are told whose tensors
have the same names and shapes; several may, because timm has one network under several names, each for other weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from phoropter.core.errors import PhoropterError
from phoropter.models import catalog, timm_compat
from phoropter.models.catalog import Architecture
from phoropter.models.pretrained import build_body, resolve_load_plan
from phoropter.models.spec import BackboneSpec
from phoropter.models.weights.folder_files import read_stated_facts
from phoropter.models.weights.state_dicts import read_state_dict
from phoropter.models.weights.weight_files import read_tensor_shapes
from phoropter.models.weights.weights_folder import digest_weights

Shapes = Mapping[str, tuple[int, ...]]
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
MAX_CLASSES = 100_000


@dataclass(frozen=True)
class ExaminedWeights:
    """What can be said of a file.

    network: that it was loaded into; None where it states none, or does not fit · classes: of its last layer; 0: it has none
    fitting: networks with the same tensors, where it states none · problem: why a study could not use it; None where it could
    sha256: of its contents · as_stated: whether that is the digest in the JSON beside it; None where none is stated
    """

    file: Path
    sha256: str
    network: str | None = None
    classes: int = 0
    fitting: tuple[str, ...] = ()
    as_stated: bool | None = None
    problem: str | None = None


def examine_weights(file: Path) -> ExaminedWeights:
    """Reads a file of weights as a study would. What is wrong with it is told, not raised."""
    digest = digest_weights(file)
    try:
        stated = read_stated_facts(file)
        as_stated = None if stated.sha256 is None else stated.sha256 == digest
        if as_stated is False:
            return ExaminedWeights(file, digest, as_stated=False, problem=f"its SHA-256 is not what {file.stem}.json states")
        if stated.architecture in catalog.list_architectures():
            spec = BackboneSpec(name=stated.architecture, weights=str(file.absolute()))
            _, classes = build_body(resolve_load_plan(spec, None, None))
            return ExaminedWeights(file, digest, stated.architecture, classes, as_stated=as_stated)
        fitting = tuple(recognise_networks(_read_shapes(file)))
    except PhoropterError as error:
        return ExaminedWeights(file, digest, problem=str(error))
    return ExaminedWeights(file, digest, fitting=fitting, as_stated=as_stated)


def recognise_networks(shapes: Shapes) -> Iterator[str]:
    """Names of timm's networks whose tensors have these names and shapes, with any number of classes or without a last layer."""
    count = sum(math.prod(shape) for name, shape in shapes.items() if not name.endswith(_BUFFERS))
    for name in catalog.list_architectures():
        classes = _find_possible_classes(catalog.find_architecture(name), count, shapes)
        if classes is not None and _list_shapes(name, classes) == dict(shapes):
            yield name


def _find_possible_classes(entry: Architecture, count: int, shapes: Shapes) -> int | None:
    """By the number of parameters alone: classes of its last layer, 0 for none; None where it cannot be this network."""
    if entry.family == "alexnet" or not entry.body_parameters or count < entry.body_parameters:
        return None
    per_class = entry.num_features + 1
    if entry.parameters and entry.num_classes:
        per_class = (entry.parameters - entry.body_parameters) // entry.num_classes
    classes, rest = divmod(count - entry.body_parameters, per_class)
    if rest or classes > MAX_CLASSES:
        return None
    return classes if not classes or (classes,) in shapes.values() else None


def _list_shapes(name: str, classes: int) -> dict[str, tuple[int, ...]] | None:
    """Tensors of a network, built where nothing is stored; None where it cannot be built so."""
    try:
        with torch.device("meta"):
            body = timm_compat.import_timm().create_model(name, num_classes=classes)
    except Exception:  # timm's constructors may raise anything
        return None
    return {key: tuple(tensor.shape) for key, tensor in body.state_dict().items()}


def _read_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    if file.suffix == ".safetensors":
        return read_tensor_shapes(file)
    return {name: tuple(tensor.shape) for name, tensor in read_state_dict(file).items()}

"""Builds networks with their weights, last layer included: from the hub, a file, a folder, random, or by custom code.

timm's networks are all built by timm's own constructor and conversions (position tables resampled for another side) and loaded
strictly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from phoropter.core.errors import SpecError, WeightsError, cut_message
from phoropter.models import catalog, timm_compat
from phoropter.models.alexnet import AlexNet2012
from phoropter.models.catalog import Architecture, BuildRecord
from phoropter.models.spec import Backbone, BackboneSpec
from phoropter.models.weights import weight_files
from phoropter.models.weights.state_dicts import StateDict, load_state_dict_strictly, mismatch_error, read_state_dict
from phoropter.models.weights.weight_files import WeightFile


@dataclass(frozen=True)
class LoadPlan:
    """Everything that decides how a network is built. weight_file: None for weights from the hub, a seed or custom code."""

    spec: BackboneSpec
    architecture: Architecture
    weight_file: WeightFile | None
    build_record: BuildRecord


def resolve_load_plan(spec: BackboneSpec, base: Path | None, again: BuildRecord | None) -> LoadPlan:
    """Resolves the build options. Precedence: spec, then the JSON beside the weights, then the catalogue.

    again: the recorded build of a bundle, which is repeated as it was
    """
    entry = catalog.describe_backbone(spec)
    if again is not None:
        return LoadPlan(spec, entry, None, again)
    catalog.check_size(spec, base)
    found = None if spec.weights_path is None else weight_files.find_weight_file(spec.weights_path, base, entry.name)
    metadata = found.metadata if found else {}
    stored = weight_files.read_stored_options(found, spec.custom is not None) if found else {}
    known = catalog.resolve_preprocessing(spec, base)
    classes = int(metadata.get("num_classes", entry.num_classes)) if found and found.layout == "bundle" else entry.num_classes
    record = BuildRecord(replace(known, side=spec.size or known.side), classes, {**stored, **spec.options})
    return LoadPlan(spec, entry, found, record)


def build_body(plan: LoadPlan) -> tuple[nn.Module, int]:
    """The complete network with its weights (those of a bundle are loaded later), and the classes of its last layer."""
    classes = plan.build_record.num_classes
    if plan.spec.custom is not None:
        return _build_custom(plan, plan.spec.custom), 0
    if plan.weight_file is not None and plan.weight_file.layout != "bundle":
        return _build_from_file(plan, plan.weight_file)
    if plan.spec.weights == "pretrained":
        return _build_pretrained(plan), classes
    return _build_plain(plan), classes


def check_parameter_count(plan: LoadPlan, stored: int) -> None:
    """Refuses a network far larger than the numbers it is built for, before any memory is taken for it.

    stored: numbers in the file that the weights are read from. Options, image size and classes come from files that nobody
    vouches for; without options, at its usual size or below, a network is as large as its name says. Else it is counted, built
    on torch's meta device, which has shapes and no storage. Twice as many are allowed, and ten million more: tables of positions
    grow with the image size. Raises WeightsError.
    """
    entry, record = plan.architecture, plan.build_record
    usual_side = not entry.fixed_input_size or record.preprocessing.side <= entry.side
    usual = not record.options and usual_side and record.num_classes in (0, entry.num_classes)
    if usual or plan.spec.custom is not None:
        return
    with torch.device("meta"):
        parameters = sum(p.numel() for p in _build_plain(plan).parameters())
    if parameters > 2 * stored + 10_000_000:
        raise WeightsError(
            f"backbone '{entry.name}' would have {parameters:,} parameters with the options that are stored beside its weights, "
            f"which are {stored:,} numbers; the files do not belong together"
        )


def _build_plain(plan: LoadPlan) -> nn.Module:
    """The network without weights of its own: those of its constructor's draws."""
    entry, classes = plan.architecture, plan.build_record.num_classes
    return _build_alexnet(plan, classes) if entry.family == "alexnet" else _build_timm(plan, entry.name, classes, {})


def _build_custom(plan: LoadPlan, custom: Backbone) -> nn.Module:
    try:
        body = custom.build(**plan.build_record.options)
    except Exception as error:  # the user's code may raise anything
        raise SpecError(f"backbone '{custom.name}': its build function failed with {type(error).__name__}: {error}") from error
    if not isinstance(body, nn.Module):
        raise SpecError(f"backbone '{custom.name}': build returned a {type(body).__name__}, expected a torch.nn.Module")
    if plan.weight_file is not None and plan.weight_file.layout != "bundle":
        load_state_dict_strictly(body, read_state_dict(plan.weight_file.path), plan.weight_file.path, custom.name)
    return body


def _build_pretrained(plan: LoadPlan) -> nn.Module:
    """With weights from the local cache, without the internet; downloaded into the cache first if they are not there."""
    entry = plan.architecture
    catalog.check_weights(plan.spec)
    assert entry.remote is not None
    if entry.family == "alexnet":
        body = _build_alexnet(plan, plan.build_record.num_classes)
        load_state_dict_strictly(body, _download_state_dict(entry), Path(entry.tagged_name), entry.name)
        return body
    if entry.remote.repo is None:  # an address outside the hub: timm knows how to read what lies there
        return _build_timm(plan, entry.tagged_name, plan.build_record.num_classes, {"pretrained": True})
    overlay = {"state_dict": read_state_dict(weight_files.fetch_weights(entry.remote))}
    return _build_timm(
        plan, entry.tagged_name, plan.build_record.num_classes, {"pretrained": True, "pretrained_cfg_overlay": overlay}
    )


def _build_from_file(plan: LoadPlan, found: WeightFile) -> tuple[nn.Module, int]:
    """Tries the number of classes the file seems to have, then no last layer. Raises WeightsError when neither fits."""
    state = read_state_dict(found.path)
    check_parameter_count(plan, sum(tensor.numel() for tensor in state.values()))
    stated = found.metadata.get("num_classes")
    rows = _count_head_classes(plan.architecture, state)
    guesses = [rows] if rows else list(dict.fromkeys([int(stated) if stated is not None else plan.architecture.num_classes, 0]))
    last_error: Exception | None = None
    for classes in guesses:
        try:
            return _build_with_state(plan, found, classes, state), classes
        except WeightsError as error:
            last_error = error
    assert last_error is not None
    raise last_error


def _build_with_state(plan: LoadPlan, found: WeightFile, classes: int, state: StateDict) -> nn.Module:
    if plan.architecture.family == "alexnet":
        body = _build_alexnet(plan, classes)
        load_state_dict_strictly(body, state, found.path, plan.architecture.name)
        return body
    overlay = {"state_dict": state, "num_classes": classes, "label_offset": None}
    return _build_timm(plan, found.path, classes, {"pretrained": True, "pretrained_cfg_overlay": overlay})


def _build_timm(plan: LoadPlan, source: Path | str, classes: int, loading: dict[str, Any]) -> nn.Module:
    """source: timm's name of the network, or the file whose tensors `loading` holds, for messages."""
    entry, options, side = plan.architecture, {**plan.build_record.options, **loading}, plan.build_record.preprocessing.side
    if entry.fixed_input_size and side != entry.side:
        options["img_size"] = side
    name = source if isinstance(source, str) else entry.name
    stem = options.pop("stem", None)
    try:
        body: nn.Module = timm_compat.import_timm().create_model(name, num_classes=classes, **options)
    except Exception as error:
        first = cut_message(error, 200)
        if "loading state_dict" in str(error):
            raise mismatch_error(source, entry.name, error) from None
        if isinstance(error, TypeError) and "unexpected keyword" in first:
            raise SpecError(f"backbone '{entry.name}' takes no such option: {first}") from error
        kind = WeightsError if loading else SpecError
        raise kind(f"backbone '{name}' could not be built: {first}") from error
    if stem is not None:
        _use_cifar_stem(body, entry, stem, bool(loading))
    # timm would keep a second copy of the weights
    body.pretrained_cfg.pop("state_dict", None)  # type: ignore[operator, union-attr]
    return body


def _use_cifar_stem(body: Any, entry: Architecture, stem: Any, pretrained: bool) -> None:
    """Replaces the first layer by one for small images, 3×3 at stride 1 without pooling (He et al. 2016, §4.2)."""
    if stem != "cifar" or not (isinstance(getattr(body, "conv1", None), nn.Conv2d) and hasattr(body, "maxpool")):
        raise SpecError(
            f"backbone '{entry.name}': option stem is {stem!r}, expected 'cifar', for a ResNet with a 7×7 first layer"
        )
    if pretrained:
        raise SpecError(f"backbone '{entry.name}': stem cifar has a first layer its weights do not fit; write weights: random")
    body.conv1 = nn.Conv2d(3, body.conv1.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(body.conv1.weight, mode="fan_out", nonlinearity="relu")
    body.maxpool = nn.Identity()


def _build_alexnet(plan: LoadPlan, classes: int) -> nn.Module:
    constructor = AlexNet2012 if plan.architecture.name == "alexnet_2012" else timm_compat.import_torchvision("models").alexnet
    try:
        body: Any = constructor(num_classes=classes or 1, **plan.build_record.options)
    except (TypeError, ValueError) as error:
        raise SpecError(
            f"backbone '{plan.architecture.name}' does not take the options {plan.build_record.options}: {error}"
        ) from None
    if not classes:
        body.classifier[-1] = nn.Identity()
    network: nn.Module = body
    return network


def _download_state_dict(entry: Architecture) -> StateDict:
    assert entry.remote is not None and entry.remote.url is not None
    try:
        state: StateDict = torch.hub.load_state_dict_from_url(
            entry.remote.url, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except Exception as error:
        raise WeightsError(f"{entry.tagged_name}: its weights could not be fetched from {entry.remote.url}: {error}") from None
    return state


def _count_head_classes(entry: Architecture, state: StateDict) -> int:
    """Classes of a file's last layer, if it is named as in the architecture; else 0."""
    if entry.family == "alexnet":
        keys = ["classifier.6"]
    else:
        cfg = timm_compat.import_timm().get_pretrained_cfg(entry.tagged_name)
        last_layer = cfg.classifier if cfg else None
        keys = [last_layer] if isinstance(last_layer, str) else list(last_layer or ())
    weights = [state[f"{key}.weight"] for key in keys if f"{key}.weight" in state]
    return weights[0].shape[0] if weights else 0

"""Reads and writes `bundle.json`: the spec of a saved classifier, the build of each branch, and the custom code it needs.

Left out: the code itself. A bundle names it, and whoever loads the bundle passes the objects or trusts the reference.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import phoropter
from phoropter.core.errors import WeightsError, join_words
from phoropter.core.extensions import Extension, describe_code, find_code, read_recorded_extensions
from phoropter.core.spec import SourceMap, validate_as
from phoropter.models.catalog import BuildRecord, Preprocessing
from phoropter.models.spec import Backbone, BackboneSpec, ClassifierSpec
from phoropter.models.weights.architecture_options import check_options
from phoropter.models.weights.bundle_files import AVERAGE_FORMAT, BUNDLE_FORMAT, UNSEALED_BUNDLE_FORMAT, WEIGHTED_FORMAT
from phoropter.models.weights.weight_files import read_sidecar_json

if TYPE_CHECKING:
    from phoropter.models.backbones import BackboneModule


@dataclass(frozen=True)
class BundleDescription:
    """spec: of the classifier · build_records: of its branches · code: {"reference", "name", "version", "source_digest"} of each
    custom Backbone it needs · members: of an average of several classifiers, the spec of each · weights: of their probabilities,
    empty where all are equal"""

    spec: ClassifierSpec
    build_records: list[BuildRecord]
    code: list[dict[str, Any]]
    members: tuple[ClassifierSpec, ...] = ()
    weights: tuple[float, ...] = ()


def describe_bundle(
    spec: ClassifierSpec,
    branches: list[BackboneModule],
    training: dict[str, Any] | None,
    members: Sequence[ClassifierSpec] = (),
    weights: Sequence[float] = (),
) -> dict[str, Any]:
    """The contents of `bundle.json`. training: plain data on how the classifier was trained · members: of an average, or none
    weights: of the members, empty where all are equal"""
    custom = list(dict.fromkeys(b.custom for b in spec.backbones if b.custom is not None))
    code = [describe_code(c) for c in custom]
    return {
        "format": WEIGHTED_FORMAT if weights else AVERAGE_FORMAT if members else BUNDLE_FORMAT,
        "phoropter": phoropter.__version__,
        "spec": spec.plain(),
        **({"members": [member.plain() for member in members]} if members else {}),
        **({"weights": list(weights)} if weights else {}),
        "branches": [_describe_branch(b) for b in branches],
        **({"code": code} if code else {}),
        "training": training,
    }


def read_bundle_description(folder: Path, known: Iterable[Extension] = ()) -> BundleDescription:
    """Reads `bundle.json`. Custom Backbones become those of `known`, or placeholders that cannot build. Raises WeightsError.

    Checksums are compared when the tensors are read (weights/state_dicts.py).
    """
    file = folder / "bundle.json"
    content = read_sidecar_json(file)
    try:
        formats = (UNSEALED_BUNDLE_FORMAT, BUNDLE_FORMAT, AVERAGE_FORMAT, WEIGHTED_FORMAT)
        if content["format"] not in formats:
            known_formats = join_words(map(str, formats))
            raise WeightsError(
                f"bundle {folder} has format {content['format']!r}, but this phoropter reads {known_formats}; load it with the "
                "version that it names"
            )
        with read_recorded_extensions(known):
            spec, *members = (
                validate_as(ClassifierSpec, _complete_fusion(plain), SourceMap(str(file)))
                for plain in (content["spec"], *content.get("members", ()))
            )
        if bool(members) != (content["format"] in (AVERAGE_FORMAT, WEIGHTED_FORMAT)):
            raise KeyError("members")
        weights = tuple(float(weight) for weight in content.get("weights", ()))
        if bool(weights) != (content["format"] == WEIGHTED_FORMAT) or not all(0 < weight < math.inf for weight in weights):
            raise KeyError("weights")
        if weights and len(weights) != len(members):
            raise KeyError("weights")
        branches = content["branches"]
        if sum(len(member.backbones) for member in members or [spec]) != len(spec.backbones):
            raise KeyError("members")
        if len(branches) != len(spec.backbones):
            raise WeightsError(
                f"{file} describes {len(branches)} branches for {len(spec.backbones)} backbones; save the classifier again"
            )
        records = [_parse_build_record(file, i, branches[i], backbone) for i, backbone in enumerate(spec.backbones)]
        code = [
            {key: entry[key] for key in ("reference", "name", "version", "source_digest")} for entry in content.get("code", [])
        ]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        raise WeightsError(f"{file} does not describe a bundle; save the classifier again") from None
    return BundleDescription(spec, records, code, tuple(members), weights)


def _complete_fusion(spec: dict[str, Any]) -> dict[str, Any]:
    """The spec with `start: random` where a fusion of logits names none: bundles without that key were all begun so."""
    fusion = spec.get("fusion")
    if not fusion or fusion["mode"] != "logits" or "start" in fusion:
        return spec
    return {**spec, "fusion": {**fusion, "start": "random"}}


def find_bundle_code(folder: Path, extensions: Iterable[Any] = ()) -> list[Backbone]:
    """The custom Backbones that a bundle needs: those of `extensions`, else by their recorded `module:NAME` if code is trusted.

    Raises WeightsError for one that is missing, or whose version or source differs from what the bundle was saved with.
    """
    return [find_code(f"bundle {folder}", Backbone, entry, extensions) for entry in read_bundle_description(folder).code]


def _describe_branch(backbone: BackboneModule) -> dict[str, Any]:
    """A branch under the hub's keys, so that weights/weight_files can find its weights again."""
    p = backbone.build_record.preprocessing
    return {
        "architecture": backbone.architecture,
        "input_size": [3, backbone.side, backbone.side],
        "mean": list(p.mean),
        "std": list(p.std),
        "interpolation": p.interpolation,
        "crop_pct": p.crop_pct,
        "num_classes": backbone.build_record.num_classes,
        "options": backbone.build_record.options,
    }


def _parse_build_record(file: Path, number: int, branch: dict[str, Any], backbone: BackboneSpec) -> BuildRecord:
    try:
        options = check_options(dict(branch["options"]), backbone.custom is not None)
    except ValueError as error:
        raise WeightsError(f"{file}: options of branches[{number}]: {error}") from None
    (r, g, b), (sr, sg, sb) = (tuple(float(v) for v in branch[key]) for key in ("mean", "std"))
    side, crop_pct = int(branch["input_size"][-1]), float(branch["crop_pct"])
    if not 8 <= side <= 4096:
        raise WeightsError(f"{file}: input_size of branches[{number}] is {side}, expected 8 to 4096")
    preprocessing = Preprocessing(side, (r, g, b), (sr, sg, sb), str(branch["interpolation"]), crop_pct)
    return BuildRecord(preprocessing, int(branch["num_classes"]), options)

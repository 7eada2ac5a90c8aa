"""What networks there are, what they are shown and what they cost: torch-free, for planning and listing.

`catalog.json.gz` is written by scripts/make_catalog.py from the timm version in constraints.txt. Where another timm is installed
and has a name the file does not know, timm is asked in a process of its own; all else is answered from the file, in milliseconds.
"""

from __future__ import annotations

import fnmatch
import gzip
import json
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from phoropter.core.errors import SpecError, WeightsError, did_you_mean, join_words
from phoropter.core.files import digest, digest_file
from phoropter.models.spec import BackboneSpec
from phoropter.models.weights import weight_files
from phoropter.models.weights.weight_files import RemoteWeights

RgbTriple = tuple[float, float, float]


@dataclass(frozen=True)
class Preprocessing:
    """How pictures are made ready for a network, as its weights were trained.

    side: pixels · mean, std: of RGB in 0..1 · interpolation, crop_pct: how the weights' makers got to `side`, for the record
    """

    side: int
    mean: RgbTriple
    std: RgbTriple
    interpolation: str = "bicubic"
    crop_pct: float = 0.875


@dataclass(frozen=True)
class Architecture:
    """A network as the catalogue has it, for one set of weights (`tag`; the default one where a name carries no tag).

    name:       of the architecture, without tag · family: the timm module it is built by
    tags:       every set of weights there is, the default first
    classes:    of these weights' own head; 0: they have none
    remote:     where the weights are; None: there are none
    fixed:      built for one side; shown another, it is built anew for it and its position tables are resampled
    multiple:   sides may differ from the default by multiples of this (None: not at all) · least: smallest side tried that works
    parameters: with a head of `classes` · body: without its last layer · width: D of its pooled features
    macs:       multiply-adds of one picture at the default tag's side; None: not known
    """

    name: str
    tag: str | None
    tags: tuple[str, ...]
    family: str
    preprocessing: Preprocessing
    num_classes: int
    remote: RemoteWeights | None
    fixed_input_size: bool
    side_multiple: int | None
    min_side: int
    parameters: int
    body_parameters: int
    num_features: int
    macs: int | None

    @property
    def side(self) -> int:
        """Pixels its weights were trained at."""
        return self.preprocessing.side

    @property
    def tagged_name(self) -> str:
        return f"{self.name}.{self.tag}" if self.tag else self.name


def find_architecture(name: str) -> Architecture:
    """The network of this name, with or without a `.tag`. Raises SpecError offering the nearest name or the known tags."""
    architecture, _, tag = name.partition(".")
    line = _load_catalog()["architectures"].get(architecture)
    if line is None:
        line = _ask_installed_timm(architecture)
    made = _parse_architectures(architecture, line)
    if not tag:
        return made[0]
    for one in made:
        if one.tag == tag:
            return one
    raise SpecError(
        f"backbone '{name}': {architecture} has no weights '{tag}'; it has {join_words(made[0].tags)}{did_you_mean(tag, made[0].tags)}"
    )


def list_architectures(pattern: str = "*") -> list[str]:
    """Architectures matching an fnmatch pattern; with a dot in the pattern, names with tags (`resnet50.*`)."""
    lines = _load_catalog()["architectures"]
    if "." not in pattern:
        return sorted(fnmatch.filter(lines, pattern))
    tagged = [f"{name}.{t[0]}" for name, line in lines.items() for t in line[-1] if _has_weights(t)]
    return sorted(fnmatch.filter(tagged, pattern))


def resolve_side(spec: BackboneSpec, base: Path | None = None) -> int:
    """Pixels of the square the network is shown: what the spec asks for, else what its weights were trained at."""
    return spec.size or resolve_preprocessing(spec, base).side


def resolve_preprocessing(spec: BackboneSpec, base: Path | None = None) -> Preprocessing:
    """Side, mean and deviation: the spec's wish, else what is said beside a file, else the catalogue's for the name.

    A path that is not there is not complained about here (check_weights does); the architecture's own is answered.
    """
    said = _preprocessing_of_weights(spec, base)
    return replace(said, mean=spec.mean or said.mean, std=spec.std or said.std)


def _preprocessing_of_weights(spec: BackboneSpec, base: Path | None) -> Preprocessing:
    known = find_architecture(spec.name).preprocessing
    if spec.weights in ("pretrained", "random"):
        return known
    try:
        said = weight_files.find_weight_file(spec.weights, base, find_architecture(spec.name).name).metadata
    except WeightsError:
        return known
    size = said.get("input_size")
    try:
        return Preprocessing(
            side=int(size[-1]) if size else known.side,
            mean=_parse_triple(said.get("mean") or known.mean),
            std=_parse_triple(said.get("std") or known.std),
            interpolation=str(said.get("interpolation") or known.interpolation),
            crop_pct=float(said.get("crop_pct") or known.crop_pct),
        )
    except (TypeError, ValueError, IndexError, KeyError):
        raise WeightsError(
            f"what is said beside the weights {spec.weights} about input_size, mean or std is not numbers"
        ) from None


def check_weights(spec: BackboneSpec, base: Path | None = None) -> None:
    """Raises, at plan time, what would go wrong when the network is built: weights not to be had, a size that does not fit.

    base: the folder relative paths start from. Whether the hub answers is asked once per process and within three seconds.
    """
    check_size(spec, base)
    known = find_architecture(spec.name)
    if spec.weights == "random":
        return
    if spec.weights != "pretrained":
        weight_files.find_weight_file(spec.weights, base, known.name)
    elif known.remote is None:
        raise WeightsError(
            f"{known.tagged_name} has no public weights; write `weights: random`, or a path to weights of your own"
        )
    elif weight_files.find_cached_weights(known.remote) is None:
        weight_files.resolve_etag(known.remote)


def identify_weights(spec: BackboneSpec, base: Path | None = None) -> str:
    """What the weights are, for run keys: a digest of a file and of its preparation, the hub's digest of
    pretrained ones, or `random`.

    Raises WeightsError when that cannot be known.
    """
    if spec.weights == "random":
        return "random"
    known = find_architecture(spec.name)
    if spec.weights != "pretrained":
        found = weight_files.find_weight_file(spec.weights, base, known.name)
        beside = _preprocessing_of_weights(spec, base)
        tensors = _digest_weight_file(found.path, found.path.stat().st_mtime_ns)
        return digest([tensors, found.branch, beside.side, beside.mean, beside.std, found.metadata.get("model_args")])
    if known.remote is None:
        raise WeightsError(
            f"{known.tagged_name} has no public weights; write `weights: random`, or a path to weights of your own"
        )
    return f"{known.tagged_name}@{weight_files.resolve_etag(known.remote)}"


def check_size(spec: BackboneSpec, base: Path | None = None) -> None:
    """Raises SpecError when the network cannot be shown pictures of the asked size, naming the nearest sizes it can."""
    known = find_architecture(spec.name)
    asked = resolve_side(spec, base)
    if asked == known.side:
        return
    if known.side_multiple is None:
        raise SpecError(f"backbone '{spec.name}' can be shown pictures of {known.side} pixels only, and size is {asked}")
    if asked >= known.min_side and (asked - known.side) % known.side_multiple == 0:
        return
    below = known.side + (asked - known.side) // known.side_multiple * known.side_multiple
    near = [s for s in (below, below + known.side_multiple) if s >= known.min_side] or [known.min_side]
    raise SpecError(
        f"backbone '{spec.name}' cannot be shown pictures of {asked} pixels; size {join_words(map(str, near))} would work"
    )


@cache
def _digest_weight_file(path: Path, changed_ns: int) -> str:
    return digest_file(path)


def _parse_triple(value: Any) -> RgbTriple:
    red, green, blue = (float(v) for v in value)
    return red, green, blue


@cache
def _load_catalog() -> dict[str, Any]:
    packed = resources.files("phoropter.models").joinpath("catalog.json.gz").read_bytes()
    table: dict[str, Any] = json.loads(gzip.decompress(packed))
    return table


def _has_weights(tag: list[Any]) -> bool:
    return bool(tag[0] and (tag[2] or tag[4]))


def _parse_architectures(name: str, line: list[Any]) -> list[Architecture]:
    """One entry for each set of weights, the default first. The layout of a line is that of scripts/make_catalog.py."""
    family, fixed, multiple, least, parameters, body, width, macs, tags = line
    configs = _load_catalog()["configs"]
    named = tuple(t[0] for t in tags if _has_weights(t))
    first_classes = (tags[0][1] if isinstance(tags[0][1], list) else configs[tags[0][1]])[-1]
    per_class = (parameters - body) // first_classes if first_classes else width + 1
    made = []
    for tag, config, hub, file, url in tags:
        its_side, mean, std, crop_pct, interpolation, classes = config if isinstance(config, list) else configs[config]
        repo = f"timm/{name}.{tag}" if hub == 1 else hub
        made.append(
            Architecture(
                name=name,
                tag=tag,
                tags=named,
                family=family,
                preprocessing=Preprocessing(its_side, _parse_triple(mean), _parse_triple(std), interpolation, crop_pct),
                num_classes=classes,
                remote=RemoteWeights(repo, file, url) if repo or url else None,
                fixed_input_size=fixed,
                side_multiple=multiple,
                min_side=least,
                parameters=parameters if classes == first_classes else body + per_class * classes,
                body_parameters=body,
                num_features=width,
                macs=macs,
            )
        )
    return made


@cache
def _ask_installed_timm(architecture: str) -> list[Any]:
    """The line of a name the file does not know, from an installed timm of another version. Raises SpecError."""
    import importlib.metadata
    import subprocess
    import sys

    table = _load_catalog()
    renamed = table.get("renamed", {}).get(architecture)
    hint = f"; timm calls it '{renamed}' now" if renamed else did_you_mean(architecture, table["architectures"])
    refusal = SpecError(f"backbone '{architecture}' is not known{hint or '; `phoropter backbones` lists the names'}")
    try:
        installed = importlib.metadata.version("timm")
    except importlib.metadata.PackageNotFoundError:
        raise refusal from None
    if installed == table["timm"] or not architecture.isidentifier():
        raise refusal
    asked = [sys.executable, "-m", "phoropter.models.catalog_build", architecture]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=120, check=True)
        line: list[Any] = json.loads(answer.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        raise refusal from None
    return line

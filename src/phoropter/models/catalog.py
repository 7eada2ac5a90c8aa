"""Catalogue of architectures: names, weights, input sizes and costs, for planning and listing (no torch).

`catalog.json.gz` is written by scripts/make_catalog.py from the timm version in constraints.txt. A name that the file lacks is
looked up in the installed timm, in a subprocess, if that is another version; everything else is read from the file, in
milliseconds. A custom Backbone describes itself.
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
from phoropter.models.spec import DEFAULT_INPUT_SIZE, Backbone, BackboneSpec, RgbTriple
from phoropter.models.weights import weight_files
from phoropter.models.weights.weight_files import MissingWeightsError, RemoteWeights


@dataclass(frozen=True)
class Preprocessing:
    """Input size and normalisation of a network, as its weights were trained.

    side: in pixels · mean, std: of RGB in 0..1 · interpolation, crop_pct: how the weights' authors resized; recorded only
    """

    side: int
    mean: RgbTriple
    std: RgbTriple
    interpolation: str = "bicubic"
    crop_pct: float = 0.875


@dataclass(frozen=True)
class BuildRecord:
    """How a network was built, beyond its name; stored in bundles.

    num_classes: of its own last layer as built (0: it had none) · options: of the architecture's constructor
    """

    preprocessing: Preprocessing
    num_classes: int
    options: dict[str, Any]


@dataclass(frozen=True)
class Architecture:
    """An entry of the catalogue, for one set of weights (`tag`; the default set for a name without a tag).

    name:       without tag · family: the timm module it is built by; `custom` for a Backbone of the user's own
    tags:       every set of weights there is, the default first
    num_classes: of these weights' own head; 0: they have none
    fixed_input_size: built for one input size; for another it is rebuilt and its position tables are resampled
    side_multiple: other sides differ from the default by multiples of this (None: no other side works)
    min_side:   smallest side that was tried and works · num_features: width D of its pooled features
    remote:     where the weights are downloaded from; None: there are none
    parameters: with a head of `num_classes`; None: not known before it is built · body_parameters: without the last layer
    macs:       multiply-adds per image of `macs_side` pixels, the default tag's side; None: not known
    """

    name: str
    tag: str | None
    tags: tuple[str, ...]
    family: str
    preprocessing: Preprocessing
    num_classes: int
    fixed_input_size: bool
    side_multiple: int | None
    min_side: int
    num_features: int
    remote: RemoteWeights | None = None
    parameters: int | None = None
    body_parameters: int | None = None
    macs: int | None = None
    macs_side: int = DEFAULT_INPUT_SIZE

    @property
    def side(self) -> int:
        """Pixels its weights were trained at."""
        return self.preprocessing.side

    def accepts_side(self, side: int) -> bool:
        """Whether images of `side` pixels were found to work."""
        if self.side_multiple is None:
            return side == self.side
        return side == self.side or (side >= self.min_side and (side - self.side) % self.side_multiple == 0)

    def estimate_macs(self, side: int) -> int | None:
        """Multiply-adds per image of `side` pixels: those counted, by the area; attention grows a little faster."""
        return self.macs and round(self.macs * (side / self.macs_side) ** 2)

    @property
    def tagged_name(self) -> str:
        return f"{self.name}.{self.tag}" if self.tag else self.name


def find_architecture(name: str) -> Architecture:
    """The entry of a name with or without a `.tag`. Raises SpecError with the nearest name or the known tags."""
    architecture, _, tag = name.partition(".")
    line = _load_catalog()["architectures"].get(architecture)
    if line is None:
        line = _ask_installed_timm(architecture)
    entries = _parse_architectures(architecture, line)
    if not tag:
        return entries[0]
    for entry in entries:
        if entry.tag == tag:
            return entry
    known = entries[0].tags
    raise SpecError(
        f"backbone '{name}': {architecture} has no weights '{tag}'; it has {join_words(known)}{did_you_mean(tag, known)}; "
        f"a file of other weights is named by its path: {{backbone: {architecture}, weights: FILE}}"
    )


def describe_backbone(spec: BackboneSpec) -> Architecture:
    """The catalogue's entry for a spec; of a custom Backbone what it states itself, without building it.

    Raises SpecError for an unknown name, and for a Backbone with the name of a timm network.
    """
    if spec.custom is None:
        return find_architecture(spec.name)
    if spec.name in _load_catalog()["architectures"]:
        raise SpecError(f"backbone '{spec.name}': timm has a network of this name; give yours another")
    return _describe_custom(spec.custom)


def _describe_custom(custom: Backbone) -> Architecture:
    side = custom.input_size or DEFAULT_INPUT_SIZE
    return Architecture(
        name=custom.name,
        tag=None,
        tags=(),
        family="custom",
        preprocessing=Preprocessing(side, custom.mean, custom.std),
        num_classes=0,
        fixed_input_size=False,
        side_multiple=1,
        min_side=1,
        num_features=custom.width,
    )


def list_architectures(pattern: str = "*") -> list[str]:
    """Architectures matching an fnmatch pattern; with a dot in the pattern, names with tags (`resnet50.*`)."""
    lines = _load_catalog()["architectures"]
    if "." not in pattern:
        return sorted(fnmatch.filter(lines, pattern))
    tagged = [f"{name}.{t[0]}" for name, line in lines.items() for t in line[-1] if _has_weights(t)]
    return sorted(fnmatch.filter(tagged, pattern))


def resolve_side(spec: BackboneSpec, base: Path | None = None) -> int:
    """Side in pixels of the square images the network is given: the spec's size, else what its weights were trained at."""
    return spec.size or resolve_preprocessing(spec, base).side


def resolve_preprocessing(spec: BackboneSpec, base: Path | None = None) -> Preprocessing:
    """Side, mean and deviation. Precedence: the spec, then the file beside the weights, then the catalogue.

    A missing weights file is not reported here (check_weights does); the architecture's own values are returned.
    """
    stored = _preprocessing_of_weights(spec, base)
    return replace(stored, mean=spec.mean or stored.mean, std=spec.std or stored.std)


def _preprocessing_of_weights(spec: BackboneSpec, base: Path | None) -> Preprocessing:
    entry = describe_backbone(spec)
    known = entry.preprocessing
    if spec.weights_path is None:
        return known
    try:
        metadata = weight_files.find_weight_file(spec.weights_path, base, entry.name).metadata
    except WeightsError:
        return known
    size = metadata.get("input_size")
    try:
        return Preprocessing(
            side=int(size[-1]) if size else known.side,
            mean=_parse_triple(metadata.get("mean") or known.mean),
            std=_parse_triple(metadata.get("std") or known.std),
            interpolation=str(metadata.get("interpolation") or known.interpolation),
            crop_pct=float(metadata.get("crop_pct") or known.crop_pct),
        )
    except (TypeError, ValueError, IndexError, KeyError):
        raise WeightsError(
            f"input_size, mean or std in the JSON file beside the weights {spec.weights} is not numbers; correct the file"
        ) from None


def check_weights(spec: BackboneSpec, base: Path | None = None) -> None:
    """Raises at plan time what would fail when the network is built: weights that are missing, a size that does not fit.

    base: the folder relative paths start from. The hub is queried once per process, for three seconds at most.
    """
    check_size(spec, base)
    entry = describe_backbone(spec)
    if spec.depends_on_seed:
        return
    if spec.weights_path is not None:
        found = weight_files.find_weight_file(spec.weights_path, base, entry.name)
        weight_files.read_stored_options(found, spec.custom is not None)
    elif weight_files.find_cached_weights(_require_remote(entry)) is None:
        _resolve_etag(entry)


def identify_weights(spec: BackboneSpec, base: Path | None = None) -> str:
    """Identity of the weights for run keys: a digest of a file and its preprocessing, the hub's digest, or `random`.

    Weights that are `built` are identified by the Backbone's name and version, which are part of the candidate.
    Raises WeightsError when the weights cannot be identified.
    """
    if spec.depends_on_seed:
        return spec.weights
    entry = describe_backbone(spec)
    if spec.weights_path is not None:
        found = weight_files.find_weight_file(spec.weights_path, base, entry.name)
        beside = _preprocessing_of_weights(spec, base)
        tensors = _digest_weight_file(found.path, found.path.stat().st_mtime_ns)
        options = weight_files.read_stored_options(found, spec.custom is not None)
        return digest([tensors, found.branch, beside.side, beside.mean, beside.std, options or None])
    return f"{entry.tagged_name}@{_resolve_etag(entry)}"


def _resolve_etag(entry: Architecture) -> str:
    """The hub's digest of its weights. Raises WeightsError, by the name that `phoropter weights get` takes."""
    try:
        return weight_files.resolve_etag(_require_remote(entry))
    except MissingWeightsError as error:
        raise MissingWeightsError(entry.tagged_name, error.why) from None


def _require_remote(entry: Architecture) -> RemoteWeights:
    if entry.remote is None:
        raise WeightsError(
            f"{entry.tagged_name} has no public weights; write `weights: random`, or a path to weights of your own"
        )
    return entry.remote


def check_size(spec: BackboneSpec, base: Path | None = None) -> None:
    """Raises SpecError when the network does not accept images of the spec's size, naming the nearest sizes that work."""
    entry = describe_backbone(spec)
    side = resolve_side(spec, base)
    if entry.accepts_side(side):
        return
    if entry.side_multiple is None:
        raise SpecError(f"backbone '{spec.name}' accepts images of {entry.side} pixels only, and size is {side}")
    below = entry.side + (side - entry.side) // entry.side_multiple * entry.side_multiple
    near = [s for s in (below, below + entry.side_multiple) if s >= entry.min_side] or [entry.min_side]
    raise SpecError(
        f"backbone '{spec.name}' does not accept images of {side} pixels; size {join_words(map(str, near))} would work"
    )


def find_small_side(spec: BackboneSpec, most: int, base: Path | None = None) -> int:
    """The largest side in pixels, at most `most` and its own, that the network accepts; its smallest where all are larger."""
    entry, side = describe_backbone(spec), resolve_side(spec, base)
    if side <= most:
        return side
    if entry.side_multiple is None:
        return entry.side
    return max(entry.side + (most - entry.side) // entry.side_multiple * entry.side_multiple, entry.min_side)


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
    """One entry for each set of weights, the default first. scripts/make_catalog.py defines the layout of a line."""
    family, fixed, multiple, least, parameters, body, width, macs, tags = line
    configs = _load_catalog()["configs"]
    named = tuple(t[0] for t in tags if _has_weights(t))
    first_side, *_, first_classes = tags[0][1] if isinstance(tags[0][1], list) else configs[tags[0][1]]
    per_class = (parameters - body) // first_classes if first_classes else width + 1
    entries = []
    for tag, config, hub, file, url in tags:
        its_side, mean, std, crop_pct, interpolation, classes = config if isinstance(config, list) else configs[config]
        repo = f"timm/{name}.{tag}" if hub == 1 else hub
        entries.append(
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
                macs_side=first_side,
            )
        )
    return entries


@cache
def _ask_installed_timm(architecture: str) -> list[Any]:
    """The catalogue line of a name the file lacks, from an installed timm of another version. Raises SpecError."""
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
    command = [sys.executable, "-m", "phoropter.models.catalog_build", architecture]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        line: list[Any] = json.loads(answer.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        raise refusal from None
    return line

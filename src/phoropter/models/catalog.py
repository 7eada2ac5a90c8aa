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

from phoropter.core.errors import SpecError, WeightsError, listing, nearest
from phoropter.core.files import digest, digest_file
from phoropter.models import sources
from phoropter.models.sources import Remote
from phoropter.models.spec import BackboneSpec

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Preparation:
    """How pictures are made ready for a network, as its weights were trained.

    side: pixels · mean, std: of RGB in 0..1 · interpolation, crop_pct: how the weights' makers got to `side`, for the record
    """

    side: int
    mean: Triple
    std: Triple
    interpolation: str = "bicubic"
    crop_pct: float = 0.875


@dataclass(frozen=True)
class Entry:
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
    preparation: Preparation
    classes: int
    remote: Remote | None
    fixed: bool
    multiple: int | None
    least: int
    parameters: int
    body: int
    width: int
    macs: int | None

    @property
    def side(self) -> int:
        """Pixels its weights were trained at."""
        return self.preparation.side

    @property
    def tagged(self) -> str:
        return f"{self.name}.{self.tag}" if self.tag else self.name


def entry(name: str) -> Entry:
    """The network of this name, with or without a `.tag`. Raises SpecError offering the nearest name or the known tags."""
    architecture, _, tag = name.partition(".")
    line = _table()["architectures"].get(architecture)
    if line is None:
        line = _asked_of_timm(architecture)
    made = _entries(architecture, line)
    if not tag:
        return made[0]
    for one in made:
        if one.tag == tag:
            return one
    raise SpecError(
        f"backbone '{name}': {architecture} has no weights '{tag}'; it has {listing(made[0].tags)}{nearest(tag, made[0].tags)}"
    )


def names(pattern: str = "*") -> list[str]:
    """Architectures matching an fnmatch pattern; with a dot in the pattern, names with tags (`resnet50.*`)."""
    lines = _table()["architectures"]
    if "." not in pattern:
        return sorted(fnmatch.filter(lines, pattern))
    tagged = [f"{name}.{t[0]}" for name, line in lines.items() for t in line[-1] if _has_weights(t)]
    return sorted(fnmatch.filter(tagged, pattern))


def side(spec: BackboneSpec, base: Path | None = None) -> int:
    """Pixels of the square the network is shown: what the spec asks for, else what its weights were trained at."""
    return spec.size or preparation(spec, base).side


def preparation(spec: BackboneSpec, base: Path | None = None) -> Preparation:
    """Side, mean and deviation: the spec's wish, else what is said beside a file, else the catalogue's for the name.

    A path that is not there is not complained about here (check_weights does); the architecture's own is answered.
    """
    said = _of_weights(spec, base)
    return replace(said, mean=spec.mean or said.mean, std=spec.std or said.std)


def _of_weights(spec: BackboneSpec, base: Path | None) -> Preparation:
    known = entry(spec.name).preparation
    if spec.weights in ("pretrained", "random"):
        return known
    try:
        said = sources.locate(spec.weights, base, entry(spec.name).name).said
    except WeightsError:
        return known
    size = said.get("input_size")
    try:
        return Preparation(
            side=int(size[-1]) if size else known.side,
            mean=_triple(said.get("mean") or known.mean),
            std=_triple(said.get("std") or known.std),
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
    fits_size(spec, base)
    known = entry(spec.name)
    if spec.weights == "random":
        return
    if spec.weights != "pretrained":
        sources.locate(spec.weights, base, known.name)
    elif known.remote is None:
        raise WeightsError(f"{known.tagged} has no public weights; write `weights: random`, or a path to weights of your own")
    elif sources.cached(known.remote) is None:
        sources.etag(known.remote)


def identity(spec: BackboneSpec, base: Path | None = None) -> str:
    """What the weights are, for run keys: a digest of a file and of its preparation, the hub's digest of
    pretrained ones, or `random`.

    Raises WeightsError when that cannot be known.
    """
    if spec.weights == "random":
        return "random"
    known = entry(spec.name)
    if spec.weights != "pretrained":
        found = sources.locate(spec.weights, base, known.name)
        beside = _of_weights(spec, base)
        tensors = _digest(found.path, found.path.stat().st_mtime_ns)
        return digest([tensors, found.branch, beside.side, beside.mean, beside.std, found.said.get("model_args")])
    if known.remote is None:
        raise WeightsError(f"{known.tagged} has no public weights; write `weights: random`, or a path to weights of your own")
    return f"{known.tagged}@{sources.etag(known.remote)}"


def fits_size(spec: BackboneSpec, base: Path | None = None) -> None:
    """Raises SpecError when the network cannot be shown pictures of the asked size, naming the nearest sizes it can."""
    known = entry(spec.name)
    asked = side(spec, base)
    if asked == known.side:
        return
    if known.multiple is None:
        raise SpecError(f"backbone '{spec.name}' can be shown pictures of {known.side} pixels only, and size is {asked}")
    if asked >= known.least and (asked - known.side) % known.multiple == 0:
        return
    below = known.side + (asked - known.side) // known.multiple * known.multiple
    near = [s for s in (below, below + known.multiple) if s >= known.least] or [known.least]
    raise SpecError(
        f"backbone '{spec.name}' cannot be shown pictures of {asked} pixels; size {listing(map(str, near))} would work"
    )


@cache
def _digest(path: Path, changed_ns: int) -> str:
    return digest_file(path)


def _triple(value: Any) -> Triple:
    red, green, blue = (float(v) for v in value)
    return red, green, blue


@cache
def _table() -> dict[str, Any]:
    packed = resources.files("phoropter.models").joinpath("catalog.json.gz").read_bytes()
    table: dict[str, Any] = json.loads(gzip.decompress(packed))
    return table


def _has_weights(tag: list[Any]) -> bool:
    return bool(tag[0] and (tag[2] or tag[4]))


def _entries(name: str, line: list[Any]) -> list[Entry]:
    """One entry for each set of weights, the default first. The layout of a line is that of scripts/make_catalog.py."""
    family, fixed, multiple, least, parameters, body, width, macs, tags = line
    configs = _table()["configs"]
    named = tuple(t[0] for t in tags if _has_weights(t))
    first_classes = (tags[0][1] if isinstance(tags[0][1], list) else configs[tags[0][1]])[-1]
    per_class = (parameters - body) // first_classes if first_classes else width + 1
    made = []
    for tag, config, hub, file, url in tags:
        its_side, mean, std, crop_pct, interpolation, classes = config if isinstance(config, list) else configs[config]
        repo = f"timm/{name}.{tag}" if hub == 1 else hub
        made.append(
            Entry(
                name=name,
                tag=tag,
                tags=named,
                family=family,
                preparation=Preparation(its_side, _triple(mean), _triple(std), interpolation, crop_pct),
                classes=classes,
                remote=Remote(repo, file, url) if repo or url else None,
                fixed=fixed,
                multiple=multiple,
                least=least,
                parameters=parameters if classes == first_classes else body + per_class * classes,
                body=body,
                width=width,
                macs=macs,
            )
        )
    return made


@cache
def _asked_of_timm(architecture: str) -> list[Any]:
    """The line of a name the file does not know, from an installed timm of another version. Raises SpecError."""
    import importlib.metadata
    import subprocess
    import sys

    table = _table()
    renamed = table.get("renamed", {}).get(architecture)
    hint = f"; timm calls it '{renamed}' now" if renamed else nearest(architecture, table["architectures"])
    refusal = SpecError(f"backbone '{architecture}' is not known{hint or '; `phoropter backbones` lists the names'}")
    try:
        installed = importlib.metadata.version("timm")
    except importlib.metadata.PackageNotFoundError:
        raise refusal from None
    if installed == table["timm"] or not architecture.isidentifier():
        raise refusal
    asked = [sys.executable, "-m", "phoropter.models.survey", architecture]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=120, check=True)
        line: list[Any] = json.loads(answer.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        raise refusal from None
    return line

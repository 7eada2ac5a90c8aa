"""What a user writes under `data:`, and how it becomes a Dataset.

    data: {folder: ~/pictures/intel, size: 224, exclude: [clutter]}

Exactly one key names the source. A new source is one field of DataSpec and one line in SOURCES at the foot.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field, field_validator, model_validator

from phoropter.core.errors import DataError, did_you_mean, join_words
from phoropter.core.spec import SourceMap, validate_as
from phoropter.data.dataset import Dataset
from phoropter.data.images.decode import Interpolation, ResizeMode, SquareResize
from phoropter.data.recordings.databases import open_recordings
from phoropter.data.recordings.dataset import subsample_windows
from phoropter.data.recordings.spec import NonEmptyPath, RecordingFields, check_recording_options
from phoropter.data.sources.arrays import open_digits, open_npz
from phoropter.data.sources.cifar import CIFAR10, CIFAR100, open_cifar
from phoropter.data.sources.folder import open_folder
from phoropter.data.sources.imagenet import LabelFile, open_imagenet
from phoropter.data.sources.manifest import open_manifest
from phoropter.data.sources.parquet import open_parquet
from phoropter.data.subset import OTHER_CLASSES, extract_from_ids, keep_classes, keep_official_split, require_two_classes

MAX_PATTERN_LENGTH = 200


def _int_to_text(value: Any) -> Any:
    """YAML reads a class called 3 as a number."""
    return str(value) if type(value) is int else value


ClassName = Annotated[str, BeforeValidator(_int_to_text)]


class DataSpec(RecordingFields):
    """Where the pictures come from, and what is kept of them. Paths are relative to the study file.

    folder:   a folder for each class, or a tree of train/, val/, test/ of such
    manifest: a CSV or Parquet file with the columns path, label and where known id, group, site, split
    imagenet: ImageNet-1k: synset folders, files named by synset, or flat files with a label file
    cifar10, cifar100: the folder or .tar.gz that torchvision downloads, or the folder it lies in
    npz:      a file with the arrays images and labels
    parquet:  a file or folder of shards with encoded pictures
    digits:   scikit-learn's handwritten digits
    wesad, ctu, eegmat, mitdb, recordings, simulate: recordings drawn as pictures, with options of their own (see Recorded)
    name:     what people call it (default: the folder's or file's name)
    get:      what to get from where, said when it is not there
    size:     side in pixels of the stored square (default: the largest input of the candidates); recordings are drawn so large
    fit:      how a picture becomes square: scale the short side and keep the centre, squash, or pad with black
    on_bad_input: what a picture that cannot be read does to the study
    rows:     at most so many, classes in proportion, whole groups where there are groups; of recordings, fewer windows of each
    classes:  only these, in this order; exclude: all but these
    group_from, site_from: a regular expression with one group, which finds the group or site in an id (the relative path)
    part:     only this official part
    columns:  our column name → the file's, for manifest and parquet
    labels, labels_order: ImageNet's label file, and the order of its numbers
    """

    folder: NonEmptyPath | None = None
    manifest: NonEmptyPath | None = None
    imagenet: NonEmptyPath | None = None
    cifar10: NonEmptyPath | None = None
    cifar100: NonEmptyPath | None = None
    npz: NonEmptyPath | None = None
    parquet: NonEmptyPath | None = None
    digits: bool = False
    name: str | None = Field(default=None, min_length=1, max_length=100)
    download_hint: str | None = None
    size: int | None = Field(default=None, ge=8, le=4096)
    resize: ResizeMode = "center-crop"
    interpolation: Interpolation = "bicubic"
    on_bad_input: Literal["stop", "skip"] = "stop"
    max_samples: int | None = Field(default=None, ge=2)
    classes: tuple[ClassName, ...] | None = Field(default=None, min_length=2)
    exclude: tuple[ClassName, ...] = ()
    group_from: str | None = None
    site_from: str | None = None
    official_split: Literal["train", "val", "test"] | None = None
    columns: dict[str, str] = {}
    labels: NonEmptyPath | None = None
    labels_order: Literal["index", "ilsvrc"] | None = None

    @property
    def source(self) -> str:
        """The key that names the source."""
        return self._named_sources()[0]

    def square_resize(self, size: int) -> SquareResize:
        """How its pictures are stored at a side of `size` pixels."""
        return SquareResize(size, self.resize, self.interpolation)

    def _named_sources(self) -> list[str]:
        return [name for name in SOURCES if getattr(self, name) not in (None, False)]

    @field_validator("group_from", "site_from")
    @classmethod
    def _check_group_pattern(cls, pattern: str | None) -> str | None:
        if pattern is None:
            return None
        if len(pattern) > MAX_PATTERN_LENGTH:
            raise ValueError(f"the expression has {len(pattern)} letters; at most {MAX_PATTERN_LENGTH} are allowed")
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
        if groups != 1:
            raise ValueError(f"{pattern!r} has {groups} groups in brackets; expected one, as in '(subject[0-9]+)/'")
        return pattern

    @model_validator(mode="after")
    def _check_consistency(self) -> DataSpec:
        sources = self._named_sources()
        if len(sources) > 1:
            raise ValueError(f"'{sources[0]}' and '{sources[1]}' both name a source of pictures: keep one")
        if not sources:
            raise ValueError(f"no source of pictures is named; expected one of {join_words(SOURCES, 20)}")
        self._check_options(sources[0])
        if SOURCES[sources[0]].holds_recordings:
            check_recording_options(self, sources[0])
        if self.classes and len(set(self.classes)) < len(self.classes):
            raise ValueError("'classes' names a class twice")
        if both := sorted(set(self.classes or ()) & set(self.exclude)):
            raise ValueError(f"'{both[0]}' is in 'classes' and in 'exclude': keep one")
        if OTHER_CLASSES in self.exclude and not self.classes:
            raise ValueError(
                f"'exclude: [\"{OTHER_CLASSES}\"]' means all that 'classes' does not name, and 'classes' is not given"
            )
        if self.labels_order and not self.labels:
            raise ValueError("'labels_order' says how to read a label file, and 'labels' names none")
        return self

    def _check_options(self, source: str) -> None:
        for option in sorted({option for kind in SOURCES.values() for option in kind.options}):
            default = type(self).model_fields[option].default
            if getattr(self, option) != default and option not in SOURCES[source].options:
                owners = [name for name, kind in SOURCES.items() if option in kind.options]
                raise ValueError(f"'{option}' belongs to {join_words(owners, 20)} and does nothing for '{source}': remove it")
        for ours in self.columns:
            if ours not in (known := _COLUMN_NAMES[source]):
                raise ValueError(f"columns: '{ours}' is none of ours ({join_words(known)}){did_you_mean(ours, known)}")


class SourceDefinition(NamedTuple):
    """How a source is opened, which options only such sources have, whether labels are typed by hand, row by row, and whether
    it holds recordings."""

    open: Callable[[DataSpec, Path | None], Dataset]
    options: tuple[str, ...] = ("classes", "exclude")
    typed_by_hand: bool = False
    holds_recordings: bool = False


def open_dataset(spec: DataSpec, base: Path | None = None) -> Dataset:
    """A spec → the Dataset it names; paths are relative to `base` (default: where we are). No picture is opened.

    Raises DataError, which says what to get where the data are missing.
    """
    source = SOURCES[spec.source]
    try:
        dataset = source.open(spec, base)
    except DataError as error:
        if spec.download_hint and not _source_exists(spec, base):
            raise DataError(f"{error}; get {spec.download_hint}") from None
        raise
    if spec.official_split:
        dataset = keep_official_split(dataset, spec.official_split)
    if spec.classes or spec.exclude:
        dataset = keep_classes(dataset, spec.classes, spec.exclude, source.typed_by_hand)
    if spec.group_from:
        dataset = replace(dataset, groups=extract_from_ids(dataset, spec.group_from, "group"))
    if spec.site_from:
        dataset = replace(dataset, sites=extract_from_ids(dataset, spec.site_from, "site"))
    if spec.source != "imagenet":
        require_two_classes(dataset)
    return subsample_windows(dataset, spec.max_samples) if spec.max_samples else dataset


def resolve_path(path: Path, base: Path | None) -> Path:
    """A path as a user wrote it → where it is: `~` is home, the rest is relative to `base`."""
    try:
        return (base or Path()) / path.expanduser()
    except RuntimeError:
        raise DataError(f"{path}: there is no such user's home folder") from None


def _source_exists(spec: DataSpec, base: Path | None) -> bool:
    value = getattr(spec, spec.source)
    return not isinstance(value, Path) or resolve_path(value, base).exists()


def folder(path: str | Path, **options: Any) -> DataSpec:
    """Class-per-folder pictures: `folder("~/pictures/intel", size=224)`."""
    return _make_spec("folder", path, options)


def manifest(path: str | Path, **options: Any) -> DataSpec:
    """A CSV or Parquet manifest: `manifest("cells.csv", columns={"label": "diagnosis"})`."""
    return _make_spec("manifest", path, options)


def imagenet(path: str | Path, **options: Any) -> DataSpec:
    """ImageNet-1k, all or some: `imagenet("ILSVRC2012_img_val", labels="LOC_val_solution.csv")`."""
    return _make_spec("imagenet", path, options)


def cifar10(path: str | Path, **options: Any) -> DataSpec:
    """CIFAR-10 in the files torchvision downloads."""
    return _make_spec("cifar10", path, options)


def cifar100(path: str | Path, **options: Any) -> DataSpec:
    """CIFAR-100 in the files torchvision downloads."""
    return _make_spec("cifar100", path, options)


def npz(path: str | Path, **options: Any) -> DataSpec:
    """An .npz with images and labels."""
    return _make_spec("npz", path, options)


def parquet(path: str | Path, **options: Any) -> DataSpec:
    """Parquet with encoded pictures."""
    return _make_spec("parquet", path, options)


def recordings(path: str | Path, **options: Any) -> DataSpec:
    """Recordings listed in a manifest: `recordings("ecg.csv", window={"length_s": 10, "gap_s": 0})`."""
    return _make_spec("recordings", path, options)


def simulate(what: str, **options: Any) -> DataSpec:
    """Simulated people or births: `simulate("ecg", cohort={"subjects": 8})`."""
    return _make_spec("simulate", what, options)


def digits(**options: Any) -> DataSpec:
    """scikit-learn's handwritten digits: 1,797 real pictures, no download."""
    return _make_spec("digits", True, options)


def _make_spec(source: str, value: str | Path | bool, options: dict[str, Any]) -> DataSpec:
    return validate_as(DataSpec, {source: value, **options}, SourceMap(f"{source}(…)"))


def _source_path(spec: DataSpec, base: Path | None) -> Path:
    return resolve_path(getattr(spec, spec.source), base)


def _open_imagenet(spec: DataSpec, base: Path | None) -> Dataset:
    given = LabelFile(resolve_path(spec.labels, base) if spec.labels else None, spec.labels_order)
    return open_imagenet(_source_path(spec, base), given=given, on_bad_input=spec.on_bad_input, name=spec.name)


_COLUMN_NAMES = {
    "manifest": ("path", "label", "id", "group", "site", "split"),
    "parquet": ("image", "label", "id", "group", "site"),
}
_COMMON_OPTIONS = ("classes", "exclude")


def _define_recordings_source(source: str, *options: str) -> SourceDefinition:
    return SourceDefinition(
        lambda spec, base: open_recordings(
            spec, source, _recordings_path(spec, base), size=spec.size, name=spec.name, on_bad_input=spec.on_bad_input
        ),
        (*_COMMON_OPTIONS, *options),
        holds_recordings=True,
    )


def _recordings_path(spec: DataSpec, base: Path | None) -> Path | None:
    return None if spec.source == "simulate" else _source_path(spec, base)


_CHANNEL_OPTIONS = ("window", "representation", "per_subject", "require_r_peaks")
SOURCES: dict[str, SourceDefinition] = {
    "folder": SourceDefinition(lambda s, b: open_folder(_source_path(s, b), on_bad_input=s.on_bad_input, name=s.name)),
    "manifest": SourceDefinition(
        lambda s, b: open_manifest(_source_path(s, b), columns=s.columns, on_bad_input=s.on_bad_input, name=s.name),
        (*_COMMON_OPTIONS, "columns"),
        typed_by_hand=True,
    ),
    "imagenet": SourceDefinition(_open_imagenet, ("labels", "labels_order")),
    "cifar10": SourceDefinition(lambda s, b: open_cifar(_source_path(s, b), CIFAR10, name=s.name)),
    "cifar100": SourceDefinition(lambda s, b: open_cifar(_source_path(s, b), CIFAR100, name=s.name)),
    "npz": SourceDefinition(lambda s, b: open_npz(_source_path(s, b), name=s.name)),
    "parquet": SourceDefinition(
        lambda s, b: open_parquet(_source_path(s, b), columns=s.columns, name=s.name), (*_COMMON_OPTIONS, "columns")
    ),
    "digits": SourceDefinition(lambda s, b: open_digits()),
    "wesad": _define_recordings_source("wesad", "task", *_CHANNEL_OPTIONS),
    "ctu": _define_recordings_source("ctu", "outcome", "representation", "clean"),
    "eegmat": _define_recordings_source("eegmat", *_CHANNEL_OPTIONS),
    "mitdb": _define_recordings_source("mitdb", "task", "channel", *_CHANNEL_OPTIONS),
    "recordings": _define_recordings_source("recordings", "outcome", "channel", "clean", *_CHANNEL_OPTIONS),
    "simulate": _define_recordings_source("simulate", "cohort", "task", "outcome", "clean", *_CHANNEL_OPTIONS),
}

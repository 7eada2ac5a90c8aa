"""What a user writes under `data:`, and how it becomes a Dataset.

    data: {folder: ~/pictures/intel, size: 224, exclude: [clutter]}

Exactly one key names the source. The keys of sources and their own options come from the records in source_table.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, create_model, field_validator, model_validator

from phoropter.core.errors import DataError, join_words
from phoropter.core.language.unit_words import parse_unit_word
from phoropter.core.spec import ClassName, PublicSpec, SourceMap, validate_as
from phoropter.core.storage.foreign_files import refuse_foreign_file
from phoropter.data.controls.changed_rows import apply_control
from phoropter.data.controls.control_kinds import ControlName
from phoropter.data.dataset import Dataset
from phoropter.data.images.decode import Interpolation, ResizeMode, SquareResize
from phoropter.data.images.intensity import IntensitySpec
from phoropter.data.images.options import Channels, Page, PictureOptions, apply_options
from phoropter.data.in_memory import as_dataset, is_data_object
from phoropter.data.positive_class import OneVsRest, find_positive
from phoropter.data.recordings.dataset import subsample_windows
from phoropter.data.recordings.spec import RecordingFields
from phoropter.data.source import Source, SourceRequest, resolve_path, resolve_snapshot
from phoropter.data.source_table import SOURCES
from phoropter.data.subset import OTHER_CLASSES, extract_from_ids, keep_classes, keep_official_split, require_two_classes

MAX_PATTERN_LENGTH = 200
DISPLAY_ORDER = ("folder", "manifest", "imagenet")  # in messages and the reference; the other sources follow


def _source_fields() -> dict[str, Any]:
    """The key of each source and its own options, as pydantic takes fields."""
    keys = {key: (source.value_type, Field(source.default, description=source.help)) for key, source in SOURCES.items()}
    options = {
        option.name: (option.annotation, Field(option.default, description=option.help))
        for source in SOURCES.values()
        for option in source.options
    }
    return keys | options


if TYPE_CHECKING:  # the fields of sources exist only at run time and are read by getattr
    SourceFields = RecordingFields
else:
    SourceFields = create_model("SourceFields", __base__=RecordingFields, **_source_fields())


class DataSpec(SourceFields, PublicSpec):
    """Where the pictures come from, and which of them are kept. Paths are relative to the study file.

    name:     what the dataset is called in reports (default: the folder's or file's name)
    download_hint: what to download from where; shown when the data are missing
    size:     side in pixels of the stored square images (default: the largest input of the candidates); windows of recordings
              are drawn so large
    resize:   how a picture becomes square: `center-crop` scales the short side and keeps the centre, `stretch` ignores
              proportions, `pad` scales the long side and fills with black
    interpolation: of that resizing
    intensity: which pixel values become black and white; matters for pictures of more than 8 bits
    channels: of pictures of any number of channels, the three, counted from 1, that become red, green and blue: [4, 3, 2]
              (default: pictures of 1, 3 or 4 channels are read, others refused)
    page:     of TIFF files with several pages and DICOM files with several frames, the one that is the picture: `first`,
              `middle`, `last`, or its number from 1 (default: such files are refused)
    on_bad_input: whether a picture that cannot be read stops the study or is left out and listed
    max_samples: keep at most so many, with classes in proportion and complete groups where there are groups; of recordings,
              keep fewer windows of each
    classes:  keep only these, in this order
    exclude:  leave these classes out; "*": all that `classes` does not name
    positive: the class that is looked for, of two: sensitivity, precision-recall, calibration and thresholds are of it (default:
              the last one); of more classes, `{one_vs_rest: NAME}` sets it against all others. No run depends on it
    subgroups: columns of the manifest, or facts of the recordings (docs/recordings.md), such as sex, in whose values results are
              shown apart; of numbers in quartiles, or at edges: `[sex, {age: [30, 50]}]`. No run depends on them
    group_from: a regular expression with one group in brackets, which finds the group in an id (the relative path)
    site_from: the same for the site
    group_word: what a group is, for sentences: `people`, `births`, or both numbers where they are irregular, `ox/oxen` (default:
              what the source knows)
    site_word: the same for a site: `hospital`
    official_split: keep only this official part
    control:  these data as a negative control, as `controls` of a study makes them: labels-permuted, predict-site, predict-group,
              blank-pictures or time-shuffled
    """

    unnamed_hint: ClassVar[str] = "each source has a function of its name, as in folder('pictures')"

    name: str | None = Field(default=None, min_length=1, max_length=100)
    download_hint: str | None = None
    size: int | None = Field(default=None, ge=8, le=4096)
    resize: ResizeMode = "center-crop"
    interpolation: Interpolation = "bicubic"
    intensity: IntensitySpec = IntensitySpec()
    channels: Channels | None = None
    page: Page | None = None
    on_bad_input: Literal["stop", "skip"] = "stop"
    max_samples: int | None = Field(default=None, ge=2)
    classes: tuple[ClassName, ...] | None = Field(default=None, min_length=2)
    exclude: tuple[ClassName, ...] = ()
    positive: ClassName | OneVsRest | None = None
    subgroups: tuple[ClassName | dict[ClassName, tuple[float, ...]], ...] = ()
    group_from: str | None = None
    site_from: str | None = None
    group_word: str | None = Field(default=None, max_length=60)
    site_word: str | None = Field(default=None, max_length=60)
    official_split: Literal["train", "val", "test"] | None = None
    control: ControlName | None = None

    @property
    def source(self) -> str:
        """The key that names the source."""
        return next(self._named_sources())

    @property
    def source_record(self) -> Source:
        """The record of the source."""
        return SOURCES[self.source]

    @property
    def picture_options(self) -> PictureOptions:
        """How its picture files are decoded."""
        return PictureOptions(self.intensity.window, self.channels, self.page)

    def square_resize(self, size: int) -> SquareResize:
        """How its pictures are stored at a side of `size` pixels."""
        return SquareResize(size, self.resize, self.interpolation)

    def _named_sources(self) -> Iterator[str]:
        return (key for key in _ordered_keys() if getattr(self, key) not in (None, False))

    @model_validator(mode="before")
    @classmethod
    def _accept_object(cls, given: Any) -> Any:
        """An object that holds data stands for `{"object": it}`."""
        return {"object": given} if is_data_object(given) and not isinstance(given, DataSpec) else given

    @field_validator("channels", "page")
    @classmethod
    def _check_counted_from_1(cls, value: Any) -> Any:
        if any(isinstance(at, int) and at < 1 for at in (value if isinstance(value, tuple) else [value])):
            raise ValueError(f"{list(value) if isinstance(value, tuple) else value} came; channels and pages are counted from 1")
        return value

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

    @field_validator("group_word", "site_word")
    @classmethod
    def _check_unit_word(cls, word: str | None) -> str | None:
        return None if word is None else parse_unit_word(word).written

    @model_validator(mode="after")
    def _check_consistency(self) -> DataSpec:
        sources = list(self._named_sources())
        if len(sources) > 1:
            raise ValueError(f"'{sources[0]}' and '{sources[1]}' both name a source of pictures: keep one")
        if not sources:
            raise ValueError(f"no source of pictures is named; expected one of {join_words(_ordered_keys(), 30)}")
        self._check_options()
        if self.classes and len(set(self.classes)) < len(self.classes):
            raise ValueError("'classes' names a class twice")
        if both := sorted(set(self.classes or ()) & set(self.exclude)):
            raise ValueError(f"'{both[0]}' is in 'classes' and in 'exclude': keep one")
        if OTHER_CLASSES in self.exclude and not self.classes:
            raise ValueError(
                f"'exclude: [\"{OTHER_CLASSES}\"]' means all that 'classes' does not name, and 'classes' is not given"
            )
        return self

    def _check_options(self) -> None:
        source = self.source_record
        for option in sorted({option for other in SOURCES.values() for option in other.option_names}):
            default = type(self).model_fields[option].default
            if getattr(self, option) != default and option not in source.option_names:
                owners = [key for key in _ordered_keys() if option in SOURCES[key].option_names]
                raise ValueError(f"'{option}' belongs to {join_words(owners, 30)} and does nothing for '{source.key}': remove it")
        if source.holds_recordings and self.intensity != IntensitySpec():
            raise ValueError(f"'intensity' does nothing for '{source.key}', whose pictures are drawn from recordings: remove it")
        if self.subgroups and source.key != "manifest" and not source.holds_recordings:
            raise ValueError(
                f"'subgroups' are columns of a manifest or facts of recordings, and the data come from '{source.key}': remove it"
            )
        if source.check is not None:
            source.check(self)


def open_dataset(data: DataSpec | Any, base: Path | None = None) -> Dataset:
    """A DataSpec, or an object that holds data → the Dataset. No picture is opened, unless it comes from an object.

    base: where relative paths start (default: the current folder)
    Raises DataError, with the spec's download_hint where the data are missing.
    """
    if not isinstance(data, DataSpec):
        return as_dataset(data)
    source = data.source_record
    value = getattr(data, source.key)
    value = resolve_path(value, base, source.table_endings) if isinstance(value, Path) else value
    place = resolve_snapshot(value) if isinstance(value, Path) else value
    if isinstance(place, Path) and data.database is None:
        refuse_foreign_file(place, source.formats)
    try:
        dataset = apply_options(source.open(SourceRequest(data, place, base)), data.picture_options)
    except DataError as error:
        if data.download_hint and isinstance(value, Path) and not value.exists():
            raise DataError(f"{error}; get {data.download_hint}") from None
        raise
    if place != value and not data.name:
        dataset = replace(dataset, name=value.name.rpartition("--")[2])
    dataset = _apply_subset(dataset, data, source)
    if not source.fixed_classes:
        require_two_classes(dataset)
    find_positive(dataset, data.positive)
    dataset = subsample_windows(dataset, data.max_samples) if data.max_samples else dataset
    return apply_control(dataset, data.control) if data.control else dataset


def _apply_subset(dataset: Dataset, spec: DataSpec, source: Source) -> Dataset:
    if spec.official_split:
        dataset = keep_official_split(dataset, spec.official_split)
    if spec.classes or spec.exclude:
        dataset = keep_classes(dataset, spec.classes, spec.exclude, source.typed_by_hand)
    if spec.group_from:
        dataset = replace(dataset, groups=extract_from_ids(dataset, spec.group_from, "group"))
    if spec.site_from:
        dataset = replace(dataset, sites=extract_from_ids(dataset, spec.site_from, "site"))
    for what, word, names in (("groups", spec.group_word, dataset.groups), ("sites", spec.site_word, dataset.sites)):
        if word and names is None:
            key = what[:-1]
            raise DataError(f"{key}_word: {word} names the {what} of the data, which have none; give {key}_from, or leave it out")
    return dataset


def _ordered_keys() -> list[str]:
    return [*DISPLAY_ORDER, *(key for key in SOURCES if key not in DISPLAY_ORDER)]


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


def hdf5(path: str | Path, **options: Any) -> DataSpec:
    """HDF5 with arrays of images and labels: `hdf5("cells.h5", columns={"group": "patient"})`."""
    return _make_spec("hdf5", path, options)


def shards(path: str | Path, **options: Any) -> DataSpec:
    """WebDataset tars: `shards("data-{000..003}.tar", columns={"group": "patient"})`."""
    return _make_spec("shards", path, options)


def saved_dataset(path: str | Path, **options: Any) -> DataSpec:
    """A folder that `save_to_disk` of Hugging Face's datasets wrote."""
    return _make_spec("saved_dataset", path, options)


def recordings(path: str | Path, **options: Any) -> DataSpec:
    """Recordings listed in a manifest: `recordings("ecg.csv", window={"length_s": 10, "gap_s": 0})`."""
    return _make_spec("recordings", path, options)


def simulate(what: str, **options: Any) -> DataSpec:
    """Simulated people or births: `simulate("ecg", cohort={"subjects": 8})`."""
    return _make_spec("simulate", what, options)


def digits(**options: Any) -> DataSpec:
    """scikit-learn's handwritten digits: 1,797 real pictures, no download."""
    return _make_spec("digits", True, options)


def in_memory(data: Any, **options: Any) -> DataSpec:
    """An object that holds data, with options: `in_memory((images, labels), size=64)`. Without options the object will do."""
    return _make_spec("object", data, options)


def _make_spec(source: str, value: Any, options: dict[str, Any]) -> DataSpec:
    return validate_as(DataSpec, {source: value, **options}, SourceMap(f"{source}(…)"))

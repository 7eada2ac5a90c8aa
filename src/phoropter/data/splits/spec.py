"""The protocol as a user writes it: which split, how many folds, which seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from phoropter.core.errors import join_words
from phoropter.core.extensions import Extension
from phoropter.core.spec import ClassName, SourceMap, Spec, validate_as

if TYPE_CHECKING:
    from phoropter.data.dataset import Dataset

Kind = Literal[
    "hold-out",
    "k-fold",
    "stratified-k-fold",
    "group-k-fold",
    "stratified-group-k-fold",
    "block-k-fold",
    "leave-one-group-out",
    "leave-one-site-out",
    "predefined",
    "held-out-sites",
    "file",
    "test-only",
]


@dataclass(frozen=True, eq=False)
class Protocol(Extension):
    """A protocol of your own: a function that makes the splits.

    make_splits: (dataset, seed) → one (train, test) or (train, test, val) for each split, of ids or row numbers of the dataset.
                 It is called once for each of the protocol's `seeds`, and must return the same splits for the same seed.

    >>> first_half = Protocol("first-half", make_splits=lambda dataset, seed: [(range(10), range(10, 20))])
    >>> ProtocolSpec.model_validate(first_half).seeds
    (0,)
    """

    make_splits: Callable[[Dataset, int], Iterable[Any]]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.make_splits):
            raise ValueError(f"make_splits of the protocol '{self.name}' is {self.make_splits!r}, expected a function")


class ProtocolSpec(Spec):
    """Which rows are trained on and which are tested.

    split:       how rows are partitioned. `held-out-sites` trains on some sites and tests on the others; `leave-one-site-out`
                 tests each site by a model that never saw it; `predefined` uses the dataset's own parts; `block-k-fold` tests one
                 contiguous stretch of each recording and class at a time; `file` reads `folds_file`; `test-only` trains nothing.
                 Also a Protocol, or module:NAME of one
    folds:       of the k-folds, and inside the training sites (there 1: train on all of them)
    test_size:   share of rows held out by hold-out · train_per_class: instead, so many rows of each class train, the rest test
    repeats:     how often the partition is drawn for each seed
    seeds:       of partition and training; 0 is a seed like any other (default: 0; 0 to 4 in folds of frozen candidates, with
                 or without baselines)
    reshuffle:   every seed draws its own partition; false: all seeds share one
    train_sites: of held-out-sites: sites that are trained on (default: all that are not tested)
    test_sites:  of held-out-sites: sites that are tested (default: all that are not trained on)
    allow_group_overlap: rows of one group may be trained on and tested
    val_size:    share of the training part set aside, by the same rule, as inner validation
    folds_file:  of `file`: a CSV with the columns id, seed, repeat, fold, part (folds_file.py); relative to the study file
    """

    split: Kind | Protocol = "stratified-k-fold"
    folds: int = Field(default=5, ge=1, le=1000)
    test_size: float = Field(default=0.2, gt=0, lt=1)
    train_per_class: int | None = Field(default=None, ge=1)
    repeats: int = Field(default=1, ge=1, le=1000)
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    reshuffle: bool = True
    train_sites: tuple[ClassName, ...] = ()
    test_sites: tuple[ClassName, ...] = ()
    allow_group_overlap: bool = False
    val_size: float = Field(default=0.0, ge=0, lt=1)
    folds_file: Path | None = None

    @property
    def split_name(self) -> str:
        """The split in words: its kind, or the name of the user's Protocol."""
        return self.split if isinstance(self.split, str) else self.split.name

    @model_validator(mode="before")
    @classmethod
    def _expand_split(cls, value: Any) -> Any:
        """A Protocol, or the name of a split, stands for a protocol that has only that."""
        return {"split": value} if isinstance(value, (str, Protocol)) else value

    @model_validator(mode="after")
    def _check_options(self) -> ProtocolSpec:
        for option, kinds in _OPTION_SPLITS.items():
            if getattr(self, option) == type(self).model_fields[option].default or self.split in kinds:
                continue
            if not (isinstance(self.split, Protocol) and option == "allow_group_overlap"):
                belongs = join_words(sorted(kinds))
                raise ValueError(f"'{option}' belongs to {belongs} and does nothing for 'split: {self.split_name}'")
        if self.folds < 2 and self.split != "held-out-sites":
            raise ValueError(f"'folds: {self.folds}' leaves nothing to train on: expected at least 2, or split: test-only")
        if self.train_per_class and self.test_size != type(self).model_fields["test_size"].default:
            raise ValueError("'test_size' and 'train_per_class' both say how much is held out: keep one")
        if len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError("'seeds' must be different whole numbers from 0 upwards")
        if self.split == "held-out-sites":
            self._check_sites()
        if self.split == "file" and self.folds_file is None:
            raise ValueError("'split: file' needs 'folds_file', a CSV with the columns id, repeat, fold, part")
        return self

    def _check_sites(self) -> None:
        if both := set(self.train_sites) & set(self.test_sites):
            raise ValueError(f"the site '{min(both)}' is in 'train_sites' and in 'test_sites': keep one")
        if self.folds == 1 and self.repeats > 1:
            raise ValueError(
                f"'repeats: {self.repeats}' with 'folds: 1' would repeat one and the same partition: remove 'repeats'"
            )


def KFold(folds: int = 5, *, stratified: bool = True, **options: Any) -> ProtocolSpec:
    """k-fold, with classes in proportion unless `stratified=False`; groups stay together. `KFold(5, seeds=[0, 1], repeats=2)`."""
    return _build_spec("KFold", "stratified-k-fold" if stratified else "k-fold", folds=folds, **options)


def GroupKFold(folds: int = 5, *, stratified: bool = True, **options: Any) -> ProtocolSpec:
    """k-fold over groups, each of which stays together; refused where there are none."""
    return _build_spec("GroupKFold", "stratified-group-k-fold" if stratified else "group-k-fold", folds=folds, **options)


def LeaveOneGroupOut(**options: Any) -> ProtocolSpec:
    """Each group is tested once, by a model that never saw it."""
    return _build_spec("LeaveOneGroupOut", "leave-one-group-out", **options)


def HoldOut(test_size: float = 0.2, **options: Any) -> ProtocolSpec:
    """A share of rows held out, or `HoldOut(train_per_class=60)`."""
    return _build_spec("HoldOut", "hold-out", test_size=test_size, **options)


def Predefined(**options: Any) -> ProtocolSpec:
    """The dataset's own training and test parts."""
    return _build_spec("Predefined", "predefined", **options)


def FoldsFile(folds_file: str | Path, **options: Any) -> ProtocolSpec:
    """The folds of a CSV file with the columns id, repeat, fold, part."""
    return _build_spec("FoldsFile", "file", folds_file=folds_file, **options)


def BlockKFold(folds: int = 5, **options: Any) -> ProtocolSpec:
    """Contiguous stretches of time of each recording and class; windows across a border are in none. Groups are on both sides."""
    return _build_spec("BlockKFold", "block-k-fold", folds=folds, allow_group_overlap=True, **options)


def HeldOutSites(**options: Any) -> ProtocolSpec:
    """`HeldOutSites(test_sites=["Brno"], folds=10)`: k-fold over the other sites, all models also tested on the unseen ones."""
    return _build_spec("HeldOutSites", "held-out-sites", **options)


def TestOnly(**options: Any) -> ProtocolSpec:
    """Nothing is trained; everything is tested."""
    return _build_spec("TestOnly", "test-only", **options)


def _build_spec(name: str, split: str, **options: Any) -> ProtocolSpec:
    return validate_as(ProtocolSpec, {"split": split, **options}, SourceMap(f"{name}(…)"))


_K_FOLDS = {"k-fold", "stratified-k-fold", "group-k-fold", "stratified-group-k-fold"}


_SITE_SPLITS = {"held-out-sites", "leave-one-site-out"}
_RANDOM_SPLITS = _K_FOLDS | {"hold-out", "held-out-sites"}


_OPTION_SPLITS: dict[str, set[str]] = {
    "folds": _K_FOLDS | {"held-out-sites", "block-k-fold"},
    "test_size": {"hold-out"},
    "train_per_class": {"hold-out"},
    "repeats": _RANDOM_SPLITS,
    "reshuffle": _RANDOM_SPLITS,
    "train_sites": {"held-out-sites"},
    "test_sites": {"held-out-sites"},
    "allow_group_overlap": {"k-fold", "stratified-k-fold", "block-k-fold", "hold-out", "predefined", "file", *_SITE_SPLITS},
    "val_size": _RANDOM_SPLITS | {"leave-one-group-out", "leave-one-site-out", "predefined"},
    "folds_file": {"file"},
}

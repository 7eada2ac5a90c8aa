"""Which rows a finished classifier has met, kept beside its bundle (no torch); whoever begins with it must not be tested on them.

Rows are known by the hashes of their ids and the name of their dataset, so a classifier of other pictures refuses nothing; their
groups by name, so that other windows of a person it has met are known too.
Left out: pretrained weights from elsewhere, whose training rows nobody has written down.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import LeakageError, WeightsError
from phoropter.data.dataset import Dataset
from phoropter.data.splits.protocol import Split
from phoropter.models import catalog
from phoropter.models.weights import weight_files
from phoropter.training.candidates.candidate import Candidate

FILE_NAME = "trained_on.npz"


def write_trained_on(bundle: Path, dataset: Dataset, rows: NDArray[np.int64], before: Iterable[Path] = ()) -> None:
    """Notes in a bundle's folder the rows it was trained on. before: the bundles it began with, which met what they met."""
    earlier = [noted for noted in map(read_trained_on, before) if noted.dataset == dataset.name]
    groups = [] if dataset.groups is None else [np.unique(dataset.groups[rows]), *(e.groups for e in earlier)]
    ids = np.unique(np.concatenate([dataset.hashed_ids[rows], *(e.ids for e in earlier)]))
    with (bundle / FILE_NAME).open("wb") as file:
        named = np.unique(np.concatenate(groups)) if groups else np.empty(0, dtype=np.str_)
        np.savez(file, dataset=np.array(dataset.name), ids=ids, groups=named)


def trained_ids(bundle: Path, dataset: Dataset) -> NDArray[np.uint64]:
    """Hashes of the ids of this dataset a bundle was trained on; empty where nothing is noted, or other pictures."""
    noted = read_trained_on(bundle)
    return noted.ids if noted.dataset == dataset.name else noted.ids[:0]


def rows_of_trained_groups(bundle: Path, dataset: Dataset) -> NDArray[np.int64]:
    """The rows of this dataset whose group a bundle was trained on."""
    noted = read_trained_on(bundle)
    if dataset.groups is None or noted.dataset != dataset.name:
        return _NO_ROWS
    return np.flatnonzero(np.isin(dataset.groups, noted.groups))


class TrainedOn(NamedTuple):
    """dataset: its name · ids: hashes of the rows trained on · groups: their names; all empty where nothing is noted."""

    dataset: str
    ids: NDArray[np.uint64]
    groups: NDArray[np.str_]


def read_trained_on(bundle: Path) -> TrainedOn:
    """What a bundle says it was trained on."""
    nobody = np.empty(0, dtype=np.str_)
    try:
        with np.load(bundle / FILE_NAME, allow_pickle=False) as file:
            groups = file.get("groups", nobody)  # bundles of earlier versions name none
            return TrainedOn(str(file["dataset"]), np.asarray(file["ids"], np.uint64), np.asarray(groups, np.str_))
    except (OSError, ValueError, KeyError):
        return TrainedOn("", np.empty(0, dtype=np.uint64), nobody)


_NO_ROWS: NDArray[np.int64] = np.empty(0, dtype=np.int64)


def initial_bundles(candidate: Candidate, base: Path | None) -> Iterator[tuple[str, Path]]:
    """What a candidate begins with from this disk: the weights as they are written, and the folder that holds them."""
    for backbone in candidate.backbones:
        if backbone.weights_path is None:
            continue
        try:
            found = weight_files.find_weight_file(backbone.weights_path, base, catalog.describe_backbone(backbone).name)
        except (WeightsError, json.JSONDecodeError):
            continue  # said elsewhere, with the candidate's name
        yield backbone.weights, found.path.parent


def raise_on_bundle_leak(candidate: Candidate, dataset: Dataset, split: Split, base: Path | None) -> None:
    """Raises LeakageError when a candidate begins with a bundle that was trained on rows this split tests."""
    for weights, folder in initial_bundles(candidate, base):
        known = trained_ids(folder, dataset)
        for rows in (split.test, split.external):
            both = 0 if rows is None or not len(known) else len(np.intersect1d(dataset.hashed_ids[rows], known))
            if both:
                raise LeakageError(
                    f"candidate '{candidate.name}' begins with {weights}, which was trained on {both} rows that are "
                    f"tested in {split.name}; train it on the same training rows, as a candidate of this study"
                )

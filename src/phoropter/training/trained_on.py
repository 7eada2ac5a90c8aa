"""Which rows a classifier was trained on, stored beside its bundle (no torch). A candidate that starts from the bundle must not
be tested on them.

Rows are identified by the hashes of their ids and the name of their dataset, so a bundle of another dataset refuses nothing;
groups by name, so that other windows of a person in the training rows are recognised too.

Left out: pretrained weights from elsewhere, whose training rows are not recorded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import LeakageError, WeightsError
from phoropter.core.storage.npz_files import read_own_npz
from phoropter.data.dataset import Dataset
from phoropter.data.splits.protocol import Split
from phoropter.models import catalog
from phoropter.models.weights import weight_files
from phoropter.models.weights.bundle_files import TRAINED_ON_FILE
from phoropter.training.candidates.candidate import Candidate

FORMAT = 1


def write_trained_on(bundle: Path, dataset: Dataset, rows: NDArray[np.int64], before: Iterable[Path] = ()) -> None:
    """Writes into a bundle's folder the rows it was trained on, and those of the bundles it started from (`before`)."""
    earlier = [record for record in map(read_trained_on, before) if record.dataset == dataset.name]
    groups = [] if dataset.groups is None else [np.unique(dataset.groups[rows]), *(e.groups for e in earlier)]
    ids = np.unique(np.concatenate([dataset.hashed_ids[rows], *(e.ids for e in earlier)]))
    with (bundle / TRAINED_ON_FILE).open("wb") as file:
        names = np.unique(np.concatenate(groups)) if groups else np.empty(0, dtype=np.str_)
        np.savez(file, format=np.array(FORMAT), dataset=np.array(dataset.name), ids=ids, groups=names)


def trained_ids(bundle: Path, dataset: Dataset) -> NDArray[np.uint64]:
    """Hashes of the ids of this dataset that a bundle was trained on; none without a record of this dataset."""
    record = read_trained_on(bundle)
    return record.ids if record.dataset == dataset.name else record.ids[:0]


def rows_of_trained_groups(bundle: Path, dataset: Dataset) -> NDArray[np.int64]:
    """The rows of this dataset whose group is among those that a bundle was trained on."""
    record = read_trained_on(bundle)
    if dataset.groups is None or record.dataset != dataset.name:
        return np.empty(0, dtype=np.int64)
    return np.flatnonzero(np.isin(dataset.groups, record.groups))


class TrainedOn(NamedTuple):
    """dataset: its name · ids: hashes of the training rows' ids · groups: their names. All are empty where there is no record."""

    dataset: str
    ids: NDArray[np.uint64]
    groups: NDArray[np.str_]


def read_trained_on(bundle: Path) -> TrainedOn:
    """The record in a bundle's folder; an empty one where there is none.

    Raises WeightsError for a damaged one: without it, a test on rows that the bundle has seen would go unnoticed.
    """
    no_groups = np.empty(0, dtype=np.str_)
    if not (bundle / TRAINED_ON_FILE).exists():
        return TrainedOn("", np.empty(0, dtype=np.uint64), no_groups)
    try:
        arrays = read_own_npz(bundle / TRAINED_ON_FILE)
        ids, groups = arrays["ids"], arrays.get("groups", no_groups)  # bundles of earlier versions name none
        if int(arrays.get("format", np.array(FORMAT))) != FORMAT or ids.dtype != np.uint64 or groups.dtype.kind != "U":
            raise ValueError(f"it is not of format {FORMAT}")
        return TrainedOn(str(arrays["dataset"]), ids, groups)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{bundle / TRAINED_ON_FILE} cannot be read ({error}), so that the rows the bundle has seen are not known: copy the "
            "complete bundle again, or train it again"
        ) from None


def initial_bundles(candidate: Candidate, base: Path | None) -> Iterator[tuple[str, Path]]:
    """The local weights that a candidate starts from: `weights` as the study writes it, and the folder that holds the file."""
    for backbone in candidate.backbones:
        if backbone.weights_path is None:
            continue
        try:
            found = weight_files.find_weight_file(backbone.weights_path, base, catalog.describe_backbone(backbone).name)
        except (WeightsError, json.JSONDecodeError):
            continue  # the plan reports it, with the candidate's name
        yield backbone.weights, found.path.parent


def raise_on_bundle_leak(candidate: Candidate, dataset: Dataset, split: Split, base: Path | None) -> None:
    """Raises LeakageError when a candidate starts from a bundle that was trained on rows that this split tests."""
    for weights, folder in initial_bundles(candidate, base):
        known = trained_ids(folder, dataset)
        for rows in (split.test, split.external):
            common = 0 if rows is None or not len(known) else len(np.intersect1d(dataset.hashed_ids[rows], known))
            if common:
                raise LeakageError(
                    f"candidate '{candidate.name}' begins with {weights}, which was trained on {common} rows that are "
                    f"tested in {split.name}; train it on the same training rows, as a candidate of this study"
                )

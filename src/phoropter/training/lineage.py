"""Which rows a finished classifier has met, kept beside its bundle (no torch); whoever begins with it must not be tested on them.

Rows are known by the hashes of their ids and the name of their dataset, so a classifier of other pictures refuses nothing.
Left out: pretrained weights from elsewhere, whose training rows nobody has written down.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import LeakageError, WeightsError
from phoropter.data.dataset import Dataset
from phoropter.data.protocols import Split
from phoropter.models import catalog, sources
from phoropter.training.candidate import Candidate

FILE = "trained_on.npz"


def write_met(bundle: Path, dataset: Dataset, rows: NDArray[np.int64]) -> None:
    """Notes in a bundle's folder the rows it was trained on."""
    with (bundle / FILE).open("wb") as file:
        np.savez(file, dataset=np.array(dataset.name), ids=np.sort(dataset.hashes[rows]))


def met(bundle: Path, dataset: Dataset) -> NDArray[np.uint64]:
    """Hashes of the ids of this dataset a bundle was trained on; empty where nothing is noted, or other pictures."""
    name, ids = noted(bundle)
    return ids if name == dataset.name else ids[:0]


def noted(bundle: Path) -> tuple[str, NDArray[np.uint64]]:
    """The name of the dataset a bundle was trained on, and the hashes of its rows' ids; empty where nothing is noted."""
    try:
        with np.load(bundle / FILE, allow_pickle=False) as file:
            return str(file["dataset"]), np.asarray(file["ids"], dtype=np.uint64)
    except (OSError, ValueError, KeyError):
        return "", np.array([], dtype=np.uint64)


def refuse_met(candidate: Candidate, dataset: Dataset, split: Split, base: Path | None) -> None:
    """Raises LeakageError when a candidate begins with a bundle that was trained on rows this split tests."""
    for backbone in candidate.backbones:
        if backbone.weights in ("pretrained", "random"):
            continue
        try:
            found = sources.locate(backbone.weights, base, catalog.entry(backbone.name).name)
        except (WeightsError, json.JSONDecodeError):
            continue  # said elsewhere, with the candidate's name
        known = met(found.path.parent, dataset)
        for rows in (split.test, split.external):
            both = 0 if rows is None or not len(known) else len(np.intersect1d(dataset.hashes[rows], known))
            if both:
                raise LeakageError(
                    f"candidate '{candidate.name}' begins with {backbone.weights}, which was trained on {both} rows that are "
                    f"tested in {split.name}; train it on the same training rows, as a candidate of this study"
                )

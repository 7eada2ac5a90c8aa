"""The rows that two sets of predictions have in common, in one order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.results.metrics.sufficient_sums import Floats
from phoropter.results.store import Predictions


def align_predictions(a: Predictions, b: Predictions) -> tuple[NDArray[Any], NDArray[Any], Floats, Floats]:
    """Labels, units (groups where known, else ids) and both probabilities of the rows both have, in the same order."""
    units = a.ids if a.groups is None else a.groups
    if np.array_equal(a.ids, b.ids):
        return a.labels, units, a.probabilities, b.probabilities
    ids = np.intersect1d(a.ids, b.ids)
    ra, rb = find_id_rows(a, ids), find_id_rows(b, ids)
    return a.labels[ra], units[ra], a.probabilities[ra], b.probabilities[rb]


def find_id_rows(predictions: Predictions, ids: NDArray[Any]) -> NDArray[np.int64]:
    """(len(ids),) the row of each id, in the order of the sorted ids."""
    order = np.argsort(predictions.ids, kind="stable")
    return order[np.searchsorted(predictions.ids[order], np.sort(ids))]

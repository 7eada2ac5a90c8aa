"""Keys of a study that need a positive class, or several rows of one person: refused where they would change nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import SpecError
from phoropter.data.dataset import UNLABELLED, Dataset
from phoropter.data.spec import DataSpec
from phoropter.results.clinical.aggregation import needs_positive
from phoropter.results.clinical.spec import ClinicalSpec
from phoropter.study.spec import StudySpec


def check_positive_uses(study: StudySpec, data: DataSpec, dataset: Dataset) -> None:
    """Raises SpecError for `clinical` or an aggregation that has no positive class to look at, or nothing to aggregate."""
    if dataset.is_multi_label:
        return  # multi_label_uses has refused them all
    without = len(dataset.classes) > 2 and data.positive is None
    way_out = "name it by data: {positive: {one_vs_rest: NAME}}"
    if study.clinical != ClinicalSpec() and without:
        raise SpecError(
            f"{study.source.describe_location(('clinical',))}: clinical needs a positive class, and of {len(dataset.classes)} "
            f"classes none is; {way_out}, or leave it out"
        )
    where = study.source.describe_location(("aggregate",))
    if needs_positive(study.aggregate) and without:
        raise SpecError(
            f"{where}: aggregate: {study.aggregate} looks at the positive class, and of {len(dataset.classes)} classes none is; "
            f"{way_out}, or choose mean or vote"
        )
    if study.aggregate != "mean" and not _has_owners(dataset):
        raise SpecError(
            f"{where}: aggregate: {study.aggregate} changes nothing: {dataset.name} has no groups or recordings with several "
            "rows that are all of one class; leave it out"
        )


def _has_owners(dataset: Dataset) -> bool:
    """Whether some group or recording has several rows, and each has one class."""
    return any(owners is not None and _are_pure(owners, dataset.labels) for owners in (dataset.groups, dataset.recordings))


def _are_pure(owners: NDArray[np.str_], labels: NDArray[np.int64]) -> bool:
    known = labels != UNLABELLED
    pairs = set(zip(owners[known].tolist(), labels[known].tolist(), strict=True))
    return len(pairs) == len({owner for owner, _ in pairs}) < int(known.sum())

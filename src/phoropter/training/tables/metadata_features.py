"""Metadata of rows as features of a candidate: by themselves, or joined with those of its baseline or file. No torch here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError
from phoropter.data.dataset import Dataset
from phoropter.data.metadata.encoded_columns import read_metadata
from phoropter.data.spec import DataSpec
from phoropter.training.candidates.table_spec import TableSpec
from phoropter.training.tables.row_features import RowFeatures


def digest_metadata(table: TableSpec, name: str, data: DataSpec, dataset: Dataset, base: Path | None) -> TableSpec:
    """The same with the digest of what the data state. name: of the candidate. Raises DataError for columns it must not read."""
    if not table.metadata:
        return table
    try:
        found = read_metadata(data, base, dataset, table.metadata)
    except DataError as error:
        raise DataError(f"candidate '{name}': {error}") from None
    return table.model_copy(update={"metadata_digest": found.digest})


def load_metadata(table: TableSpec, data: DataSpec, dataset: Dataset, base: Path | None) -> NDArray[np.float32] | None:
    """(N, D) metadata of the rows of a dataset; None of a candidate that reads none.

    Raises DataError where the data no longer state what the study was loaded with.
    """
    if not table.metadata:
        return None
    stated = read_metadata(data, base, dataset, table.metadata)
    if table.metadata_digest not in (None, stated.digest):
        raise DataError(f"metadata: what {dataset.name} states has changed since the study was loaded; run it again")
    return stated.values


def join_metadata(found: RowFeatures | None, metadata: NDArray[np.float32] | None) -> RowFeatures:
    """(n, D) features with the metadata of the same rows beside them. found: None where metadata stand alone"""
    if metadata is None:
        assert found is not None
        return found
    if found is None:
        return RowFeatures(metadata, 0.0)
    return replace(found, values=np.concatenate([found.values, metadata], axis=1))

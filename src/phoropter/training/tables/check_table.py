"""Checks a candidate without a network against the dataset and the splits of its study, before anything is computed. No torch."""

from __future__ import annotations

from pathlib import Path

from phoropter.core.errors import DataError
from phoropter.data.dataset import Dataset
from phoropter.data.splits.protocol import Split
from phoropter.training.candidates.table_spec import TableSpec
from phoropter.training.tables.feature_file import read_features
from phoropter.training.tables.prediction_file import read_fold_predictions
from phoropter.training.tables.row_features import check_baseline


def check_table(table: TableSpec, name: str, dataset: Dataset, splits: list[Split], base: Path | None) -> None:
    """Raises SpecError for a baseline of other data, and DataError for a file that is not of these rows and splits."""
    check_baseline(table, dataset, f"candidate '{name}'")
    try:
        if table.features is not None:
            read_features(table, dataset, base)
        if table.predictions is not None:
            read_fold_predictions(table, dataset, splits, base)
    except DataError as error:
        raise DataError(f"candidate '{name}': {error}") from None

"""A small dataset with groups, its splits, and files of predictions of them, for the tests of tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from phoropter.data.dataset import Dataset
from phoropter.data.sources.arrays import from_arrays
from phoropter.data.splits.protocol import Split, make_splits
from phoropter.data.splits.spec import ProtocolSpec


def make_rows(count: int = 60) -> Dataset:
    """Pictures of noise of two classes, "ill" and "well"."""
    rng = np.random.default_rng(0)
    labels = np.array(["ill", "well"])[np.arange(count) % 2]
    return from_arrays(rng.integers(0, 255, (count, 16, 16, 3), dtype=np.uint8), labels)


def make_folds(dataset: Dataset, seeds: tuple[int, ...] = (0,)) -> list[Split]:
    return make_splits(dataset, ProtocolSpec(split="stratified-k-fold", folds=3, seeds=seeds))


def frame_of(dataset: Dataset, splits: list[Split]) -> pd.DataFrame:
    """Another tool's table: random probabilities for the tested rows of every split, numbered from 1 and in another order."""
    rng = np.random.default_rng(1)
    parts = []
    for split in reversed(splits):
        p = rng.uniform(0.01, 0.99, len(split.test))
        columns = {"id": dataset.ids[split.test], "label": [dataset.classes[k] for k in dataset.labels[split.test]]}
        parts.append(pd.DataFrame({**columns, "seed": split.seed, "fold": split.fold + 1, "p_ill": 1 - p, "p_well": p}))
    return pd.concat(parts, ignore_index=True).sample(frac=1, random_state=0)


def save_frame(frame: pd.DataFrame, path: Path) -> Path:
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)
    return path

"""Metadata beside features, and what a level that no training row has does: nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from made_rows import make_folds
from phoropter.core.errors import DataError
from phoropter.data.dataset import Dataset
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.training.candidates.table_spec import TableSpec
from phoropter.training.tables.metadata_features import digest_metadata, join_metadata, load_metadata
from phoropter.training.tables.row_features import RowFeatures
from phoropter.training.tables.table_fit import fit_table
from small_pictures import draw_dark_and_light

BOTH = TableSpec(baseline="mean-image", metadata=("age", "ward"))
Opened = tuple[DataSpec, Dataset]


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    rng = np.random.default_rng(1)
    draw_dark_and_light(tmp_path, 30, size=(8, 8))
    labels = np.array(["dark", "light"]).repeat(30)
    age = 40 + 8 * (labels == "light") + rng.normal(0, 6, 60)
    paths = [f"{label}/{i % 30}.png" for i, label in enumerate(labels)]
    frame = pd.DataFrame({"path": paths, "label": labels, "age": age.round(1), "ward": rng.choice(["n", "s"], 60)})
    frame.to_csv(tmp_path / "list.csv", index=False)
    data = DataSpec.model_validate({"manifest": tmp_path / "list.csv"})
    return data, open_dataset(data)


def test_they_stand_alone_or_to_the_right_of_features(opened: Opened) -> None:
    data, dataset = opened
    own = RowFeatures(np.arange(120, dtype=np.float32).reshape(60, 2), 3.0)
    stated = load_metadata(BOTH, data, dataset, None)
    joined, alone = join_metadata(own, stated), join_metadata(None, stated)
    assert joined.values.shape == (60, 5) and (joined.seconds, alone.seconds) == (3.0, 0.0)
    np.testing.assert_array_equal(joined.values[:, :2], own.values)
    np.testing.assert_array_equal(joined.values[:, 2:], alone.values)
    assert join_metadata(own, load_metadata(TableSpec(baseline="mean-image"), data, dataset, None)) is own


def test_a_level_that_no_training_row_has_changes_no_answer(opened: Opened) -> None:
    data, dataset = opened
    split = make_folds(dataset)[0]
    without = join_metadata(None, load_metadata(BOTH, data, dataset, None))
    unseen = np.zeros((60, 1), np.float32)
    unseen[split.test[:3]] = 1
    beside = replace(without, values=np.concatenate([without.values, unseen], axis=1))
    for classifier in ("logistic", "gradient-boosting"):
        table = TableSpec(metadata=("age", "ward"), classifier=classifier)  # type: ignore[arg-type]
        before, after = (fit_table(table, found, dataset, split).predict_held_out(split.test) for found in (without, beside))
        np.testing.assert_allclose(after, before, atol=2e-3)


def test_the_digest_is_filled_in_and_a_change_is_noticed(opened: Opened, tmp_path: Path) -> None:
    data, dataset = opened
    settled = digest_metadata(BOTH, "both", data, dataset, None)
    assert settled.metadata_digest and settled.identity() != BOTH.identity()
    assert digest_metadata(TableSpec(baseline="hrv"), "hrv", data, dataset, None).metadata_digest is None
    with pytest.raises(DataError, match=r"candidate 'both': metadata: list\.csv has no column 'aeg'; did you mean 'age'"):
        digest_metadata(TableSpec(metadata=("aeg",)), "both", data, dataset, None)
    text = (tmp_path / "list.csv").read_text()
    (tmp_path / "list.csv").write_text(text.replace(",n\n", ",w\n"))
    with pytest.raises(DataError, match="has changed since the study was loaded"):
        load_metadata(settled, data, dataset, None)

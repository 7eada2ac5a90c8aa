"""Which rows a bundle was trained on: written, read, and refused where they are tested."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phoropter.core.errors import WeightsError
from phoropter.training.trained_on import read_trained_on, rows_of_trained_groups, trained_ids, write_trained_on


def test_rows_and_groups_are_recorded_with_those_of_earlier_bundles(few_digits: Any, tmp_path: Path) -> None:
    dataset = replace(few_digits[0], groups=np.array([f"writer {i % 10}" for i in range(len(few_digits[0]))]))
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    write_trained_on(first, dataset, np.array([0, 1, 10]))
    write_trained_on(second, dataset, np.array([2]), before=[first])
    np.testing.assert_array_equal(trained_ids(second, dataset), np.sort(dataset.hashed_ids[[0, 1, 2, 10]]))
    assert read_trained_on(second).groups.tolist() == ["writer 0", "writer 1", "writer 2"]
    groups = {str(dataset.groups[row]) for row in rows_of_trained_groups(second, dataset)}
    assert groups == {"writer 0", "writer 1", "writer 2"}


def test_another_dataset_and_a_bundle_without_a_record_have_no_trained_rows(few_digits: Any, tmp_path: Path) -> None:
    dataset = few_digits[0]
    write_trained_on(tmp_path, dataset, np.arange(5))
    other = replace(dataset, name="other digits")
    assert len(trained_ids(tmp_path, dataset)) == 5
    assert not len(trained_ids(tmp_path, other)) and not len(rows_of_trained_groups(tmp_path, other))
    assert not len(trained_ids(tmp_path / "nowhere", dataset))


def test_a_damaged_record_is_refused_because_a_leak_would_go_unnoticed(tmp_path: Path) -> None:
    assert not len(read_trained_on(tmp_path).ids)
    np.savez(tmp_path / "trained_on.npz", dataset=np.array("d"), ids=np.arange(9, dtype=np.uint64), groups=np.array(["g"]))
    sound = (tmp_path / "trained_on.npz").read_bytes()
    assert read_trained_on(tmp_path).groups.tolist() == ["g"]  # of an earlier version
    for content in (b"", sound[:100], sound.replace(b"ids.npy", b"idz.npy"), sound.replace(bytes(8) + b"\1", bytes(8) + b"\2")):
        (tmp_path / "trained_on.npz").write_bytes(content)
        with pytest.raises(WeightsError, match=r"trained_on\.npz cannot be read"):
            read_trained_on(tmp_path)

"""Subgroups of a manifest: values, ranges of numbers, empty cells; what cannot be split is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from phoropter.core.errors import DataError, SpecError
from phoropter.core.spec import validate_as
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.data.subgroups import cut_column, read_subgroups

AGES = [20, 25, 31, 38, 44, 52, 57, 63]


def write_manifest(folder: Path) -> Path:
    lines = ["path,label,group,sex,age"]
    for i, age in enumerate(AGES):
        Image.new("L", (8, 8), i).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{'ab'[i % 2]},p{i // 2},{'m' if i < 3 else 'f' if i < 7 else ''},{age}")
    (folder / "people.csv").write_text("\n".join(lines) + "\n")
    return folder / "people.csv"


def test_columns_are_read_beside_the_dataset(tmp_path: Path) -> None:
    path = write_manifest(tmp_path)
    data = validate_as(DataSpec, {"manifest": path, "subgroups": ["sex", {"age": [30, 50]}]})
    dataset = open_dataset(data)
    assert dataset.fingerprint == open_dataset(DataSpec(manifest=path)).fingerprint  # no run depends on them
    backwards = dataset.select_rows(np.arange(8)[::-1])
    found = read_subgroups(path, {}, data.subgroups, backwards)
    assert found["sex"].tolist()[::-1] == ["m"] * 3 + ["f"] * 4 + ["not given"]
    assert found["age"].tolist()[::-1] == ["under 30"] * 2 + ["30 to under 50"] * 3 + ["50 and over"] * 3


def test_numbers_without_edges_are_cut_at_their_quartiles() -> None:
    found = cut_column("age", [str(a) for a in AGES])
    q = np.quantile(AGES, [0.25, 0.5, 0.75])
    for age, name in zip(AGES, found, strict=True):
        place = int((q <= age).sum())
        assert name.startswith(("under", f"{q[0]:g} to", f"{q[1]:g} to", f"{q[2]:g} and")[place])
    assert cut_column("grade", ["1", "2", "3", "1"]).tolist() == ["1", "2", "3", "1"]  # few numbers stay as they are


def test_what_makes_no_subgroups_is_refused(tmp_path: Path) -> None:
    path = write_manifest(tmp_path)
    dataset = open_dataset(DataSpec(manifest=path))
    with pytest.raises(DataError, match="no column 'sx'; did you mean 'sex'"):
        read_subgroups(path, {}, ["sx"], dataset)
    with pytest.raises(DataError, match="sex has edges, and 'm' is no number"):
        read_subgroups(path, {}, [{"sex": (1.0,)}], dataset)
    with pytest.raises(DataError, match="ward has 13 different values, more than 12"):
        cut_column("ward", [f"w{i}" for i in range(13)])
    with pytest.raises(SpecError, match="'subgroups' are columns of a manifest, and the data come from 'digits'"):
        validate_as(DataSpec, {"digits": True, "subgroups": ["sex"]})
    with pytest.raises(DataError, match=r"8 of 8 rows .* have ids that people.csv does not name"):
        read_subgroups(path, {"id": "group"}, ["sex"], dataset)

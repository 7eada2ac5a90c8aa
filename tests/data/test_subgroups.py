"""Subgroups of a manifest: values, ranges of numbers, empty cells; what cannot be split is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from phoropter.core.errors import DataError, SpecError
from phoropter.core.spec import validate_as
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.data.subgroups import cut_column, read_stated_subgroups, read_subgroups

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
    with pytest.raises(DataError, match="'age' is named twice"):
        read_subgroups(path, {}, ["age", {"age": (30.0,)}], dataset)
    with pytest.raises(DataError, match="sex has edges, and 'm' is no number"):
        read_subgroups(path, {}, [{"sex": (1.0,)}], dataset)
    with pytest.raises(DataError, match="ward has 13 different values, more than 12"):
        cut_column("ward", [f"w{i}" for i in range(13)])
    with pytest.raises(SpecError, match=r"'subgroups' are columns of a manifest or facts of rec.*'digits'"):
        validate_as(DataSpec, {"digits": True, "subgroups": ["sex"]})
    with pytest.raises(DataError, match=r"8 of 8 rows .* have ids that people.csv does not name"):
        read_subgroups(path, {"id": "group"}, ["sex"], dataset)


def test_a_decimal_comma_is_one_where_columns_are_separated_by_semicolons(tmp_path: Path) -> None:
    Image.new("L", (8, 8), 1).save(tmp_path / "a.png")
    Image.new("L", (8, 8), 2).save(tmp_path / "b.png")
    (tmp_path / "m.csv").write_text("path;label;dose\na.png;x;0,5\nb.png;y;1,25\n")
    dataset = open_dataset(DataSpec(manifest=tmp_path / "m.csv"))
    found = read_subgroups(tmp_path / "m.csv", {}, [{"dose": (1.0,)}], dataset)
    assert found["dose"].tolist() == ["under 1", "1 and over"]


def write_births(folder: Path) -> DataSpec:
    """Eight recordings of 10 s with facts in their manifest."""
    lines = ["path,rate_hz,label,subject,about.Sex,about.age,outcome.pH"]
    for i, age in enumerate(AGES):
        samples = np.random.default_rng(i).normal(size=40)
        (folder / f"{i}.csv").write_text("x\n" + "\n".join(f"{v:.3f}" for v in samples) + "\n")
        lines.append(f"{i}.csv,4,{'ab'[i % 2]},p{i // 2},{'m' if i < 3 else 'f' if i < 7 else ''},{age},7.{i}")
    (folder / "recordings.csv").write_text("\n".join(lines) + "\n")
    return validate_as(
        DataSpec,
        {
            "recordings": folder / "recordings.csv",
            "window": {"length_s": 5, "step_s": 5},
            "subgroups": ["sex", {"age": [30, 50]}],
        },
    )


def test_facts_of_recordings_are_the_subgroups_of_their_windows(tmp_path: Path) -> None:
    data = write_births(tmp_path)
    dataset = open_dataset(data)
    backwards = dataset.select_rows(np.arange(len(dataset))[::-1])
    found = read_stated_subgroups(data, None, backwards)
    assert len(dataset) == 16
    assert found["sex"].tolist()[::-1] == ["m"] * 6 + ["f"] * 8 + ["not given"] * 2
    assert found["age"].tolist()[::-1] == ["under 30"] * 4 + ["30 to under 50"] * 6 + ["50 and over"] * 6
    of_outcome = read_stated_subgroups(data.model_copy(update={"subgroups": ({"pH": (7.45,)},)}), None, dataset)
    assert of_outcome["pH"].tolist() == ["under 7.45"] * 10 + ["7.45 and over"] * 6
    with pytest.raises(DataError, match="no recording of recordings has 'parity'; choose pH, Sex or age"):
        read_stated_subgroups(data.model_copy(update={"subgroups": ("parity",)}), None, dataset)


def test_no_run_depends_on_the_facts_of_recordings(tmp_path: Path) -> None:
    data = write_births(tmp_path)
    before = open_dataset(data)
    text = (tmp_path / "recordings.csv").read_text()
    (tmp_path / "recordings.csv").write_text(text.replace(",m,", ",x,").replace(",20,", ",77,"))
    assert open_dataset(data).fingerprint == before.fingerprint

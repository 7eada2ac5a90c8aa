"""Explanations as files: one of each kind asked for, a table of all, nothing where anything is wrong."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import phoropter as ph
from phoropter.core.errors import DataError, SpecError
from phoropter.core.storage.csv_cells import read_csv_rows
from phoropter.deploy.explain.explain import ExplainOptions
from phoropter.deploy.explain.map_files import format_time_map, write_explanations
from phoropter.deploy.predictions import open_inputs
from phoropter.signals.simulate import ecg_simulate
from small_recordings import PEOPLE


def test_pictures_have_a_figure_and_numbers_each_and_a_row_of_the_table(
    explained_studies: dict[str, Path], explained_bundles: dict[str, Path], tmp_path: Path
) -> None:
    model = ph.load(explained_bundles["fusion"])
    files = [*sorted((explained_studies["shapes"] / "pictures").glob("*/*.png"))[:3], tmp_path / "=bad.png"]
    files[-1].write_bytes(b"nothing")
    seen: list[tuple[int, int]] = []
    dataset = open_inputs(model, files, "skip")
    written = write_explanations(model, dataset, tmp_path / "maps", progress=lambda *done: seen.append(done))
    assert written.count == 3 and [p.where.rsplit("/", 1)[-1] for p in written.problems] == ["=bad.png"]
    assert seen == [(1, 4), (2, 4), (3, 4)]
    rows = read_csv_rows(tmp_path / "maps" / "explanations.csv")
    names = {p.name for p in (tmp_path / "maps").iterdir()}
    assert names == {"explanations.csv", "problems.csv", *(f"{r['file']}.{kind}" for r in rows for kind in ("png", "npz"))}
    predicted = model.predict(files[:3], device="cpu")
    for row, probabilities in zip(rows, predicted.probabilities, strict=True):
        assert row["class"] == row["explained"] == model.classes[int(probabilities.argmax())]
        assert float(row["probability"]) == pytest.approx(probabilities.max(), abs=1e-5)
        shares = [float(row[f"share of {name}"]) for name in ("test_resnet", "test_vit")]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        with np.load(tmp_path / "maps" / f"{row['file']}.npz") as numbers:
            assert numbers["weights"].tolist() == pytest.approx(shares, abs=1e-5)


def test_a_recordings_map_along_time_is_a_table_in_seconds_and_units(explained_bundles: dict[str, Path], tmp_path: Path) -> None:
    model = ph.load(explained_bundles["people"])
    found = model.explain(ecg_simulate(PEOPLE)[0], device="cpu")[1]
    rows = list(csv.reader(format_time_map(found).splitlines()))
    assert rows[0] == ["second", "evidence", "ECG (mV)"]
    numbers = np.array(rows[1:], float)
    np.testing.assert_allclose(numbers[:, 0], found.time_s, atol=1e-6)
    np.testing.assert_allclose(numbers[:, 1], found.time_map, atol=1e-5)
    assert found.window is not None
    np.testing.assert_allclose(numbers[:, 2], found.window.signals["ECG"], rtol=1e-6)


def test_nothing_is_left_where_something_is_wrong(
    explained_studies: dict[str, Path], explained_bundles: dict[str, Path], tmp_path: Path
) -> None:
    model = ph.load(explained_bundles["net"])
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"nothing")
    dataset = open_inputs(model, [bad], "skip")
    with pytest.raises(DataError, match=r"^\S*bad\.png: not a picture that can be read"):
        write_explanations(model, dataset, tmp_path / "maps")
    good = open_inputs(model, [explained_studies["shapes"] / "pictures"], "stop")
    with pytest.raises(SpecError, match="the map of a picture is no table"):
        write_explanations(model, good, tmp_path / "maps", ("csv",))
    with pytest.raises(SpecError, match="'grey' is no class"):
        write_explanations(model, good, tmp_path / "maps", options=ExplainOptions("grey"))
    assert not list(tmp_path.glob("maps*"))
    (tmp_path / "maps").mkdir()
    with pytest.raises(SpecError, match="exists already; give a new folder for the maps"):
        write_explanations(model, good, tmp_path / "maps")

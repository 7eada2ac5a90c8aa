"""Treatments written and read back; damaged ones are as if there were none."""

from __future__ import annotations

from pathlib import Path

from phoropter.results.shown_treatments import (
    ShownRow,
    ShownStep,
    ShownTrace,
    ShownTreatments,
    read_treated_pictures,
    read_treatments,
    write_treatments,
)

SHOWN = ShownTreatments(
    source="x",
    rows=[ShownRow(id="a", label="cat", span=(0.0, 5.0))],
    steps=[
        ShownStep(title="raw", about="", channel="ECG", unit="mV", traces=[ShownTrace(low=[0.0, None], high=[1.0, None])]),
        ShownStep(title="drawn", about="", pictures=["1-0"]),
    ],
)


def test_what_is_written_is_read_back_and_replaced(tmp_path: Path) -> None:
    assert read_treatments(tmp_path) is None and read_treated_pictures(tmp_path) == {}
    write_treatments(tmp_path, SHOWN, {"1-0": b"jpeg"})
    assert read_treatments(tmp_path) == SHOWN and read_treated_pictures(tmp_path) == {"1-0": b"jpeg"}
    write_treatments(tmp_path, ShownTreatments(source="y", reason="no data"), {})
    found = read_treatments(tmp_path)
    assert found is not None and found.reason == "no data" and read_treated_pictures(tmp_path) == {}


def test_a_damaged_file_is_as_if_there_were_none(tmp_path: Path) -> None:
    write_treatments(tmp_path, SHOWN, {})
    file = tmp_path / "treatments" / "treatments.json"
    file.write_text(file.read_text().replace("cat", "dog"))
    assert read_treatments(tmp_path) is None

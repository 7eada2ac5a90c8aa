"""Names of channels and sampling rates that a study changes after reading."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from phoropter.core.errors import DataError, SpecError
from phoropter.core.spec import validate_as
from phoropter.data.recordings.changes import RecordingChanges
from phoropter.data.recordings.databases import MANIFEST
from phoropter.data.recordings.dataset import RenderedPictures
from phoropter.data.recordings.files import read_recording_paths
from phoropter.data.recordings.in_memory import from_recordings
from phoropter.data.recordings.views import CtgView
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.signals.recording import GAPS_NOTE, LoadedRecordings, Recording

N = 2400


def monitor(channels: tuple[str, ...] = ("fhr", "uc"), rate_hz: float = 1.0) -> Recording:
    samples = np.random.default_rng(0).uniform(110, 150, (len(channels), N)).astype(np.float32)
    return Recording("a", "a", samples, channels, ("",) * len(channels), rate_hz, label="normal")


def write_exports(folder: Path, header: str, clock: bool = False) -> Path:
    values = np.random.default_rng(0).uniform(110, 150, (N, 2)).round(1)
    for name in ("a", "b"):
        times = [f"23:{at // 60:02d}:{at % 60:02d}" if clock else str(at) for at in range(N)]
        lines = [f"{time},{fhr},{uc}" for time, (fhr, uc) in zip(times, values, strict=True)]
        (folder / f"{name}.csv").write_text("\n".join([header, *lines]) + "\n")
    (folder / "births.csv").write_text("path,rate_hz,label,subject\na.csv,1,normal,m1\nb.csv,1,high-risk,m2\n")
    return folder / "births.csv"


@pytest.mark.parametrize("channels", [("fhr", "uc"), ("Fhr", "UC"), ("FHR", "Uc", "MHR")])
def test_fhr_and_uc_are_found_in_any_case(channels: tuple[str, ...]) -> None:
    assert RecordingChanges().apply_one(monitor(channels)).channels == ("FHR", "UC", *channels[2:])


def test_one_of_them_alone_keeps_its_name() -> None:
    assert RecordingChanges().apply_one(monitor(("uc", "ECG"))).channels == ("uc", "ECG")


def test_columns_rename_channels_in_any_case() -> None:
    changes = RecordingChanges((("ECG", "Lead II"), ("fhr", "HR1"), ("uc", "TOCO")))
    assert changes.apply_one(monitor(("hr1", "Toco", "lead ii"))).channels == ("FHR", "UC", "ECG")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ((("fhr", "HR2"),), "columns.fhr is 'HR2', and no channel is called so; there are HR1 or TOCO; did you mean 'HR1'"),
        ((("TOCO", "HR1"),), "after columns two channels are called 'TOCO'"),
    ],
)
def test_columns_that_fit_no_channel_are_refused_or_listed(columns: tuple[tuple[str, str], ...], message: str) -> None:
    changes = RecordingChanges(columns)
    with pytest.raises(DataError, match=message):
        changes.apply_one(monitor(("HR1", "TOCO")))
    loaded = changes.apply(LoadedRecordings([monitor(("HR1", "TOCO"))]), "skip")
    assert not loaded.recordings and len(loaded.problems) == 1


@pytest.mark.parametrize(
    ("header", "clock"), [("time,fhr,uc", False), ("time,fhr,uc", True), ("Time,FHR,UC", True), ("TIME [s],Fhr,Uc", False)]
)
def test_exports_of_a_cardiotocograph_are_cardiotocograms(tmp_path: Path, header: str, clock: bool) -> None:
    dataset = open_dataset(validate_as(DataSpec, {"recordings": write_exports(tmp_path, header, clock), "size": 32}))
    assert isinstance(dataset.pictures, RenderedPictures)
    assert isinstance(dataset.pictures.windows.view, CtgView) and len(dataset) == 2
    assert dataset.pictures.windows.recordings[0].rate_hz == 1.0


def test_columns_and_rate_of_a_study_file(tmp_path: Path) -> None:
    spec = {"recordings": write_exports(tmp_path, "time,HR1,TOCO"), "size": 32, "columns": {"fhr": "HR1", "uc": "TOCO"}}
    dataset = open_dataset(validate_as(DataSpec, {**spec, "resample_hz": 4}))
    assert isinstance(dataset.pictures, RenderedPictures)
    (recording, _) = dataset.pictures.windows.recordings
    assert (recording.channels, recording.rate_hz, recording.length) == (("FHR", "UC"), 4.0, 4 * N)
    assert any(note.startswith("resampled from 1 to 4 Hz: in 2 recordings") for note in dataset.notes)
    again = open_dataset(validate_as(DataSpec, spec))
    assert isinstance(again.pictures, RenderedPictures) and again.pictures.windows.recordings[0].rate_hz == 1.0


def test_a_monitor_export_may_be_a_cardiotocogram(tmp_path: Path) -> None:
    write_exports(tmp_path, "time,HR1,TOCO").rename(tmp_path / "manifest.csv")
    spec = {"monitor_csv": tmp_path, "size": 32, "columns": {"FHR": "HR1", "UC": "TOCO"}}
    dataset = open_dataset(validate_as(DataSpec, spec))
    assert isinstance(dataset.pictures, RenderedPictures) and isinstance(dataset.pictures.windows.view, CtgView)


def test_recordings_of_two_rates_are_refused_or_resampled() -> None:
    two = [monitor(), replace(monitor(rate_hz=4.0), id="b", label="high-risk")]
    with pytest.raises(DataError, match=r"its rate is 4 Hz, that of most is 1 Hz"):
        from_recordings(two, size=32)
    dataset = from_recordings(two, size=32, resample_hz=1, clean={"window": {"length_s": 600}})
    assert isinstance(dataset.pictures, RenderedPictures)
    assert {r.rate_hz for r in dataset.pictures.windows.recordings} == {1.0}


def test_new_files_are_changed_as_those_of_the_study(tmp_path: Path) -> None:
    manifest = write_exports(tmp_path, "time,HR1,TOCO")
    changes = RecordingChanges((("fhr", "HR1"), ("uc", "TOCO")), 4.0)
    loaded = read_recording_paths([manifest], MANIFEST, 4.0, "stop", changes)
    assert [(r.channels, r.rate_hz) for r in loaded.recordings] == [(("FHR", "UC"), 4.0)] * 2


def test_columns_belong_to_tables(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"'columns' belongs to .* and does nothing for 'wesad'"):
        validate_as(DataSpec, {"wesad": tmp_path, "columns": {"fhr": "HR1"}})


def test_gaps_are_missing_samples_or_refused() -> None:
    samples = monitor().samples.copy()
    samples[:, 10:40] = np.nan
    gap = replace(monitor(), samples=samples, notes=(GAPS_NOTE,))
    assert RecordingChanges().apply_one(gap).notes == (GAPS_NOTE,)
    with pytest.raises(DataError, match="recording a: its time jumps, 30 s are missing: split the file, or say gaps: missing"):
        from_recordings([gap], size=32, gaps="refuse")


def test_missing_values_are_taken_out_of_new_recordings_too() -> None:
    recording = monitor()
    recording.samples[1, 100:150] = -9999
    changes = RecordingChanges(missing=(-9999.0, 32767.0))
    changed = changes.apply_one(recording)
    assert np.flatnonzero(np.isnan(changed.channel("UC"))).tolist() == list(range(100, 150))
    assert np.isfinite(changed.channel("FHR")).all() and changed.notes == ("-9999 counted as missing",)
    assert (recording.samples[1, 100:150] == -9999).all()  # the recording itself is left as it was
    assert changes.apply_one(monitor()).notes == ()  # at prediction a recording need not have any

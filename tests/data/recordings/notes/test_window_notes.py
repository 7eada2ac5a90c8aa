"""Notes on values that stand for a missing sample, and on units; test_dataset.py tests the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phoropter.core.errors import DataError, SpecError
from phoropter.core.spec import validate_as
from phoropter.data.dataset import Dataset
from phoropter.data.recordings.in_memory import from_recordings
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.signals.recording import Recording

RATE_HZ, N = 100.0, 6000
BAD = slice(2000, 2200)


def make_recording(name: str, value: float | None = None, unit: str = "mV", channels: tuple[str, ...] = ("ECG",)) -> Recording:
    samples = np.random.default_rng(ord(name)).normal(size=(len(channels), N)).astype(np.float32)
    if value is not None:
        samples[:, BAD] = value
    return Recording(name, name, samples, channels, (unit,) * len(channels), RATE_HZ, label="ab"[ord(name) % 2])


def write_manifest(folder: Path, value: float | None, separator: str = ",") -> Path:
    for name in "ab":
        cells = (f"{at / RATE_HZ:.2f}{separator}{v}" for at, v in enumerate(make_recording(name, value).samples[0]))
        (folder / f"{name}.csv").write_text("\n".join([f"time{separator}ECG", *cells]) + "\n")
    (folder / "m.csv").write_text("path,rate_hz,label\na.csv,100,x\nb.csv,100,y\n")
    return folder / "m.csv"


def open_manifest(path: Path, **options: Any) -> Dataset:
    return open_dataset(validate_as(DataSpec, {"recordings": path, "size": 16, **options}))


@pytest.mark.parametrize("value", [-9999.0, 32767.0, -3276.8])
def test_a_value_for_missing_samples_is_said_with_counts_and_the_way_out(value: float) -> None:
    dataset = from_recordings([make_recording("a", value), make_recording("b"), make_recording("c", value)], size=16)
    text = f"{value:g}"
    assert (
        f"WARNING: ECG is {text} in 400 samples of 2 recordings (a, c), far from all others, and is drawn so: if it means a "
        f"missing sample, say missing: [{text}]"
    ) in dataset.notes


def test_missing_takes_the_samples_out(tmp_path: Path) -> None:
    clean = open_manifest(write_manifest(tmp_path, None))
    one, other = (open_manifest(write_manifest(tmp_path, -9999), missing=missing) for missing in (-9999, [-9999]))
    assert one.fingerprint == other.fingerprint
    assert "-9999 counted as missing: in 2 recordings (a, b)" in one.notes
    assert not any("WARNING" in note for note in one.notes)
    starts = [float(name.partition("@")[2]) for name in clean.ids]
    kept = [s + 5 <= BAD.start / RATE_HZ or s >= BAD.stop / RATE_HZ for s in starts]  # no window holds a missing sample
    assert one.ids.tolist() == clean.ids[kept].tolist()
    assert "left out" in " ".join(one.notes)
    row = int(np.flatnonzero(kept)[0])
    np.testing.assert_array_equal(one.pictures.read(0), clean.pictures.read(row))


def test_missing_holds_before_resampling() -> None:
    recordings = [make_recording("a", -9999.0), make_recording("b", -9999.0)]
    dataset = from_recordings(recordings, size=16, resample_hz=10, missing=[-9999])
    assert not any("WARNING" in note for note in dataset.notes)
    blurred = from_recordings(recordings, size=16, resample_hz=10)
    assert [note.partition(",")[0] for note in blurred.notes if "WARNING" in note] == ["WARNING: ECG has the value -9999"]
    assert len(blurred) > len(dataset)


def test_a_value_that_no_sample_has_is_refused(tmp_path: Path) -> None:
    message = r"missing: -999: no sample has this value; -9999 may be meant; correct it, or leave it out"
    with pytest.raises(DataError, match=message):
        open_manifest(write_manifest(tmp_path, -9999), missing=[-999])
    with pytest.raises(DataError, match="missing: -999: no sample has this value; correct it"):
        from_recordings([make_recording("a"), make_recording("b")], size=16, missing=[-999])


def test_missing_belongs_to_recordings(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"'missing' belongs to .* and does nothing for 'folder'"):
        validate_as(DataSpec, {"folder": tmp_path, "missing": [-9999]})


def test_only_the_drawn_channel_is_looked_at() -> None:
    bad = make_recording("a", channels=("ECG", "Temp"))
    bad.samples[1, BAD] = -9999
    dataset = from_recordings([bad, make_recording("b", channels=("ECG", "Temp"))], size=16, channel="ECG")
    assert not any("WARNING" in note for note in dataset.notes)


def test_units_that_differ_are_told() -> None:
    recordings = [make_recording("a", unit="µV"), make_recording("b", unit="uV"), make_recording("c", unit="mV")]
    dataset = from_recordings([*recordings, make_recording("d", unit="")], size=16)
    assert "ECG is in µV in 2 recordings (a, b) and in mV in 1 recording (c), and was not converted" in dataset.notes
    same = from_recordings([replace(r, units=("mV",)) for r in recordings], size=16)
    assert not any("converted" in note for note in same.notes)


def test_a_clipped_trace_is_said_and_a_value_for_missing_samples_is_none() -> None:
    wave = np.sin(np.arange(N) / 20)
    clipped = replace(make_recording("a"), samples=np.minimum(wave, 0.5).astype(np.float32)[None])
    dataset = from_recordings([clipped, make_recording("b", -9999.0)], size=16)
    count = int((np.minimum(wave, 0.5) == 0.5).sum())
    assert [note for note in dataset.notes if note.startswith("clipped")] == [
        f"clipped: ECG stays at its largest or smallest value in {count:,} samples of 1 recording (a); was the recorder's range "
        "too small?"
    ]

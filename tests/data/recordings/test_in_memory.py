"""Recordings in memory: objects of MNE and WFDB become recordings, and a list of them a dataset."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from phoropter.core.errors import DataError, SpecError
from phoropter.data.dataset import Dataset
from phoropter.data.recordings.dataset import render_recordings
from phoropter.data.recordings.in_memory import as_recording, from_recordings, looks_like_recording
from phoropter.data.recordings.views import ChannelView
from phoropter.signals.recording import Recording
from phoropter.signals.render import Trace

RATE = 100.0


def noise(seed: int, channels: int = 1, n: int = 2000) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(channels, n))


class RawLike:
    """The part of mne.io.Raw that phoropter uses."""

    def __init__(self, data: np.ndarray, names: list[str], annotations: list[tuple[float, float, str]], **more: Any) -> None:
        self._data, self.ch_names, self.info = data, names, {"sfreq": RATE}
        onset, duration, description = zip(*annotations, strict=True) if annotations else ((), (), ())
        self.annotations = SimpleNamespace(
            onset=np.array(onset), duration=np.array(duration), description=list(description), orig_time=more.get("orig_time")
        )
        self.first_time = more.get("first_time", 0.0)
        self.filenames = more.get("filenames", (None,))

    def get_data(self) -> np.ndarray:
        return self._data


def record_like(data: np.ndarray, name: str = "100") -> SimpleNamespace:
    """The part of wfdb.Record that phoropter uses; its samples are rows."""
    return SimpleNamespace(p_signal=data.T, fs=RATE, sig_name=["MLII"], units=["mV"], record_name=name)


def test_annotations_of_mne_become_spans_events_and_missing_samples() -> None:
    raw = RawLike(noise(0, 2), ["ECG", "EDA"], [(1, 5, "rest"), (8, 0, "beep"), (10, 2, "BAD_motion"), (12, 100, "task")])
    recording = as_recording(raw, "p1")
    assert (recording.id, recording.channels, recording.units, recording.rate_hz) == ("p1", ("ECG", "EDA"), ("V", "V"), RATE)
    assert [tuple(s) for s in recording.spans] == [(100, 600, "rest"), (1200, 2000, "task")]
    assert recording.events is not None and recording.events.samples.tolist() == [800]
    assert recording.events.labels.tolist() == ["beep"]
    missing = np.isnan(recording.samples).all(axis=0)
    assert np.flatnonzero(missing).tolist() == list(range(1000, 1200))
    np.testing.assert_array_equal(recording.samples[:, :1000], noise(0, 2)[:, :1000].astype(np.float32))


def test_annotations_of_a_dated_measurement_count_from_its_start() -> None:
    raw = RawLike(noise(0), ["ECG"], [(30, 5, "rest"), (3, 5, "before")], orig_time="2020-01-01", first_time=20.0)
    assert [tuple(s) for s in as_recording(raw).spans] == [(1000, 1500, "rest")]


def test_a_raw_object_read_from_a_file_is_called_as_the_file() -> None:
    assert as_recording(RawLike(noise(0), ["ECG"], [], filenames=("/data/p7_raw.fif",))).id == "p7_raw"


def test_a_wfdb_record_keeps_its_samples_units_and_name() -> None:
    wfdb = pytest.importorskip("wfdb")
    record = wfdb.Record(p_signal=noise(1).T, fs=RATE, sig_name=["MLII"], units=["mV"], record_name="100", n_sig=1)
    assert looks_like_recording(record)
    recording = as_recording(record)
    assert (recording.id, recording.channels, recording.units) == ("100", ("MLII",), ("mV",))
    np.testing.assert_array_equal(recording.samples, noise(1).astype(np.float32))


def test_digital_samples_of_a_wfdb_record_are_converted() -> None:
    wfdb = pytest.importorskip("wfdb")
    digital = np.arange(2000)[:, None]
    record = wfdb.Record(
        d_signal=digital, fmt=["16"], adc_gain=[200.0], baseline=[0], fs=RATE, sig_name=["MLII"], units=["mV"], n_sig=1
    )
    np.testing.assert_allclose(as_recording(record, "a").samples[0], np.arange(2000) / 200, rtol=1e-6)


def test_a_list_of_mixed_objects_becomes_the_dataset_of_the_recordings() -> None:
    own = Recording("own", "own", noise(2).astype(np.float32), ("ECG",), ("mV",), RATE)
    wfdb_object = record_like(noise(3))
    wfdb_object.sig_name = ["ECG"]
    objects = [own, RawLike(noise(4), ["ECG"], [(0, 20, "replaced")]), wfdb_object]
    dataset = from_recordings(
        objects, labels=["a", "b", "a"], subjects=["p1", "p1", "p2"], sites=["x", "x", "y"], size=32, representation="trace"
    )
    assert dataset.classes == ("a", "b") and dataset.groups is not None and dataset.sites is not None
    assert set(dataset.groups) == {"p1", "p2"} and set(dataset.sites) == {"x", "y"}
    assert dataset.recordings is not None and list(dict.fromkeys(dataset.recordings)) == ["own", "recording-0002", "100"]
    direct = [
        Recording(f"r{i}", subject, noise(seed).astype(np.float32), ("ECG",), ("mV",), RATE, label=label)
        for i, (seed, subject, label) in enumerate([(2, "p1", "a"), (3, "p2", "a"), (4, "p1", "b")])
    ]
    expected = render_recordings(direct, ChannelView(channel="ECG", representation=Trace(size=32)))
    place = {rid: i for i, rid in enumerate(["own", "100", "recording-0002"])}
    for row in range(len(dataset)):
        name = str(dataset.ids[row]).replace(str(dataset.recordings[row]), f"r{place[str(dataset.recordings[row])]}")
        np.testing.assert_array_equal(dataset.read(row), expected.read(expected.ids.tolist().index(name)))


def test_the_dataset_pickles_with_its_samples() -> None:
    dataset = from_recordings([record_like(noise(0), "a"), record_like(noise(1), "b")], labels=["a", "b"], size=32)
    copy: Dataset = pickle.loads(pickle.dumps(dataset))  # noqa: S301  our own
    assert copy.fingerprint == dataset.fingerprint
    np.testing.assert_array_equal(copy.read(3), dataset.read(3))


@pytest.mark.parametrize(
    ("objects", "options", "message"),
    [
        ([{"ecg": 1}], {}, "expected a Recording, an MNE Raw or a WFDB Record, came builtins.dict"),
        ([record_like(noise(0))], {"labels": ["a", "b"]}, "2 labels were given for 1 recordings"),
        ([record_like(noise(0)), record_like(noise(1))], {"labels": ["a", "b"]}, "the id 100 came more than once"),
        ([record_like(noise(0))], {"labels": ["a"], "channel": "II"}, "channel 'II' is missing, there are MLII"),
    ],
)
def test_objects_that_cannot_be_used_are_refused(objects: list[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_recordings(objects, **options)


def test_an_unknown_option_is_refused_with_the_nearest() -> None:
    with pytest.raises(SpecError, match=r"unknown key 'windows'; did you mean 'window'\?|unknown key 'windows'.*'window'"):
        from_recordings([record_like(noise(0))], labels=["a"], windows={"step_s": 1})

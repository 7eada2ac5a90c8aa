from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.signals.readers import wesad
from phoropter.signals.recording import Span
from phoropter.signals.simulate_ecg import EcgCohort, ecg_as_wesad, ecg_simulate_subject
from phoropter.signals.windows import WindowRule, sliding_windows

LABELS = np.repeat([0, 1, 0, 2, 6, 3, 4, 7], 700)


def write(root: Path, subject: str = "S2", protocol: int = 2, **changes: Any) -> Path:
    """A subject in WESAD's layout, with one second of each label."""
    rng = np.random.default_rng(0)
    session = {
        "subject": subject,
        "signal": {
            "chest": {"ECG": rng.normal(size=(len(LABELS), 1)), "Temp": rng.normal(size=(len(LABELS), 1)).astype(np.float32)},
            "wrist": {"ACC": rng.normal(size=(100, 3)), "BVP": rng.normal(size=(200, 1))},
        },
        "label": LABELS.astype(np.int32),
    }
    for key, value in changes.items():
        if key == "ECG":
            session["signal"]["chest"]["ECG"] = value  # type: ignore[index]
        else:
            session[key] = value
    path = root / subject / f"{subject}.pkl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(session, protocol))
    return path


def test_a_genuine_layout_reads(tmp_path: Path) -> None:
    recording = wesad.read_wesad_subject(write(tmp_path))
    assert (recording.id, recording.subject, recording.rate_hz, recording.channels) == ("S2", "S2", 700.0, ("ECG",))
    assert recording.samples.dtype == np.float32
    expected = np.random.default_rng(0).normal(size=(len(LABELS), 1))[:, 0].astype(np.float32)
    assert (recording.channel("ECG") == expected).all()
    assert recording.spans == (
        Span(700, 1400, "baseline"),
        Span(2100, 2800, "stress"),
        Span(3500, 4200, "amusement"),
        Span(4200, 4900, "meditation"),
    )


@pytest.mark.parametrize("kind", ["f8", "f4", "i4", "u2"])
def test_every_kind_of_number_is_accepted(tmp_path: Path, kind: str) -> None:
    recording = wesad.read_wesad_subject(write(tmp_path, ECG=np.arange(len(LABELS))[:, None].astype(kind)))
    assert recording.channel("ECG")[:3].tolist() == [0, 1, 2]


def test_the_text_beside_a_subject_states_who_it_is(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert wesad.read_wesad_subject(path).about == {}
    path.with_name("S2_readme.txt").write_text("Age: 27\nGender: male\n")
    assert wesad.read_wesad_subject(path, tmp_path / "cache").about == {"age": 27.0, "sex": "male"}


def test_tasks_name_classes(tmp_path: Path) -> None:
    recording = wesad.read_wesad_subject(write(tmp_path))
    rule = WindowRule(length_s=1, step_s=1)
    assert sliding_windows([recording], rule, wesad.TASKS["3-class"]).label.tolist() == ["baseline", "stress", "amusement"]
    assert sliding_windows([recording], rule, wesad.TASKS["2-class"]).label.tolist() == ["non-stress", "stress", "non-stress"]


def test_a_simulated_subject_reads_back(tmp_path: Path) -> None:
    simulated = ecg_simulate_subject(EcgCohort(baseline_s=3, stress_s=2, amusement_s=2, between_s=1), 1)
    held = ecg_as_wesad(simulated)
    recording = wesad.read_wesad_subject(write(tmp_path, "S3", 2, ECG=held["signal"]["chest"]["ECG"], label=held["label"]))
    assert (recording.samples == simulated.samples).all()
    assert recording.spans == simulated.spans


class Runs:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def test_a_pickle_that_tries_to_run_a_command_is_refused_in_one_line(tmp_path: Path) -> None:
    path = write(tmp_path, signal=Runs(tmp_path / "ran"))
    with pytest.raises(DataError, match=r"S2\.pkl: refused, it is not a pickle of arrays: it names .*system") as caught:
        wesad.read_wesad_subject(path, tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()
    assert not list((tmp_path / "cache").glob("*")) if (tmp_path / "cache").exists() else True


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": LABELS[:-1]}, "5600 samples of ECG and 5599 labels"),
        ({"label": np.where(LABELS == 6, 9, LABELS)}, "unknown label code 9"),
        ({"label": LABELS.astype(float)}, r"label should be numbers of shape \(N,\), came float64"),
        ({"label": np.where(LABELS == 6, -1, LABELS)}, "label codes -1..7"),
        ({"ECG": np.zeros((5600, 2))}, r"ECG should be numbers of shape \(N, 1\) or \(N,\), came float64 of shape \(5600, 2\)"),
        ({"ECG": np.zeros((0, 1)), "protocol": 4}, "ECG should be numbers"),
        ({"ECG": np.zeros((5600, 1), bool)}, "ECG should be numbers"),
        ({"ECG": "text"}, "came str"),
        ({"ECG": np.full((5600, 1), np.nan)}, "no channel has a finite sample"),
        ({"signal": {"wrist": {}}}, "expected subject, label and signal → chest → ECG"),
        ({"signal": [1]}, "expected subject, label and signal → chest → ECG"),
        ({"subject": "S4"}, "it holds subject 'S4', expected 'S2'"),
        ({"subject": 2}, "the subject should be text"),
    ],
)
def test_other_layouts_are_refused_in_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write(tmp_path)
    write(tmp_path, **changes) if "subject" not in changes else _with_subject(path, changes["subject"])
    with pytest.raises(DataError, match=message) as caught:
        wesad.read_wesad_subject(path)
    assert "\n" not in str(caught.value)


def _with_subject(path: Path, subject: object) -> None:
    session = {"subject": subject, "signal": {"chest": {"ECG": np.zeros((5600, 1))}}, "label": LABELS}
    path.write_bytes(pickle.dumps(session, 2))


def test_a_conversion_is_cached_and_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cache = write(tmp_path), tmp_path / "cache"
    first = wesad.read_wesad_subject(path, cache)
    assert len(list(cache.glob("wesad-*.npz"))) == 1
    monkeypatch.setattr(wesad, "load_arrays_file", lambda path: pytest.fail("it was converted twice"))
    again = wesad.read_wesad_subject(path, cache)
    assert (again.samples == first.samples).all()
    assert again.spans == first.spans


def test_a_changed_file_is_converted_again(tmp_path: Path) -> None:
    path, cache = write(tmp_path), tmp_path / "cache"
    wesad.read_wesad_subject(path, cache)
    write(tmp_path, ECG=np.ones((5600, 1)))
    assert (wesad.read_wesad_subject(path, cache).samples == 1).all()


def test_a_damaged_cache_file_is_replaced(tmp_path: Path) -> None:
    path, cache = write(tmp_path), tmp_path / "cache"
    first = wesad.read_wesad_subject(path, cache)
    next(cache.glob("*.npz")).write_bytes(b"PK\x03\x04 not an archive")
    assert (wesad.read_wesad_subject(path, cache).samples == first.samples).all()


def test_a_folder_is_read_in_order_of_number(tmp_path: Path) -> None:
    for subject in ("S10", "S2", "S3"):
        write(tmp_path, subject)
    assert [r.id for r in wesad.read_wesad_folder(tmp_path).recordings] == ["S2", "S3", "S10"]


def test_a_copied_subject_is_listed_and_skipped(tmp_path: Path) -> None:
    (tmp_path / "S3").mkdir()
    (tmp_path / "S3" / "S3.pkl").write_bytes(write(tmp_path).read_bytes())
    loaded = wesad.read_wesad_folder(tmp_path, on_bad_input="skip")
    assert [r.id for r in loaded.recordings] == ["S2"]
    assert "it holds subject 'S2', expected 'S3'" in str(loaded.problems[0])


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no S2/S2\.pkl"):
        wesad.read_wesad_folder(tmp_path)


def test_a_file_too_large_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wesad, "MAX_BYTES", 1000)
    with pytest.raises(DataError, match="more than a WESAD subject has"):
        wesad.read_wesad_subject(write(tmp_path))

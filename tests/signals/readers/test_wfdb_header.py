"""Headers of WFDB records as people and tools leave them: read right, noted, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.signals.readers.physionet import read_wfdb
from phoropter.signals.readers.wfdb_header import DEFAULT_RATE_NOTE, read_wfdb_text

DIGITAL = np.random.default_rng(0).integers(-500, 500, 400).astype("<i2")
PLAIN = "a 1 200 400\na.dat 16 200(0)/mV 12 0 0 SUM 0 ECG\n"


def write_record(folder: Path, header: str | bytes, samples: bytes = DIGITAL.tobytes()) -> Path:
    data = header.encode() if isinstance(header, str) else header
    total = int(np.frombuffer(samples[: len(samples) // 2 * 2], "<i2").astype(int).sum())
    (folder / "a.hea").write_bytes(data.replace(b"SUM", str(total % 65536).encode()))
    (folder / "a.dat").write_bytes(samples)
    return folder / "a.hea"


@pytest.mark.parametrize(
    "header",
    [
        PLAIN,
        PLAIN.replace("\n", "\r\n"),
        "\ufeff" + PLAIN,
        "\n# a comment\n" + PLAIN,
        PLAIN.replace(" ", "\t"),
        PLAIN.replace("200 400", "200/100(3) 400 10:00:00 01/01/2020"),
        PLAIN.replace("/mV", ""),  # mV is WFDB's own default
        PLAIN.replace("a 1", "other 1"),  # a renamed record
    ],
)
def test_headers_of_other_tools_are_read_alike(tmp_path: Path, header: str) -> None:
    recording = read_wfdb(write_record(tmp_path, header))
    assert (recording.channels, recording.units, recording.rate_hz, recording.notes) == (("ECG",), ("mV",), 200.0, ())
    np.testing.assert_array_equal(recording.samples[0], (DIGITAL / 200).astype(np.float32))


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_letters_beyond_ascii_stay(tmp_path: Path, encoding: str) -> None:
    header = PLAIN.replace("/mV", "/µV").replace("ECG", "EKG Ä").encode(encoding)
    recording = read_wfdb(write_record(tmp_path, header))
    assert (recording.channels, recording.units) == (("EKG Ä",), ("µV",))  # wfdb: EKG, V


@pytest.mark.parametrize(
    ("header", "rate_hz", "gain", "note"),
    [
        ("a 1\na.dat 16 100(0)/mV 12 0 0 SUM 0 ECG\n", 250, 100, DEFAULT_RATE_NOTE),
        (PLAIN.replace("200(0)/mV", "0"), 200, 200, "its header has no gain for ECG, which was read as 200 steps to the unit"),
        ("a 1 200\na.dat 16\n", 200, 200, "its header has no gain for channel 1, which"),
    ],
)
def test_what_the_defaults_of_wfdb_fill_in_is_noted(tmp_path: Path, header: str, rate_hz: int, gain: int, note: str) -> None:
    recording = read_wfdb(write_record(tmp_path, header))
    assert len(recording.notes) == 1 and recording.notes[0].startswith(note)
    assert recording.rate_hz == rate_hz
    np.testing.assert_array_equal(recording.samples[0], (DIGITAL / gain).astype(np.float32))


def test_defaults_of_segments_are_noted_once(tmp_path: Path) -> None:
    write_record(tmp_path, PLAIN.replace("200(0)/mV", "0"))
    (tmp_path / "both.hea").write_text("both/2 1 200 800\na 400\na 400\n")
    recording = read_wfdb(tmp_path / "both.hea")
    assert recording.length == 800 and len(recording.notes) == 1 and "no gain for ECG" in recording.notes[0]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("", "a.hea: the header is empty"),
        ("# only a comment\n", "a.hea: the header is empty"),
        (PLAIN.replace("200 400", "200,5 400"), "has '200,5' for the sampling rate: expected a number, such as 250 or 200.5"),
        (PLAIN.replace("200 400", "200 4OO"), "has '4OO' for the length"),
        (PLAIN.replace("200 400", "0 400"), "the sampling rate should be a number of Hz above zero, came 0"),
        (PLAIN.replace(" 16 ", " 99 "), "the format 99 of a.dat is none of WFDB's"),
        (
            PLAIN.replace("a.dat", "A.DAT"),
            r"A.DAT: this signal file, named by the header beside it, is missing \(there is 'a.dat'\)",
        ),
        (PLAIN.replace("a.dat", "b.dat"), "b.dat: this signal file, named by the header beside it, is missing: copy"),
        (PLAIN.replace("a 1", "a 2"), "it says 2 signals and describes 1"),
        (PLAIN.replace("SUM", "77"), "the checksum of signal ECG is"),
        (PLAIN.replace("a.dat", "/etc/passwd"), "cannot be read"),
        (PLAIN.replace("a.dat", "../a.dat"), "cannot be read"),
    ],
)
def test_a_header_that_cannot_be_meant_is_refused(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_wfdb(write_record(tmp_path, header))


@pytest.mark.parametrize("change", [DIGITAL.tobytes() + b"\0", DIGITAL.tobytes()[:-1], DIGITAL.tobytes() * 2, b""])
def test_another_number_of_bytes_is_refused(tmp_path: Path, change: bytes) -> None:
    with pytest.raises(DataError, match=f"its header says 400 samples of 1 signals, which are 800 bytes, came {len(change)}"):
        read_wfdb(write_record(tmp_path, PLAIN, change))


def test_signals_as_written(tmp_path: Path) -> None:
    (tmp_path / "a.hea").write_text("a 3 200\na.dat 16 200/uV 12 0 0 0 0 Lead II  x\na.dat 16\na.dat 16 1.5e2(7)\n")
    text = read_wfdb_text(tmp_path / "a.hea")
    assert (text.names, text.units) == (("Lead II  x", None, None), ("uV", None, None))
    assert [note.partition(",")[0] for note in text.notes] == ["its header has no gain for channel 2"]

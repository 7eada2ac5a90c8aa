"""EDF and BDF files written here byte by byte, as recorders and tools leave them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.signals import recording
from phoropter.signals.readers.edf import read_edf
from phoropter.signals.recording import GAPS_NOTE

RATE = 100
ECG = np.round(np.random.default_rng(0).normal(size=10 * RATE), 3)


def write_edf(
    path: Path,
    signals: Sequence[tuple[str, np.ndarray]] = (("ECG", ECG),),
    *,
    onsets: Sequence[float] | None = None,
    kind: str = "EDF+C",
    said: int | None = None,
    unit: bytes = b"mV",
    patient: bytes = b"X X X X",
    recorded: bytes = b"",
    **header: Any,
) -> Path:
    """Records of one second; digital = 1000 × physical. onsets: of the records, which makes the file EDF+."""
    width = 3 if kind.startswith("BDF") else 2
    count = len(signals[0][1]) // RATE
    labels = [name for name, _ in signals] + ["BDF Annotations" if width == 3 else "EDF Annotations"] * (onsets is not None)
    n, plain = len(labels), onsets is None
    low, high = ("-8388000", "8388000") if width == 3 else ("-32768", "32767")

    def field(text: object, size: int) -> bytes:
        return (text if isinstance(text, bytes) else str(text).encode()).ljust(size)[:size]

    text = field(b"\xffBIOSEMI" if width == 3 else "0", 8) + field(patient, 80) + field(recorded, 80) + b"01.01.1100.00.00"
    text += field(header.get("header_bytes", 256 * (n + 1)), 8) + field("" if plain else kind, 44)
    text += field(count if said is None else said, 8) + field(header.get("seconds", 1), 8) + field(header.get("n", n), 4)
    numbers = [header.get("physical_min", int(low) / 1000), int(high) / 1000, low, high]
    columns: list[tuple[int, list[Any]]] = [(16, list(labels)), (80, [""] * n), (8, [unit] * n)]
    columns += [(8, [number] * n) for number in numbers]
    columns += [(80, [""] * n), (8, [RATE] * len(signals) + [30] * (not plain)), (32, [""] * n)]
    text += b"".join(field(value, size) for size, values in columns for value in values)
    for at in range(count):
        for _, values in signals:
            digital = np.rint(values[at * RATE : (at + 1) * RATE] * 1000).astype("<i4")
            text += digital.view(np.uint8).reshape(-1, 4)[:, :width].tobytes()
        if onsets is not None:
            text += f"+{onsets[at]:.12g}\x14\x14\0".encode().ljust(30 * width, b"\0")
    path.write_bytes(text)
    return path


@pytest.mark.parametrize("kind", ["EDF+C", "BDF+C"])
@pytest.mark.parametrize("plus", [False, True])
def test_samples_are_in_the_unit_of_the_header(tmp_path: Path, kind: str, plus: bool) -> None:
    recording = read_edf(write_edf(tmp_path / "a.edf", kind=kind, onsets=range(10) if plus else None))
    np.testing.assert_allclose(recording.samples[0], ECG, atol=1e-6)
    assert (recording.channels, recording.units, recording.rate_hz, recording.notes) == (("ECG",), ("mV",), 100.0, ())


@pytest.mark.parametrize(("worst", "noted"), [(2000, False), (2001, True), (-2000, False), (-2001, True)])
def test_samples_outside_the_digital_range_are_noted_and_kept(tmp_path: Path, worst: int, noted: bool) -> None:
    values = np.zeros(RATE)
    values[7] = worst / 1000
    path = write_edf(tmp_path / "a.edf", [("ECG", values), ("Resp", values * 0)])
    whole = path.read_bytes()
    fixed = {b"-32.768": b"-2", b"32.767": b"2", b"-32768": b"-2000", b"32767": b"2000"}
    head = whole[: 256 * 3]
    for old, new in fixed.items():
        head = head.replace(old.ljust(8), new.ljust(8))
    path.write_bytes(head + whole[256 * 3 :])
    recording = read_edf(path)
    assert recording.samples[0, 7] == np.float32(worst / 1000)
    expected = ("ECG has samples outside the digital range of the header, and they are kept: is the header right?",)
    assert recording.notes == (expected if noted else ())


def test_samples_equal_those_of_edflib(tmp_path: Path) -> None:
    pyedflib = pytest.importorskip("pyedflib")
    path = write_edf(tmp_path / "a.edf", [("ECG", ECG), ("Resp", -ECG)], physical_min=-31.4)
    with pyedflib.EdfReader(str(path)) as reader:
        expected = np.stack([reader.readSignal(row) for row in range(2)]).astype(np.float32)
    np.testing.assert_array_equal(read_edf(path).samples, expected)


@pytest.mark.parametrize("unit", ["µV".encode("latin-1"), "µV".encode()])
def test_micro_signs_and_umlauts_are_read(tmp_path: Path, unit: bytes) -> None:
    path = write_edf(tmp_path / "a.edf", [("Größe", ECG)], unit=unit, patient="Müller".encode("latin-1"))
    recording = read_edf(path)
    assert (recording.units, recording.channels) == (("µV",), ("Größe",))
    np.testing.assert_allclose(recording.samples[0], ECG, atol=1e-6)


def test_other_tools_numbers_are_read(tmp_path: Path) -> None:
    recording = read_edf(write_edf(tmp_path / "a.edf", seconds="1,0", physical_min=b"-32.768\0", unit=b"mV\0\0"))
    np.testing.assert_allclose(recording.samples[0], ECG, atol=1e-6)
    assert recording.units == ("mV",)


def test_a_count_of_minus_one_is_read_from_the_size(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "a.edf", said=-1)
    assert read_edf(path).length == 10 * RATE
    path.write_bytes(path.read_bytes()[:-50])  # the recorder was stopped in the middle of a record
    recording = read_edf(path)
    assert (recording.length, recording.notes) == (9 * RATE, ("its last data record is unfinished and was left out",))


@pytest.mark.parametrize("said", [0, 5, 9, 11, 200])
def test_a_count_that_the_size_contradicts_is_refused(tmp_path: Path, said: int) -> None:
    with pytest.raises(DataError, match=rf"header says {said} data records of 200 bytes, the file holds 10: it was cut short"):
        read_edf(write_edf(tmp_path / "a.edf", said=said))


def test_a_file_cut_in_a_record_is_refused_and_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_edf(tmp_path / "a.edf")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="the file holds 9 and 100 bytes"):
        read_edf(path)
    assert capfd.readouterr() == ("", "")


def test_a_name_of_two_signals_is_refused_where_it_is_wanted(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "a.edf", [("ECG", ECG * 0), ("ECG ", ECG), ("Resp", ECG)])
    for channels in (None, ("ECG",)):
        with pytest.raises(DataError, match="2 channels are called 'ECG', so which one is meant is unknown"):
            read_edf(path, channels)
    assert read_edf(path, ("Resp",)).channels == ("Resp",)


@pytest.mark.parametrize("kind", ["EDF+D", "EDF+C", "BDF+D"])
def test_a_gap_between_records_becomes_missing_samples(tmp_path: Path, kind: str) -> None:
    recording = read_edf(write_edf(tmp_path / "a.edf", onsets=[*range(5), *range(65, 70)], kind=kind))
    assert (recording.length, recording.notes) == (70 * RATE, (GAPS_NOTE,))
    missing = np.isnan(recording.samples[0])
    assert missing[5 * RATE : 65 * RATE].all()
    assert missing.sum() == 60 * RATE
    np.testing.assert_allclose(recording.samples[0, 65 * RATE :], ECG[5 * RATE :], atol=1e-6)


@pytest.mark.parametrize(("mark", "refused"), [(b"EDF+D", True), (b"EDF+C", False), (b"", False)])
def test_a_file_with_gaps_that_does_not_say_where_is_refused(tmp_path: Path, mark: bytes, refused: bool) -> None:
    file = write_edf(tmp_path / "a.edf")
    content = file.read_bytes()
    file.write_bytes(content[:192] + mark.ljust(44) + content[236:])
    if not refused:
        np.testing.assert_allclose(read_edf(file).samples[0], ECG, atol=0.001)
        return
    with pytest.raises(DataError, match=r"do not follow each other \(EDF\+D\), and no signal of annotations says when"):
        read_edf(file)


def test_one_record_has_no_gaps(tmp_path: Path) -> None:
    content = write_edf(tmp_path / "a.edf", [("ECG", ECG[:RATE])]).read_bytes()
    (tmp_path / "a.edf").write_bytes(content[:192] + b"EDF+D".ljust(44) + content[236:])
    assert read_edf(tmp_path / "a.edf").length == RATE


def test_a_gap_is_bounded_over_all_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header of thousands of channels makes a gap that one channel may have fill the memory."""
    monkeypatch.setattr(recording, "MAX_FILLED_NUMBERS", 20 * 2000 * RATE)
    two = {"onsets": [0, 2000], "kind": "EDF+D"}
    few, many = ([(f"c{at}", ECG[: 2 * RATE]) for at in range(n)] for n in (2, 20))
    assert read_edf(write_edf(tmp_path / "a.edf", few, **two)).length == 2001 * RATE
    with pytest.raises(DataError, match="check the times, or split the file"):
        read_edf(write_edf(tmp_path / "a.edf", many, **two))


def test_rounded_onsets_are_no_gaps(tmp_path: Path) -> None:
    recording = read_edf(write_edf(tmp_path / "a.edf", onsets=[at + 0.009 * (at % 2) for at in range(10)], kind="EDF+D"))
    assert (recording.length, recording.notes) == (10 * RATE, ())


@pytest.mark.parametrize(
    ("onsets", "message"),
    [
        ([*range(5), *range(3, 8)], r"data record 6 begins at 3 s, before record 5 of 1 s from 4 s ends"),
        ([*range(9), 1e9], r"its times span 100000000100 samples, and 1000 are there"),
    ],
)
def test_impossible_onsets_are_refused(tmp_path: Path, onsets: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_edf(write_edf(tmp_path / "a.edf", onsets=onsets, kind="EDF+D"))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"n": 0}, "its header has '0' for the number of signals"),
        ({"n": 99}, "its header of 99 signals has 25600 bytes"),
        ({"n": "x"}, "its header has 'x' for the number of signals"),
        ({"header_bytes": 256}, "its header says it has 256 bytes, 1 signals need 512"),
        ({"seconds": 0}, "its data records last 0 s"),
        ({"seconds": "nan"}, "its header has 'nan' for the seconds of a data record"),
        ({"physical_min": 32.767}, r"signal ECG has the digital range -32768\.\.32767 and the physical range"),
        ({"physical_min": "low"}, "its header has 'low' for physical_min of ECG"),
    ],
)
def test_an_impossible_header_is_refused_in_one_line(tmp_path: Path, header: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=rf"a\.edf: it cannot be read as EDF: {message}") as caught:
        read_edf(write_edf(tmp_path / "a.edf", **header))
    assert "\n" not in str(caught.value)


def test_another_kind_of_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.edf").write_bytes(b"PK\3\4" * 200)
    with pytest.raises(DataError, match="it is another kind of file"):
        read_edf(tmp_path / "a.edf")
    with pytest.raises(DataError, match="this file is missing: check the path"):
        read_edf(tmp_path / "b.edf")


def test_signals_without_a_name_are_counted(tmp_path: Path) -> None:
    recording = read_edf(write_edf(tmp_path / "a.edf", [("", ECG), ("EEG", -ECG)]))
    assert recording.channels == ("channel 1", "EEG")
    np.testing.assert_allclose(recording.channel("channel 1"), ECG, atol=1e-3)


@pytest.mark.parametrize("date", [b"99.99.99", b"1/1/2020", b"        ", b"00.00.00"])
def test_a_date_that_is_none_does_not_matter(tmp_path: Path, date: bytes) -> None:
    file = write_edf(tmp_path / "a.edf")
    plain = read_edf(file)
    content = file.read_bytes()
    file.write_bytes(content[:168] + date.ljust(8) + content[176:])
    np.testing.assert_array_equal(read_edf(file).samples, plain.samples)


@pytest.mark.parametrize(("extra", "message"), [(200, "the file holds 11:"), (1, "the file holds 10 and 1 bytes")])
def test_a_record_or_a_byte_too_many_is_refused_with_the_way_out(tmp_path: Path, extra: int, message: str) -> None:
    file = write_edf(tmp_path / "a.edf")
    file.write_bytes(file.read_bytes() + b"\n" * extra)
    with pytest.raises(DataError, match=f"its header says 10 data records of 200 bytes, {message}.*or write -1 for the number"):
        read_edf(file)


@pytest.mark.parametrize(
    ("patient", "recorded", "expected"),
    [
        (b"MCH-0234567 F 02-MAY-1951 Haagse_Harry", b"Startdate 02-MAR-2002 EMG561 BK/JOP Sony. MNC", {"sex": "F", "age": 50.0}),
        (b"0 M 02-MAR-1951 X", b"Startdate 02-MAR-2002 X X X", {"sex": "M", "age": 51.0}),
        (b"X X 02-MAR-1951 X", b"", {}),
        (b"X F 31-FEB-1951 X", b"Startdate 02-MAR-2002 X X X", {"sex": "F"}),
        (b"X F 02-MAR-2003 X", b"Startdate 02-MAR-2002 X X X", {"sex": "F"}),  # born after it
        (b"Harry, Haagse", b"Startdate 02-MAR-2002 X X X", {}),
    ],
)
def test_sex_and_age_are_read_and_no_name(tmp_path: Path, patient: bytes, recorded: bytes, expected: dict[str, object]) -> None:
    one = read_edf(write_edf(tmp_path / "a.edf", patient=patient, recorded=recorded))
    assert dict(one.about) == expected and one.subject == "a"

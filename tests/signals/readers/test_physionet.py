"""Records written here byte by byte, and all their possible faults."""

from __future__ import annotations

import builtins
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phoropter.core.errors import DataError, MissingExtraError
from phoropter.signals.readers.edf import read_edf
from phoropter.signals.readers.physionet import (
    parse_ctu_outcome,
    read_ctu,
    read_eegmat,
    read_mitdb,
    read_wfdb,
)
from phoropter.signals.recording import GAPS_NOTE, Recording, Span, read_folder

OUTCOME = """
#----- Additional parameters for record 1001

#-- Outcome measures
#pH           7.14
#BDecf        NaN
#BE           -1.0
#Apgar1       6

#-- !NotReadyYet! Neonatology outcome measures !NotReadyYet!
#NICU days    0

#-- Delivery descriptors
#Gest. weeks  37
#Weight(g)    2660
#CK/KP        0
#II.stage     -1
#Sig2Birth    0"""


def write_wfdb(folder: Path, name: str, digital: np.ndarray, signals: list[str], rate: int = 4, comments: str = "") -> Path:
    """Format 16: one line a signal (gain 100, baseline 0), samples interleaved."""
    digital = digital.astype("<i2")
    sums = digital.astype(int).sum(axis=0) % 65536
    sums = np.where(sums > 32767, sums - 65536, sums)  # signed, as WFDB writes them
    lines = [f"{name} {len(signals)} {rate} {len(digital)}"]
    for i, signal in enumerate(signals):
        lines.append(f"{name}.dat 16 100(0)/{'bpm' if signal == 'FHR' else 'mV'} 12 0 {digital[0, i]} {sums[i]} 0 {signal}")
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n" + comments)
    (folder / f"{name}.dat").write_bytes(digital.tobytes())
    return folder / f"{name}.hea"


def ctg(n: int = 100) -> np.ndarray:
    rng = np.random.default_rng(n)
    return np.stack([rng.integers(13000, 16000, n), rng.integers(0, 3000, n)], axis=1)


def annotation(code: int, gap: int, note: bytes = b"") -> bytes:
    """One MIT annotation: code and samples since the last one; longer gaps and notes have words of their own."""
    words = struct.pack("<HHH", 59 << 10, gap >> 16, gap & 0xFFFF) + struct.pack("<H", code << 10)
    if note:
        words += struct.pack("<H", 63 << 10 | len(note)) + note + b"\0" * (len(note) % 2)
    return words


def write_mitdb(folder: Path, name: str = "100", atr: bytes | None = None) -> Path:
    digital = np.random.default_rng(0).integers(-500, 500, (3000, 2))
    path = write_wfdb(folder, name, digital, ["MLII", "V5"], 360)
    beats = [(28, 5, b"(N\0"), (1, 195, b""), (5, 300, b""), (14, 10, b""), (28, 490, b"(AFIB"), (8, 100, b"")]
    (folder / f"{name}.atr").write_bytes(atr if atr is not None else b"".join(annotation(*a) for a in beats) + b"\0\0")
    return path


def write_edf(path: Path, signals: dict[str, np.ndarray], rates: list[int] | None = None) -> Path:
    """Plain EDF, records of one second, digital = physical × 1000 over -32.768..32.767 mV."""
    rates = rates or [500] * len(signals)
    seconds = len(next(iter(signals.values()))) // rates[0]
    n = len(signals)

    def field(text: object, width: int) -> bytes:
        return str(text).ljust(width).encode()

    header = field("0", 8) + field("X X X X", 80) + field("Startdate X X X X", 80) + b"01.01.1100.00.00"
    header += field(256 * (n + 1), 8) + field("", 44) + field(seconds, 8) + field(1, 8) + field(n, 4)
    columns: list[tuple[int, list[object]]] = [
        (16, list(signals)),
        (80, [""] * n),
        (8, ["mV"] * n),
        (8, [-32.768] * n),
        (8, [32.767] * n),
        (8, [-32768] * n),
        (8, [32767] * n),
        (80, [""] * n),
        (8, list(rates)),
        (32, [""] * n),
    ]
    for width, values in columns:
        header += b"".join(field(value, width) for value in values)
    body = b""
    for second in range(seconds):
        for signal, rate in zip(signals.values(), rates, strict=True):
            body += np.rint(signal[second * rate : (second + 1) * rate] * 1000).astype("<i2").tobytes()
    path.write_bytes(header + body)
    return path


# --- reading ----------------------------------------------------------------------------------------------------------


def test_samples_are_digital_over_gain_and_the_lowest_number_is_missing(tmp_path: Path) -> None:
    digital = ctg()
    digital[7, 0] = -32768
    recording = read_wfdb(write_wfdb(tmp_path, "1001", digital, ["FHR", "UC"]))
    expected = np.where(digital == -32768, np.nan, digital / 100).T.astype(np.float32)
    assert recording.samples.dtype == np.float32
    np.testing.assert_array_equal(recording.samples, expected)
    assert (recording.channels, recording.units, recording.rate_hz) == (("FHR", "UC"), ("bpm", "mV"), 4.0)


@pytest.mark.parametrize("ending", ["", ".hea", ".dat"])
def test_a_record_is_named_with_or_without_its_ending(tmp_path: Path, ending: str) -> None:
    path = write_wfdb(tmp_path, "1001", ctg(), ["FHR", "UC"])
    assert read_wfdb(path.with_suffix(ending)).id == "1001"


def test_channels_are_selected_in_the_given_order(tmp_path: Path) -> None:
    recording = read_wfdb(write_wfdb(tmp_path, "1001", ctg(), ["FHR", "UC"]), ("UC",))
    assert recording.channels == ("UC",)
    assert recording.samples[0, 0] == np.float32(ctg()[0, 1] / 100)


def test_a_cardiotocogram_has_its_outcome(tmp_path: Path) -> None:
    recording = read_ctu(write_wfdb(tmp_path, "1001", ctg(), ["FHR", "UC"], comments=OUTCOME))
    assert recording.outcome["pH"] == 7.14
    assert (recording.subject, recording.site) == ("1001", "UHB Brno")


def test_outcome_lines_of_the_header() -> None:
    assert parse_ctu_outcome(OUTCOME) == {
        "pH": 7.14,
        "BDecf": None,
        "BE": -1.0,
        "Apgar1": 6.0,
        "Gest. weeks": 37.0,
        "Weight(g)": 2660.0,
        "CK/KP": 0.0,
        "II.stage": None,
        "Sig2Birth": 0.0,
    }


def test_beats_are_events_and_rhythms_are_spans(tmp_path: Path) -> None:
    recording = read_mitdb(write_mitdb(tmp_path))
    assert recording.events is not None
    assert recording.events.samples.tolist() == [200, 500, 1100]
    assert recording.events.labels.tolist() == ["N", "V", "A"]
    assert recording.spans == (Span(5, 1000, "N"), Span(1000, 3000, "AFIB"))


def test_records_201_and_202_are_one_patient(tmp_path: Path) -> None:
    assert read_mitdb(write_mitdb(tmp_path, "202")).subject == "201"


def test_an_edf_file_reads(tmp_path: Path) -> None:
    ecg = np.round(np.random.default_rng(0).normal(size=1500), 3)
    recording = read_edf(write_edf(tmp_path / "a.edf", {"EEG Fp1": ecg * 2, "ECG ECG": ecg}), ("ECG ECG",))
    assert (recording.rate_hz, recording.units, recording.channels) == (500.0, ("mV",), ("ECG ECG",))
    np.testing.assert_allclose(recording.samples[0], ecg, atol=1e-6)


@pytest.mark.parametrize(("name", "label"), [("Subject07_1.edf", "rest"), ("Subject07_2.edf", "task")])
def test_subject_and_condition_come_from_the_name(tmp_path: Path, name: str, label: str) -> None:
    recording = read_eegmat(write_edf(tmp_path / name, {"ECG ECG": np.arange(500) / 1000}))
    assert (recording.subject, recording.label, recording.channels) == ("Subject07", label, ("ECG",))


def test_a_folder_is_read_by_name(tmp_path: Path) -> None:
    for name in ("1002", "1001"):
        write_wfdb(tmp_path, name, ctg(), ["FHR", "UC"])
    assert [r.id for r in read_folder(tmp_path, pattern="*.hea", read_file=read_ctu).recordings] == ["1001", "1002"]


@pytest.mark.parametrize("said", ["", " 0"])
def test_a_length_that_is_left_out_is_taken_from_the_file(tmp_path: Path, said: str) -> None:
    path = write_wfdb(tmp_path, "1001", ctg(), ["FHR", "UC"])
    expected = read_wfdb(path).samples
    path.write_text(path.read_text().replace("1001 2 4 100", f"1001 2 4{said}"))
    np.testing.assert_array_equal(read_wfdb(path).samples, expected)


def test_a_shift_beyond_the_record_is_refused_before_room_is_made_for_it(tmp_path: Path) -> None:
    path = write_wfdb(tmp_path, "1001", ctg(), ["FHR", "UC"])
    path.write_text(path.read_text().replace("1001.dat 16 ", "1001.dat 16:90000000000 "))
    with pytest.raises(DataError, match="it shifts a signal by more samples than there are"):
        read_wfdb(path)


def test_a_length_that_cannot_be_counted_is_asked_for(tmp_path: Path) -> None:
    path = write_wfdb(tmp_path, "1001", ctg(), ["FHR", "UC"])
    path.with_suffix(".dat").write_bytes(path.with_suffix(".dat").read_bytes()[:-1])
    path.write_text(path.read_text().replace("1001 2 4 100", "1001 2 4"))
    with pytest.raises(DataError, match="which are 396 bytes, came 399"):
        read_wfdb(path)
    path.write_text(path.read_text().replace("1001.dat 16", "1001.dat 508"))
    with pytest.raises(DataError, match="it has no length, and that of signals in format 508 cannot be counted"):
        read_wfdb(path)


def write_segments(folder: Path, master: str, first: str = "FHR UC", second: str = "FHR UC") -> Path:
    for name, signals, n in (("s1", first, 100), ("s2", second, 60)):
        write_wfdb(folder, name, ctg(n)[:, : len(signals.split())], signals.split())
    (folder / "m.hea").write_text(master)
    return folder / "m.hea"


def test_segments_are_read_one_after_the_other(tmp_path: Path) -> None:
    path = write_segments(tmp_path, "m/3 2 4 200\ns1 100\n~ 40\ns2 60\n")
    recording = read_wfdb(path)
    assert (recording.channels, recording.length, recording.rate_hz) == (("FHR", "UC"), 200, 4.0)
    np.testing.assert_allclose(recording.samples[:, :100], ctg(100).T / 100, rtol=1e-6)
    assert np.isnan(recording.samples[:, 100:140]).all()
    np.testing.assert_allclose(recording.samples[:, 140:], ctg(60).T / 100, rtol=1e-6)
    assert recording.notes == (GAPS_NOTE,)


def test_a_channel_that_a_segment_lacks_is_missing_there(tmp_path: Path) -> None:
    path = write_segments(tmp_path, "m/3 2 4 160\nlayout 0\ns1 100\ns2 60\n", second="UC")
    (tmp_path / "layout.hea").write_text("layout 2 4 0\n~ 0 100(0)/bpm 12 0 0 0 0 FHR\n~ 0 100(0)/mV 12 0 0 0 0 UC\n")
    recording = read_wfdb(path, ("UC", "FHR"))
    assert recording.channels == ("UC", "FHR")
    assert np.isnan(recording.channel("FHR")[100:]).all()
    np.testing.assert_allclose(recording.channel("UC")[100:], ctg(60)[:, 0] / 100, rtol=1e-6)


@pytest.mark.parametrize(
    ("master", "message"),
    [
        ("m/2 2 4 170\ns1 100\ns2 60\n", "it says 170 samples, and its segments have 160"),
        ("m/2 2 4 150\ns1 100\ns2 50\n", r"s2\.hea: it has 60 samples, and m\.hea says 50"),
        ("m/2 2 8 160\ns1 100\ns2 60\n", r"s1\.hea: expected one segment of 8 Hz"),
        ("m/2 2 4 160\ns1 100\nm 60\n", "'m' is no name of a segment beside it"),
        ("m/2 2 4 160\ns1 100\ns3 60\n", r"s3\.hea: this file is missing"),
    ],
)
def test_segments_that_contradict_their_master_header_are_refused(tmp_path: Path, master: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_wfdb(write_segments(tmp_path, master))


def test_a_name_of_two_signals_is_refused_where_it_is_wanted(tmp_path: Path) -> None:
    path = write_wfdb(tmp_path, "1001", np.concatenate([ctg(), ctg()[:, :1]], axis=1), ["FHR", "UC", "FHR"])
    with pytest.raises(DataError, match="2 channels are called 'FHR', so which one is meant is unknown"):
        read_wfdb(path)
    assert read_wfdb(path, ("UC",)).channels == ("UC",)


@pytest.mark.parametrize("line", ["#pH           7.18", "# pH 7.18", "#  pH\t7.18  ", "# pH: 7.18", "#pH = 7,18"])
def test_an_outcome_is_read_in_any_spacing(line: str) -> None:
    assert parse_ctu_outcome(f"{line}\n# Gest.  weeks  37\n")["Gest. weeks"] == 37
    assert parse_ctu_outcome(line)["pH"] == 7.18


def test_a_header_that_wfdb_has_written_again_has_the_same_outcome() -> None:
    again = "\n".join(f"# {line.lstrip('#').strip()}" for line in OUTCOME.splitlines() if line.strip())
    assert parse_ctu_outcome(again) == parse_ctu_outcome(OUTCOME)


# --- what can be wrong ------------------------------------------------------------------------------------------------


def shorten(path: Path) -> None:
    path.with_suffix(".dat").write_bytes(path.with_suffix(".dat").read_bytes()[:-50])


def lengthen(path: Path) -> None:
    path.with_suffix(".dat").write_bytes(path.with_suffix(".dat").read_bytes() + b"\0\0\0\0")


def spoil(path: Path) -> None:
    data = bytearray(path.with_suffix(".dat").read_bytes())
    data[20] ^= 1
    path.with_suffix(".dat").write_bytes(bytes(data))


def swap(path: Path) -> None:
    write_wfdb(path.parent, "other", ctg()[::-1] + 1, ["FHR", "UC"])
    path.with_suffix(".dat").write_bytes((path.parent / "other.dat").read_bytes())


def remove(path: Path) -> None:
    path.with_suffix(".dat").unlink()


def edit(old: str, new: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(path.read_text().replace(old, new)) and None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shorten, "are 400 bytes, came 350"),
        (lengthen, "are 400 bytes, came 404"),
        (spoil, "the checksum of signal FHR is"),
        (swap, "the checksum of signal FHR is"),
        (remove, r"1001\.dat: this signal file, named by the header beside it, is missing"),
        (edit("1001 2 4 100", "1001 2 4 90"), "are 360 bytes, came 400"),
        (edit("1001 2 4", "1001 2 250"), "expected 4 Hz, came 250 Hz"),
        (edit("0 UC", "0 TOCO"), "channel 'UC' is missing, there are FHR or TOCO"),
        (edit("1001.dat", "../1001.dat"), "cannot be read"),
        (edit("1001 2 4 100", "1001 two 4 100"), "cannot be read"),
        (edit("1001.dat 16 ", "1001.dat 19 "), "the format 19 of"),
        (edit("1001 2 4 100", "1001 0 4 100"), "it says 0 signals and describes 2"),
        (edit("1001 2 4 100", ""), "cannot be read"),
    ],
)
def test_a_damaged_record_is_refused_in_one_line(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    path = write_wfdb(tmp_path, "1001", ctg(), ["FHR", "UC"])
    damage(path)
    with pytest.raises(DataError, match=message) as caught:
        read_ctu(path)
    assert "\n" not in str(caught.value)


def test_a_record_without_a_finite_sample_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no channel has a finite sample"):
        read_ctu(write_wfdb(tmp_path, "1001", np.full((10, 2), -32768), ["FHR", "UC"]))


def test_bad_records_are_listed_and_skipped(tmp_path: Path) -> None:
    for name in ("1001", "1002", "1003"):
        write_wfdb(tmp_path, name, ctg(), ["FHR", "UC"])
    shorten(tmp_path / "1002.hea")
    loaded = read_folder(tmp_path, "skip", pattern="*.hea", read_file=read_ctu)
    assert [r.id for r in loaded.recordings] == ["1001", "1003"]
    assert len(loaded.problems) == 1
    with pytest.raises(DataError, match=r"1002\.dat"):
        read_folder(tmp_path, pattern="*.hea", read_file=read_ctu)


def test_a_missing_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1001\.hea: this file is missing"):
        read_wfdb(tmp_path / "1001")


def test_an_unknown_annotation_code_is_refused(tmp_path: Path) -> None:
    path = write_mitdb(tmp_path, atr=annotation(1, 100) + annotation(45, 10) + b"\0\0")
    with pytest.raises(DataError, match=r"100\.atr: unknown label code 45; the beats are"):
        read_mitdb(path)


def test_annotations_without_rhythm_give_no_spans(tmp_path: Path) -> None:
    recording = read_mitdb(write_mitdb(tmp_path, atr=annotation(1, 100) + b"\0\0"))
    assert recording.spans == ()
    assert recording.events is not None
    assert recording.events.samples.tolist() == [100]


def test_annotations_of_another_record_are_refused(tmp_path: Path) -> None:
    path = write_mitdb(tmp_path, atr=annotation(1, 100) + annotation(1, 5000) + b"\0\0")
    with pytest.raises(DataError, match="annotation at sample 5100 leaves the 3000 samples"):
        read_mitdb(path)


def test_missing_annotations_are_named(tmp_path: Path) -> None:
    path = write_mitdb(tmp_path)
    path.with_suffix(".atr").unlink()
    with pytest.raises(DataError, match=r"100\.atr: this file is missing"):
        read_mitdb(path)


@pytest.mark.parametrize(
    ("read", "name", "signals", "rates", "message"),
    [
        (read_eegmat, "Subject01_3.edf", ["ECG ECG"], [500], r"expected a name like Subject07_1\.edf"),
        (read_eegmat, "Subject01_1.edf", ["EEG Fp1"], [500], "channel 'ECG ECG' is missing, there are EEG Fp1"),
        (read_eegmat, "Subject01_1.edf", ["ECG ECG"], [250], "expected 500 Hz, came 250 Hz"),
        (read_edf, "a.edf", ["ECG", "Resp"], [500, 100], "expected channels of one rate, came 100 Hz or 500 Hz"),
    ],
)
def test_an_edf_file_of_another_kind_is_refused(
    tmp_path: Path, read: Callable[[Path], Recording], name: str, signals: list[str], rates: list[int], message: str
) -> None:
    path = write_edf(tmp_path / name, {s: np.zeros(2 * r) + 0.1 for s, r in zip(signals, rates, strict=True)}, rates)
    with pytest.raises(DataError, match=message):
        read(path)


@pytest.mark.parametrize("keep", [0, 100, 600, 1000])
def test_a_truncated_edf_file_is_refused_in_one_line(tmp_path: Path, keep: int) -> None:
    path = write_edf(tmp_path / "Subject01_1.edf", {"ECG ECG": np.zeros(1500)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"Subject01_1\.edf: it cannot be read") as caught:
        read_eegmat(path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \*\.hea in this folder"):
        read_folder(tmp_path, pattern="*.hea", read_file=read_ctu)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **more: Any) -> Any:
        if name == "wfdb":
            raise ImportError(name)
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'phoropter\[signals\]'"):
        read_wfdb(tmp_path / "1001.hea")


@pytest.mark.parametrize("line", ["#pH 7.1.4", "#pH           7,1,4", "#Apgar1 6..0"])
def test_an_outcome_that_is_no_number_is_named(tmp_path: Path, line: str) -> None:  # T11
    path = write_wfdb(tmp_path, "1001", ctg(), ["FHR", "UC"], comments=line + "\n")
    with pytest.raises(DataError, match=r"1001\.hea: the outcome .* is no number"):
        read_ctu(path)


def test_an_outcome_with_two_values_is_refused(tmp_path: Path) -> None:
    path = write_wfdb(tmp_path, "1001", ctg(), ["FHR", "UC"], comments="#pH 7.28\n#Apgar1 6\n#pH   7.28\n")
    assert read_ctu(path).outcome == {"pH": 7.28, "Apgar1": 6.0}
    path = write_wfdb(tmp_path, "1002", ctg(), ["FHR", "UC"], comments="#pH 7.28\n#pH 6.9\n")
    with pytest.raises(DataError, match=r"1002\.hea: the outcome 'pH' is given twice, as 7\.28 and as 6\.9: keep one"):
        read_ctu(path)

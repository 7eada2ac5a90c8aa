"""Real recordings: 502 cardiotocograms, 56 ECGs at rest and in mental arithmetic, eight arrhythmia records."""

from __future__ import annotations

import math
import re
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.data.metadata.encoded_columns import read_metadata
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.data.subgroups import read_stated_subgroups
from phoropter.signals.clean import BLOCK, GAP, JUMP, RANGE
from phoropter.signals.ctg import CtgRules, ctg_clean, ctg_window_starts, ctg_windows, extract_ctg_windows
from phoropter.signals.ecg import ecg_qrs_band, ecg_quality, ecg_r_peaks
from phoropter.signals.outcomes import outcome_class
from phoropter.signals.readers.physionet import read_ctu, read_eegmat, read_mitdb
from phoropter.signals.recording import LoadedRecordings, read_folder
from phoropter.signals.render import CtgPlot, Spectrogram, render_windows
from phoropter.signals.windows import WindowRule, event_windows, extract_windows, sliding_windows

pytestmark = pytest.mark.real


def unpacked(real_data: Path, to: Path, name: str) -> Path:
    with tarfile.open(real_data / f"{name}.tar.gz") as archive:
        archive.extractall(to, filter="data")
    return to / name


@pytest.fixture(scope="module")
def ctu_folder(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(real_data, tmp_path_factory.mktemp("ctu"), "ctu-uhb-ctgdb")


@pytest.fixture(scope="module")
def births(ctu_folder: Path) -> LoadedRecordings:
    return read_folder(ctu_folder, pattern="*.hea", read_file=read_ctu)


@pytest.fixture(scope="module")
def arithmetic(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedRecordings:
    folder = unpacked(real_data, tmp_path_factory.mktemp("eegmat"), "eegmat-ecg")
    return read_folder(folder, pattern="*.edf", read_file=read_eegmat)


@pytest.fixture(scope="module")
def arrhythmia(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedRecordings:
    folder = unpacked(real_data, tmp_path_factory.mktemp("mitdb"), "mitdb")
    return read_folder(folder, pattern="*.hea", read_file=read_mitdb)


# --- cardiotocograms --------------------------------------------------------------------------------------------------


def test_all_births_are_read(ctu_folder: Path, births: LoadedRecordings) -> None:
    listed = (ctu_folder / "RECORDS").read_text().split()
    assert [r.id for r in births.recordings] == sorted(listed)
    assert len(listed) == 502
    assert not births.problems


def test_samples_equal_the_raw_file_and_its_checksums(ctu_folder: Path, births: LoadedRecordings) -> None:
    for recording in births.recordings:
        raw = np.fromfile(ctu_folder / f"{recording.id}.dat", "<i2").reshape(-1, 2)
        lines = (ctu_folder / f"{recording.id}.hea").read_text().splitlines()[1:3]
        sums = raw.astype(np.int64).sum(axis=0) % 65536
        assert sums.tolist() == [int(line.split()[6]) % 65536 for line in lines]
        np.testing.assert_array_equal(recording.samples, np.where(raw == -32768, np.nan, raw / 100).T.astype(np.float32))


def test_metadata_of_births_are_those_of_their_headers(ctu_folder: Path) -> None:
    """Numbers as grep finds them; what is known after the birth is refused, and the flow counts every record once."""
    data = DataSpec.model_validate({"ctu": ctu_folder, "outcome": "pH<=7.15", "on_bad_input": "skip"})
    dataset = open_dataset(data)
    columns = {"age": r"#Age +(\S+)", "Gest. weeks": r"#Gest\. weeks +(\S+)", "Parity": r"#Parity +(\S+)"}
    found = read_metadata(data, None, dataset, list(columns))
    assert found.names == ("Age", "Gest. weeks", "Parity") and dataset.recordings is not None
    for row, name in enumerate(dataset.recordings.tolist()):
        header = (ctu_folder / f"{name}.hea").read_text(encoding="latin-1")
        cells = [float(match[1]) if (match := re.search(pattern, header)) else -1 for pattern in columns.values()]
        expected = [np.nan if math.isnan(cell) or cell == -1 else cell for cell in cells]
        np.testing.assert_array_equal(found.values[row], np.array(expected, np.float32))
    for column, why in (
        ("pH", r"makes the classes \(pH<=7.15\)"),
        ("Apgar5", "is an outcome"),
        ("BDecf", "is an outcome"),
        ("Weight(g)", "is an outcome"),
        ("Deliv. type", "is an outcome, known with what the study predicts or after it"),
    ):
        with pytest.raises(DataError, match=rf"'{re.escape(column)}' of ctu-uhb-ctgdb {why}"):
            read_metadata(data, None, dataset, ["Age", column])
    with pytest.raises(DataError, match=r"no column 'gest weeks'; did you mean 'Gest. weeks'\?; choose Gest. weeks, Sex, Age"):
        read_metadata(data, None, dataset, ["gest weeks"])


def test_every_birth_is_kept_or_left_out_once(ctu_folder: Path, births: LoadedRecordings) -> None:
    dataset = open_dataset(DataSpec.model_validate({"ctu": ctu_folder, "outcome": "pH<=7.15", "on_bad_input": "skip"}))
    recordings, windows = dataset.exclusions
    known = [r for r in births.recordings if isinstance(r.outcome["pH"], float)]
    cut = [len(ctg_window_starts(ctg_clean(r), CtgRules().window)[0]) for r in known]
    assert recordings.found == 502 and recordings.kept == np.count_nonzero(cut) == recordings.groups
    left_out = dict(recordings.left_out)
    assert left_out.get("of unknown class", 0) == 502 - len(known)
    assert sum(left_out.values()) == 502 - np.count_nonzero(cut)
    assert windows.kept == windows.found == len(dataset) == sum(cut)


def test_record_1001_is_as_specified(ctu_folder: Path, births: LoadedRecordings) -> None:
    first = births.recordings[0]
    assert (ctu_folder / "1001.dat").read_bytes()[:4] == bytes.fromhex("CA3ABC02")
    assert (first.id, first.length, first.rate_hz) == ("1001", 19_200, 4.0)
    assert first.samples[:, 0].tolist() == [150.5, 7.0]
    assert {key: first.outcome[key] for key in ("pH", "BDecf", "Apgar1", "Apgar5")} == {
        "pH": 7.14,
        "BDecf": 8.14,
        "Apgar1": 6.0,
        "Apgar5": 8.0,
    }


@pytest.mark.parametrize(("rule", "count"), [("pH<=7.05", 40), ("pH<7.15", 95), ("pH<7.20", 161)])
def test_label_counts_equal_the_readme(births: LoadedRecordings, rule: str, count: int) -> None:
    assert sum(outcome_class(r.outcome, rule, r.id) == "high-risk" for r in births.recordings) == count


def test_causes_are_as_frequent_as_specified(births: LoadedRecordings) -> None:
    """Shares over all 552 records: gap 14.3 %, range 4.6 %, jump 0.03 %, block 1.2 %."""
    shares = [np.bincount(c, minlength=6) / len(c) for c in (ctg_clean(r).causes for r in births.recordings)]
    mean = np.mean(shares, axis=0)
    assert mean[GAP] == pytest.approx(0.143, abs=0.005)
    assert mean[RANGE] == pytest.approx(0.046, abs=0.003)
    assert mean[JUMP] == pytest.approx(0.0003, abs=0.0001)
    assert mean[BLOCK] == pytest.approx(0.012, abs=0.001)


def test_as_many_births_are_kept_as_specified(births: LoadedRecordings) -> None:
    """518 of all 552 records have at least half of their last valid half hour; these 502 have the same share."""
    table = ctg_windows(births.recordings, ["birth"] * 502)
    assert len(table) / 502 == pytest.approx(518 / 552, abs=0.005)
    assert table.dropped == {"missing": 502 - len(table)}


def test_every_kept_birth_is_rendered(births: LoadedRecordings) -> None:
    rules = CtgRules()
    windows_ = [
        extract_ctg_windows(clean, ctg_window_starts(clean, rules.window)[0], rules)
        for clean in map(ctg_clean, births.recordings[:60])
    ]
    stacked = np.concatenate(windows_)
    assert np.isfinite(stacked).all()
    pictures = render_windows(stacked, 4.0, CtgPlot())
    assert (pictures.reshape(len(stacked), -1, 3).min(axis=1) == 0).all()  # ink in every channel
    assert (pictures[:, :, :, 2] < 255).sum(axis=1).min() >= 2  # the baseline crosses every column


# --- rest and arithmetic ----------------------------------------------------------------------------------------------


def test_twenty_eight_people_have_both_conditions(arithmetic: LoadedRecordings) -> None:
    assert len(arithmetic.recordings) == 56
    assert Counter(r.subject for r in arithmetic.recordings) == dict.fromkeys({r.subject for r in arithmetic.recordings}, 2)
    assert Counter(r.label for r in arithmetic.recordings) == {"rest": 28, "task": 28}


def test_exactly_the_four_recordings_without_a_heartbeat_are_found(arithmetic: LoadedRecordings) -> None:
    flat = {r.id for r in arithmetic.recordings if not ecg_quality(r.channel("ECG"), r.rate_hz).has_heartbeat}
    assert flat == {"Subject02_1", "Subject13_1", "Subject20_2", "Subject35_2"}


def test_the_heart_is_faster_in_arithmetic(arithmetic: LoadedRecordings) -> None:
    """As the README of the data states for every person with two usable recordings."""
    found = {r.id: ecg_quality(r.channel("ECG"), r.rate_hz) for r in arithmetic.recordings}
    usable = [s for s in {r.subject for r in arithmetic.recordings} if all(found[f"{s}_{i}"].has_heartbeat for i in (1, 2))]
    assert len(usable) == 24
    assert all(found[f"{s}_2"].rate_bpm > found[f"{s}_1"].rate_bpm for s in usable)


def test_windows_of_the_ecg_are_rendered(arithmetic: LoadedRecordings) -> None:
    table = sliding_windows(arithmetic.recordings[:4], WindowRule(length_s=5, step_s=5))
    pieces = extract_windows(arithmetic.recordings, table, np.arange(len(table)), ("ECG",))[:, 0]
    for picture in (Spectrogram(style="paper"), Spectrogram(style="dense")):
        pictures = render_windows(pieces, 500.0, picture)
        assert (pictures.reshape(len(table), -1).std(axis=1) > 10).all()


# --- arrhythmia -------------------------------------------------------------------------------------------------------


def test_beat_counts_equal_the_readme(arrhythmia: LoadedRecordings) -> None:
    counts: Counter[str] = Counter()
    for recording in arrhythmia.recordings:
        assert recording.events is not None
        counts.update(recording.events.labels.tolist())
    expected = {"N": 9180, "R": 2563, "V": 2154, "A": 1547, "/": 1542, "F": 374}
    assert {symbol: counts[symbol] for symbol in expected} == expected
    assert len({r.subject for r in arrhythmia.recordings}) == 8


def test_detected_beats_are_the_labelled_ones(arrhythmia: LoadedRecordings) -> None:
    """Within 150 ms, the tolerance of the standard for such detectors (EC57)."""
    for recording in arrhythmia.recordings:
        assert recording.events is not None
        found, true = ecg_r_peaks(ecg_qrs_band(recording.channel("MLII"), 360.0), 360.0), recording.events.samples
        nearest = np.abs(found[np.clip(np.searchsorted(found, true)[:, None] + [-1, 0], 0, len(found) - 1)] - true[:, None]).min(
            axis=1
        )
        assert (nearest <= 54).mean() > 0.98
        assert len(found) / len(true) == pytest.approx(1, abs=0.02)


def test_a_window_is_cut_around_every_beat_but_those_at_the_edges(arrhythmia: LoadedRecordings) -> None:
    table = event_windows(arrhythmia.recordings, 0.8, {"N": "normal", "V": "ventricular"}, ("MLII",))
    assert len(table) + table.dropped.get("edge", 0) == 9180 + 2154
    beats = extract_windows(arrhythmia.recordings, table, np.flatnonzero(table.label == "normal")[:500], ("MLII",))
    assert np.abs(np.abs(beats[:, 0] - np.median(beats[:, 0], axis=1, keepdims=True)).argmax(axis=1) - 144).mean() < 20


def test_what_is_known_of_people_is_what_the_databases_say(real_data: Path, tmp_path: Path) -> None:
    import csv

    folder = unpacked(real_data, tmp_path, "eegmat-ecg")
    with (folder / "subject-info.csv").open(newline="") as opened:
        expected = {row["Subject"]: {"age": float(row["Age"]), "sex": row["Gender"]} for row in csv.DictReader(opened)}
    found = [read_eegmat(file) for file in sorted(folder.glob("*.edf"))]
    assert len(found) == 56 and all(dict(one.about) == expected[one.subject] for one in found)
    (folder / "subject-info.csv").unlink()
    assert dict(read_eegmat(folder / "Subject00_1.edf").about) == {}
    ages = {
        one.id: one.about["age"] for file in ("100", "232") if (one := read_mitdb(unpacked(real_data, tmp_path, "mitdb") / file))
    }
    assert ages == {"100": 69.0, "232": 76.0}


def test_subgroups_of_births_are_those_of_their_headers(real_data: Path) -> None:
    folder = real_data / "ctu-uhb-mini"
    data = DataSpec(ctu=folder, outcome="pH<=7.05", on_bad_input="skip", subgroups=("Sex", {"gest. weeks": (40.0,)}))
    dataset = open_dataset(data)
    found = read_stated_subgroups(data, None, dataset)
    assert dataset.recordings is not None
    for row in range(len(dataset)):
        header = (folder / f"{dataset.recordings[row]}.hea").read_text()
        weeks = int(next(line.split()[-1] for line in header.splitlines() if line.startswith("#Gest. weeks")))
        sex = next(line.split()[-1] for line in header.splitlines() if line.startswith("#Sex"))
        assert found["gest. weeks"][row] == ("40 and over" if weeks >= 40 else "under 40")
        assert found["Sex"][row] == sex

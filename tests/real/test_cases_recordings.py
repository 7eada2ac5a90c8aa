"""Small recordings as people have them, with the right value for each: EDF, WFDB, CTU-UHB and tables of samples."""

from __future__ import annotations

import numpy as np
import pytest
from shared_cases import CASES, MARKS

from phoropter.core.errors import DataError
from phoropter.data.dataset import Dataset
from phoropter.data.inspect import detect_data_spec
from phoropter.data.recordings.dataset import RenderedPictures
from phoropter.data.spec import open_dataset
from phoropter.signals.readers.edf import read_edf
from phoropter.signals.readers.physionet import read_wfdb
from phoropter.signals.readers.signal_tables import read_signal_table
from phoropter.signals.recording import GAPS_NOTE, Recording

pytestmark = MARKS


def open_case(case: str) -> Dataset:
    return open_dataset(detect_data_spec(CASES / case).with_changes(on_bad_input="stop"))


def recordings_of(dataset: Dataset) -> list[Recording]:
    assert isinstance(dataset.pictures, RenderedPictures)
    return dataset.pictures.windows.recordings


@pytest.mark.parametrize(
    ("case", "rate_hz", "seconds", "windows"),
    [
        ("csv-semicolon-decimal-comma/semicolon_comma_decimal.csv", 50.0, 12.0, 16),
        ("csv-time-gap/time_gap.csv", 50.0, 72.0, 8),  # 6 s, a gap of 60 s, 6 s: one window of 5 s in each part
        ("edf-micro-sign/non_ascii_dim.csv", 100.0, 20.0, 32),
        ("edf-micro-sign/non_ascii_patient.csv", 100.0, 20.0, 32),
        ("edf-minus-one/minus_one_records.csv", 100.0, 20.0, 32),
        ("wfdb-no-length/no_length.csv", 100.0, 20.0, 32),
    ],
)
def test_an_input_is_read_as_it_was_meant(case: str, rate_hz: float, seconds: float, windows: int) -> None:
    dataset = open_case(case)
    recordings = recordings_of(dataset)
    assert [(r.channels, r.rate_hz, r.duration_s) for r in recordings] == [(("ECG",), rate_hz, seconds)] * 4
    assert len(dataset) == windows and dataset.class_counts.tolist() == [windows // 2] * 2


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("csv-no-header/noheader_const.csv", r"noheader_const_0\.csv line 1: expected the names of the channels .* came numbers"),
        ("edf-more-data-than-said/fewer_records_said.csv", "its header says 10 data records of 200 bytes, the file holds 20"),
        ("edf-duplicate-label/dup.csv", "2 channels are called 'ECG', so which one is meant is unknown"),
        ("edf-cut-noise/half_last_record.csv", "its header says 20 data records of 200 bytes, the file holds 19 and 100 bytes"),
    ],
)
def test_an_input_that_contradicts_itself_is_refused_without_a_word_of_a_library(
    case: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        open_case(case)
    assert "\n" not in str(caught.value) and "copy it again" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_decimal_commas_keep_their_values() -> None:
    recording = read_signal_table(CASES / "csv-semicolon-decimal-comma/r/semicolon_comma_decimal_0.csv", 50.0)
    np.testing.assert_array_equal(recording.samples[0, :4], np.array([0.0025, -0.0026, 0.0128, 0.0021], np.float32))


def test_no_window_straddles_a_gap() -> None:
    dataset = open_case("csv-time-gap/time_gap.csv")
    assert dataset.spans is not None
    assert not ((dataset.spans[:, 0] < 6) & (dataset.spans[:, 1] > 6)).any()
    assert any(note.startswith(GAPS_NOTE) for note in dataset.notes)


def test_the_micro_sign_is_read() -> None:
    assert read_edf(CASES / "edf-micro-sign/r/non_ascii_dim_0.edf").units == ("µV",)


def test_a_length_that_is_left_out_is_the_file_s() -> None:
    assert read_wfdb(CASES / "wfdb-no-length/r/no_length_0.hea").length == 2000


def test_headers_that_wfdb_wrote_again_have_their_outcome() -> None:
    dataset = open_case("ctu-resaved/ctu")
    assert [(r.id, r.outcome["pH"], r.outcome["Apgar5"]) for r in recordings_of(dataset)] == [
        ("1001", 7.01, 4.0),
        ("1002", 7.25, 9.0),
        ("1003", 7.01, 4.0),
        ("1004", 7.25, 9.0),
    ]


def test_a_folder_in_capitals_is_recognised() -> None:
    spec = detect_data_spec(CASES / "upper-EDF-folder/e")
    assert spec.source == "eegmat"
    with pytest.raises(DataError, match="expected 500 Hz, came 100 Hz"):  # found, and not of that database
        open_dataset(spec.with_changes(on_bad_input="stop"))
    assert read_edf(CASES / "upper-EDF-folder/e/Subject01_1.EDF").rate_hz == 100.0

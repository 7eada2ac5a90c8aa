"""Samples of windows at one rate: how many are kept, their means against a loop, and the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.data.dataset import Dataset
from phoropter.data.recordings.dataset import RenderedPictures
from phoropter.study.plan import plan_study
from phoropter.study.spec import read_study
from phoropter.training.tables.signal_windows import average_pieces, choose_sample_count, open_signal_windows
from small_recordings import CTG_STUDY, ECG_STUDY


def open_recordings_of(folder: Path, text: str) -> Dataset:
    (folder / "study.yaml").write_text(text + "candidates: [{baseline: signal-1d}]\n")
    return plan_study(read_study(folder / "study.yaml")[0]).image_sets[0].dataset


@pytest.mark.parametrize(
    ("length", "rate_hz", "count"),
    [
        (2500, 250, 1000),  # 10 s at 100 Hz
        (288, 360, 256),  # a heartbeat keeps more than 100 Hz
        (100, 360, 100),  # and never more samples than there are
        (7200, 4, 1024),  # half an hour of a cardiotocogram
        (2_000_000, 500, 1024),
        (1000, 100, 1000),
    ],
)
def test_as_many_samples_are_kept_as_the_rule_says(length: int, rate_hz: float, count: int) -> None:
    assert choose_sample_count(length, rate_hz) == count


@pytest.mark.parametrize(("length", "count"), [(12, 12), (12, 4), (10, 4), (101, 7)])
def test_a_piece_is_the_mean_of_what_was_measured_in_it(length: int, count: int) -> None:
    samples = np.random.default_rng(0).normal(size=(2, length)).astype(np.float32)
    samples[1, 2:7] = np.nan
    expected = np.full((2, count), np.nan)
    fine = np.repeat(samples, count, axis=1).reshape(2, count, length)  # every sample cut into `count` equal parts
    for channel in range(2):
        for piece in range(count):
            measured = fine[channel, piece][np.isfinite(fine[channel, piece])]
            if len(measured) * 2 >= length:
                expected[channel, piece] = measured.astype(float).mean()
    np.testing.assert_allclose(average_pieces(samples, count), expected, rtol=1e-5, atol=1e-6)


def test_windows_of_an_ecg_are_its_samples(tmp_path: Path) -> None:
    dataset = open_recordings_of(tmp_path, ECG_STUDY)
    windows = open_signal_windows(dataset, tmp_path / "cache")
    assert windows.channels == ("ECG",) and windows.samples.shape == (len(dataset), 1, 500) and windows.rate_hz == 100
    assert not windows.has_fixed_units
    pictures = dataset.pictures
    assert isinstance(pictures, RenderedPictures)
    for row in (0, len(dataset) - 1):
        np.testing.assert_array_equal(windows.samples[row, 0], pictures.source_signals(row)["ECG"])


def test_windows_of_births_have_both_channels_and_are_cut_once(tmp_path: Path) -> None:
    dataset = open_recordings_of(tmp_path, CTG_STUDY)
    told: list[tuple[int, int]] = []
    windows = open_signal_windows(dataset, tmp_path / "cache", lambda done, total: told.append((done, total)))
    assert windows.channels == ("FHR", "UC") and windows.has_fixed_units and told == [(len(dataset), len(dataset))]
    assert windows.samples.shape == (len(dataset), 2, 1024) and abs(windows.rate_hz - 1024 / 1800) < 1e-9
    pictures = dataset.pictures
    assert isinstance(pictures, RenderedPictures)
    signals = pictures.unfiltered_signals(3)
    np.testing.assert_array_equal(windows.samples[3], average_pieces(np.stack([signals["FHR"], signals["UC"]]), 1024))
    assert np.nanmean(windows.samples[:, 0]) > 80  # beats a minute, not the scale of an image
    again = open_signal_windows(dataset, tmp_path / "cache", lambda done, total: told.append((done, total)))
    assert len(told) == 1 and np.array_equal(again.samples, windows.samples, equal_nan=True)


def test_pictures_have_no_samples(few_digits: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs windows of recordings"):
        open_signal_windows(few_digits[0], tmp_path)

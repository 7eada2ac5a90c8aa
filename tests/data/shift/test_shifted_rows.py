"""Rows under a corruption: which corruptions fit a dataset, pictures row by row, and windows as if the recordings had been so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from phoropter.core.errors import DataError, SpecError
from phoropter.data.dataset import Dataset
from phoropter.data.images.cache import prepare_pixels
from phoropter.data.images.decode import SquareResize
from phoropter.data.images.pixels import Pixels
from phoropter.data.recordings.dataset import RenderedPictures, render_recordings
from phoropter.data.shift.corrupted_recordings import corrupt_recording
from phoropter.data.shift.shifted_rows import resolve_corruptions, shift_rows
from phoropter.data.shift.squares import corrupt_square
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.results.shift.corruption_kinds import KINDS, Corruption
from phoropter.results.shift.spec import ShiftSpec
from small_recordings import CTG_STUDY, ECG_STUDY

SIDE = 32


def open_study_data(text: str, cache: Path, **changes: Any) -> tuple[Dataset, Pixels]:
    data = {**yaml.safe_load(text)["data"], **changes}
    return prepare_pixels(open_dataset(DataSpec.model_validate(data), None), SIDE, cache=cache)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pixels")


@pytest.fixture(scope="module")
def people(cache: Path) -> tuple[Dataset, Pixels]:
    return open_study_data(ECG_STUDY, cache)


@pytest.fixture(scope="module")
def births(cache: Path) -> tuple[Dataset, Pixels]:
    return open_study_data(CTG_STUDY, cache)


@pytest.fixture(scope="module")
def digits(cache: Path) -> tuple[Dataset, Pixels]:
    return open_study_data("data: {digits: true, size: 32, max_samples: 40}", cache)


def test_by_default_all_that_fit_the_rows_are_tried(digits: Any, people: Any, births: Any) -> None:
    kinds = [{c.kind for c in resolve_corruptions(ShiftSpec(), dataset)} for dataset, _ in (digits, people, births)]
    assert kinds[0] == {"blur", "jpeg", "brightness", "contrast", "noise"}
    assert kinds[1] == {"noise", "dropout_s", "baseline_wander"}  # 100 samples a second cannot hold 50 Hz
    assert kinds[2] == {"noise", "dropout_s"}
    lost = [c for c in resolve_corruptions(ShiftSpec(), births[0]) if c.kind == "dropout_s"]
    assert [c.level for c in lost] == [90, 180, 360] and lost[0].every_s == 1800  # shares of the half hour


@pytest.mark.parametrize(
    ("which", "given", "words"),
    [
        ("digits", {"powerline": True}, "powerline does not fit digits, whose rows are pictures; choose from blur"),
        ("people", {"blur": 2}, "blur does not fit simulated ecg, whose rows are windows of a channel"),
        ("births", {"baseline_wander": 0.1}, "does not fit simulated ctg, whose rows are cardiotocograms"),
        ("people", {"powerline": 0.1}, "powerline of 50 Hz cannot be in simulated ecg, which has 100 samples a second"),
        ("people", {"dropout_s": 5}, "dropout_s is 5, and a window of simulated ecg has 5 s"),
        ("digits", {"powerline_hz": 60}, "powerline_hz has no effect on digits"),
    ],
)
def test_what_rows_cannot_have_is_refused(which: str, given: dict[str, Any], words: str, request: pytest.FixtureRequest) -> None:
    dataset, _ = request.getfixturevalue(which)
    with pytest.raises(SpecError, match=words):
        resolve_corruptions(ShiftSpec.model_validate(given), dataset)


def test_pictures_are_those_of_the_dataset_corrupted_one_by_one(digits: tuple[Dataset, Pixels]) -> None:
    dataset, pixels = digits
    rows, corruption = np.array([3, 7, 8, 21]), Corruption("noise", 0.1, 4)
    found = shift_rows(dataset, pixels, SquareResize(SIDE), rows, corruption)
    assert found.dataset.ids.tolist() == dataset.ids[rows].tolist() and len(found.pixels) == 4
    for place in (2, 0):
        expected = corrupt_square(pixels.batch(rows[[place]])[0], str(dataset.ids[rows[place]]), corruption)
        assert np.array_equal(found.pixels.batch(np.array([place]))[0], expected)
        assert np.array_equal(found.pixels.read_each(np.array([place]))[0], expected)
    alone = shift_rows(dataset, pixels, SquareResize(SIDE), rows[1:2], corruption)
    assert np.array_equal(alone.pixels.batch(np.array([0])), found.pixels.batch(np.array([1])))  # whatever rows are beside it
    with pytest.raises(IndexError):
        found.pixels.batch(np.array([4]))
    with pytest.raises(DataError, match="no array of all of them"):
        found.pixels.array  # noqa: B018


def test_every_corruption_has_pixels_of_its_own_identity(digits: tuple[Dataset, Pixels]) -> None:
    dataset, pixels = digits
    rows = np.arange(5)
    every = [shift_rows(dataset, pixels, SquareResize(SIDE), rows, c).pixels for c in resolve_corruptions(ShiftSpec(), dataset)]
    every.append(shift_rows(dataset, pixels, SquareResize(SIDE), rows[1:], Corruption("blur", 1.0)).pixels)
    assert len({p.identity for p in every} | {pixels.identity}) == len(every) + 1 == 5 * 3 + 2


@pytest.mark.parametrize("which", ["people", "births"])
def test_windows_are_those_of_corrupted_recordings(which: str, request: pytest.FixtureRequest) -> None:
    """Against the whole way from recordings that are corrupted before anything is cut."""
    dataset, pixels = request.getfixturevalue(which)
    assert isinstance(dataset.pictures, RenderedPictures)
    view = dataset.pictures.windows.view
    corruption = next(c for c in resolve_corruptions(ShiftSpec(), dataset) if c.kind == "noise")
    rows = np.arange(1, len(dataset), 4)
    found = shift_rows(dataset, pixels, SquareResize(SIDE), rows, corruption)
    recordings = [
        corrupt_recording(r, view.measured_channels, corruption, view.kind == "ctg") for r in dataset.pictures.windows.recordings
    ]
    whole = render_recordings(recordings, view)
    places = [whole.ids.tolist().index(name) for name in dataset.ids[rows].tolist() if name in whole.ids]
    ours = [i for i, name in enumerate(dataset.ids[rows].tolist()) if name in whole.ids]
    assert len(ours) >= len(rows) // 2  # noise moves the last valid sample of few births
    squares = np.stack([SquareResize(SIDE).resize_image(whole.read(place)) for place in places])
    assert np.array_equal(found.pixels.batch(np.array(ours)), squares)
    assert not np.array_equal(found.pixels.batch(np.array(ours)), pixels.batch(rows[ours]))


@pytest.mark.parametrize("which", ["people", "births"])
def test_level_zero_draws_the_windows_as_they_are(which: str, request: pytest.FixtureRequest) -> None:
    dataset, pixels = request.getfixturevalue(which)
    rows = np.arange(len(dataset))
    assert dataset.spans is not None
    every_s = float(np.ptp(dataset.spans[0]))
    for kind in ("noise", "dropout_s"):
        found = shift_rows(dataset, pixels, SquareResize(SIDE), rows, Corruption(kind, 0.0, 0, 0, every_s))
        assert np.array_equal(found.pixels.batch(rows), pixels.batch(rows))


def test_a_grey_scale_of_the_subject_is_that_of_its_corrupted_windows(cache: Path) -> None:
    dataset, pixels = open_study_data(ECG_STUDY, cache, grey_scale="per-subject")
    assert isinstance(dataset.pictures, RenderedPictures)
    corruption = Corruption("noise", 0.3)
    rows = np.arange(3)
    found = shift_rows(dataset, pixels, SquareResize(SIDE), rows, corruption)
    view = dataset.pictures.windows.view
    recordings = [corrupt_recording(r, view.measured_channels, corruption, False) for r in dataset.pictures.windows.recordings]
    whole = render_recordings(recordings, view)
    squares = np.stack([SquareResize(SIDE).resize_image(whole.read(int(row))) for row in rows])
    assert np.array_equal(found.pixels.batch(np.arange(3)), squares)


def test_every_kind_is_of_pictures_or_of_recordings(digits: Any, people: Any) -> None:
    kinds = {c.kind for dataset in (digits[0], people[0]) for c in resolve_corruptions(ShiftSpec(), dataset)}
    assert kinds | {"powerline"} == set(KINDS)

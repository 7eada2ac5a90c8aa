"""Windows whose samples are in random order: the same values, another course, drawn by their ids."""

from __future__ import annotations

import numpy as np
import yaml

from phoropter.core.spec import validate_as
from phoropter.data.controls.changed_rows import apply_control
from phoropter.data.controls.shuffled_windows import shuffle_samples
from phoropter.data.dataset import Dataset
from phoropter.data.recordings.dataset import RenderedPictures
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.signals.render import render_windows, repeat_to_rgb
from small_recordings import CTG_STUDY, ECG_STUDY


def open_windows(study: str, **changes: object) -> Dataset:
    """The windows of the beginning of a study file."""
    return open_dataset(validate_as(DataSpec, {**yaml.safe_load(study)["data"], **changes}))


def test_all_channels_of_a_window_are_shuffled_alike() -> None:
    samples = np.stack([np.arange(50.0), np.arange(50.0) * 2]).astype(np.float32)
    found = shuffle_samples(samples, "a")
    assert np.array_equal(found[1], 2 * found[0]) and sorted(found[0]) == sorted(samples[0])
    assert not np.array_equal(found, samples) and not np.array_equal(found, shuffle_samples(samples, "b"))
    assert np.array_equal(found, shuffle_samples(samples, "a"))


def test_a_picture_is_drawn_of_the_shuffled_samples() -> None:
    dataset = open_windows(ECG_STUDY)
    shuffled = apply_control(dataset, "time-shuffled")
    assert isinstance(dataset.pictures, RenderedPictures)
    view, row = dataset.pictures.windows.view, 3
    (samples,) = dataset.pictures.source_signals(row).values()
    own = shuffle_samples(samples, str(dataset.ids[row]))
    by_hand = repeat_to_rgb(render_windows(own[None], dataset.pictures.rate_hz, view.representation, None))[0]
    assert np.array_equal(shuffled.read(row), by_hand)
    assert not np.array_equal(shuffled.read(row), dataset.read(row))
    assert shuffled.fingerprint != dataset.fingerprint and np.array_equal(shuffled.ids, dataset.ids)


def test_rows_are_the_same_alone_in_a_batch_and_in_a_part() -> None:
    shuffled = apply_control(open_windows(ECG_STUDY), "time-shuffled")
    rows = np.array([5, 2, 0])
    batch = shuffled.pictures.images(rows)  # type: ignore[attr-defined]
    assert all(np.array_equal(batch[i], shuffled.read(int(row))) for i, row in enumerate(rows))
    part = shuffled.select_rows(rows)
    assert all(np.array_equal(part.read(i), batch[i]) for i in range(3))
    assert part.shape(0) == batch.shape[1:3]


def test_births_are_shuffled_after_they_were_cleaned() -> None:
    dataset = open_windows(CTG_STUDY)
    shuffled = apply_control(dataset, "time-shuffled")
    assert not np.array_equal(shuffled.read(0), dataset.read(0))
    assert shuffled.read(0).shape == dataset.read(0).shape
    assert np.array_equal(shuffled.read(0), apply_control(dataset, "time-shuffled").read(0))


def test_no_picture_depends_on_the_other_windows_of_a_subject() -> None:
    pooled = open_windows(ECG_STUDY, grey_scale="per-subject")
    shuffled = apply_control(pooled, "time-shuffled")
    assert pooled.pictures.pools_grey_scale  # type: ignore[attr-defined]
    assert not getattr(shuffled.pictures, "pools_grey_scale", False)
    assert np.array_equal(shuffled.read(0), apply_control(open_windows(ECG_STUDY), "time-shuffled").read(0))

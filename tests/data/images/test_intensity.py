"""Which pixel values become black and white, and that the choice is part of the pixels' identity."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from phoropter.core.errors import DataError, SpecError
from phoropter.core.spec import validate_as
from phoropter.data.images.cache import prepare_pixels
from phoropter.data.images.intensity import IntensitySpec
from phoropter.data.images.options import PictureOptions, apply_options
from phoropter.data.spec import DataSpec, open_dataset

RAMP = np.linspace(0, 1, 64).reshape(8, 8)


def folder_of(root: Path, array: NDArray[Any], suffix: str = ".tif") -> Path:
    """Two classes with the same picture."""
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        Image.fromarray(array).save(root / name / f"x{suffix}")
    return root


def decoded(root: Path, **intensity: Any) -> NDArray[np.uint8]:
    dataset = open_dataset(DataSpec.model_validate({"folder": root, **({"intensity": intensity} if intensity else {})}))
    return dataset.read(0)[:, :, 0]


@pytest.mark.parametrize(
    ("top", "kind", "suffix"),
    [
        (255, np.int32, ".tif"),
        (4095, np.uint16, ".png"),
        (4095, np.int32, ".tif"),
        (65535, np.uint16, ".png"),
        (1, np.float32, ".tif"),
    ],
)
def test_auto_scales_by_the_bits_that_are_used(tmp_path: Path, top: int, kind: Any, suffix: str) -> None:
    values = RAMP * top if kind is np.float32 else np.rint(RAMP * top)
    found = decoded(folder_of(tmp_path / "d", values.astype(kind), suffix))
    np.testing.assert_allclose(found, RAMP * 255, atol=1)
    assert found.max() == 255 and len(np.unique(found)) == 64


def test_eight_bits_stay_as_they_are(tmp_path: Path) -> None:
    dark = np.arange(64, dtype=np.uint8).reshape(8, 8)
    root = folder_of(tmp_path / "d", dark, ".png")
    np.testing.assert_array_equal(decoded(root), dark)
    np.testing.assert_array_equal(decoded(root, window="auto"), dark)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_a_window_makes_lo_black_and_hi_white(tmp_path: Path, kind: Any) -> None:
    values = np.array([[-1000, -200, 0, 300, 3000]], dtype=kind)
    root = folder_of(tmp_path / "d", values)
    with pytest.raises(DataError, match=r"intensity: \{window: \[lo, hi\]\}"):
        decoded(root)
    assert decoded(root, window=[-200, 300]).tolist() == [[0, 0, 102, 255, 255]]


def test_a_window_acts_on_eight_bits_and_colour_too(tmp_path: Path) -> None:
    colour = np.array([[[0, 50, 100], [150, 200, 255]]], dtype=np.uint8)
    root = folder_of(tmp_path / "d", colour, ".png")
    dataset = open_dataset(DataSpec.model_validate({"folder": root, "intensity": {"window": [50, 150]}}))
    assert dataset.read(0).tolist() == [[[0, 0, 128], [255, 255, 255]]]


def test_percentiles_are_of_each_picture(tmp_path: Path) -> None:
    values = np.linspace(1e5, 9e5, 10_000).astype(np.int32).reshape(100, 100)
    found = decoded(folder_of(tmp_path / "d", values), window="percentile")
    np.testing.assert_allclose(found.ravel(), np.clip((np.linspace(0, 1, 10_000) - 0.01) / 0.98, 0, 1) * 255, atol=1)
    assert not decoded(folder_of(tmp_path / "flat", np.full((4, 4), 10**6, np.int32)), window="percentile").any()


def test_the_window_is_part_of_the_identity_and_of_the_stored_pixels(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "d", (RAMP * 1000).astype(np.uint16), ".png")
    plain = open_dataset(DataSpec.model_validate({"folder": root}))
    windows = [[0, 1000], [0, 500], "percentile"]
    others = [open_dataset(DataSpec.model_validate({"folder": root, "intensity": {"window": w}})) for w in windows]
    assert len({d.content_digest for d in (plain, *others)}) == 4
    assert others[0].digests() == plain.digests() and others[0].shape(0) == (8, 8)
    copied = pickle.loads(pickle.dumps(others[0]))  # noqa: S301
    pixels = prepare_pixels(copied, 8, cache=tmp_path / "cache")[1]
    np.testing.assert_allclose(pixels.array[0, 0], RAMP * 255, atol=1)
    assert others[0].select_rows(np.array([1])).read(0).max() == 255
    assert apply_options(plain, PictureOptions()) is plain


@pytest.mark.parametrize("window", [[5, 5], [9, 1], [0, float("nan")], [1], "best", 7])
def test_windows_that_are_none_are_refused(window: Any) -> None:
    with pytest.raises(SpecError, match="window"):
        validate_as(IntensitySpec, {"window": window})


def test_recordings_have_no_intensity() -> None:
    with pytest.raises(SpecError, match="'intensity' does nothing for 'simulate'"):
        validate_as(DataSpec, {"simulate": "ecg", "intensity": {"window": [0, 1]}})

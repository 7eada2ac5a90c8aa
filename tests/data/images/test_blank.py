"""Pictures that decode to next to nothing are named in the dataset's notes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from phoropter.data.images.blank import DARK, FEW_GREYS, ONE_COLOUR, find_blankness
from phoropter.data.images.cache import prepare_pixels
from phoropter.data.images.options import PictureOptions, Window, apply_options
from phoropter.data.inspect import summarize_dataset
from phoropter.data.sources.folder import open_folder

NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("picture", "kind"),
    [
        (np.full((32, 32, 3), 255, np.uint8), ONE_COLOUR),
        (np.full((32, 32, 3), (9, 9, 200), np.uint8), ONE_COLOUR),
        (np.repeat(NOISE[:, :, :1] // 16, 3, axis=2), FEW_GREYS),
        (np.repeat(NOISE[:, :, :1] // 8, 3, axis=2), DARK),
        (np.repeat(NOISE[:, :, :1] // 3, 3, axis=2), None),
        (NOISE // 5, DARK),
        (np.vstack([NOISE // 5, np.full((1, 32, 3), (0, 0, 65), np.uint8)]), None),
        (NOISE // 128 * np.uint8(255), None),
        (np.zeros((8, 8, 3), np.uint8), None),
        (NOISE, None),
    ],
)
def test_what_counts_as_blank(picture: np.ndarray, kind: str | None) -> None:
    assert find_blankness(picture) == kind and find_blankness(Image.fromarray(picture)) == kind


def test_blank_pictures_are_noted_when_inspected_and_when_decoded(tmp_path: Path) -> None:
    for i, array in enumerate(
        (NOISE, NOISE[::-1], NOISE // 2, NOISE * 0, NOISE * 0 + 255, np.repeat(NOISE[:, :, :1] // 64, 3, 2))
    ):
        path = tmp_path / "d" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
    dataset = open_folder(tmp_path / "d")
    assert summarize_dataset(dataset).problems == ()
    expected = (
        "2 of 6 pictures have one colour, so they may be empty or read wrong: a/4.png, b/3.png",
        "1 of 6 pictures have at most 16 greys, so they may be empty or read wrong: b/5.png",
    )
    assert summarize_dataset(dataset).notes[1:] == expected
    for _ in range(2):  # decoded, and found decoded
        kept = prepare_pixels(dataset, 8, cache=tmp_path / "cache")[0]
        assert kept.notes[1:] == expected
    assert prepare_pixels(kept, 8, cache=tmp_path / "cache")[0].notes == kept.notes


@pytest.mark.parametrize(
    ("tops", "window", "expected"),
    [
        (
            (4000, 3000, 200),
            "auto",
            "1 by 8 bits and 2 by 12 bits were scaled, each by .*window: \\[0, 4095\\].*; by 8 bits: b/2.png",
        ),
        ((60000, 3000, 2000), "auto", "2 by 12 bits and 1 by 16 bits .*window: \\[0, 65535\\].*; by 16 bits: a/0.png"),
        ((4000, 3000, 2000), "auto", ""),
        ((4000, 3000, 0), "auto", ""),  # a black picture has no brightness to be wrong
        ((4000, 3000, 200), (0.0, 4095.0), ""),
    ],
)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_deep_pictures_that_were_scaled_by_different_depths_are_noted(
    tmp_path: Path, tops: tuple[int, ...], window: Window, expected: str, suffix: str
) -> None:
    for i, top in enumerate(tops):
        path = tmp_path / "d" / "aab"[i] / f"{i}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((NOISE[:, :, 0].astype(np.float64) * top / 255).astype(np.uint16)).save(path)
    Image.fromarray(NOISE).save(tmp_path / "d" / "b" / "8.png")  # of 8 bits as it is
    dataset = apply_options(open_folder(tmp_path / "d"), PictureOptions(window))
    found = [summarize_dataset(dataset).notes, *(prepare_pixels(dataset, 8, cache=tmp_path / "c")[0].notes for _ in range(2))]
    for notes in found:  # inspected, decoded, and found decoded
        told = [note for note in notes if "were scaled" in note]
        assert len(told) == bool(expected)
        assert not expected or re.search("WARNING: of 4 pictures " + expected.replace(".png", f".{suffix}"), told[0])

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.data.images.cache import load_cached_pixels, prepare_pixels
from phoropter.data.images.decode import SquareResize
from phoropter.data.images.streaming import StreamedPixels
from phoropter.data.sources.folder import open_folder
from phoropter.data.sources.storage import FilePictures


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOROPTER_PIXELS_BUDGET", "100")


def test_streamed_equals_stored(zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_folder(zoo)
    _, stored = prepare_pixels(dataset, 16, cache=tmp_path / "stored")
    monkeypatch.setenv("PHOROPTER_PIXELS_BUDGET", "100")
    _, streamed = prepare_pixels(dataset, 16, cache=tmp_path / "streamed")
    assert isinstance(streamed, StreamedPixels) and not streamed.stored and stored.stored
    assert (streamed.identity, streamed.shape, streamed.size, len(streamed)) == (stored.identity, stored.shape, 16, 5)
    for rows in (np.array([4, 1, 1]), np.arange(5), np.array([], dtype=np.int64)):
        np.testing.assert_array_equal(streamed.batch(rows), stored.batch(rows))
    out = np.empty((2, 3, 16, 16), dtype=np.uint8)
    assert streamed.batch(np.array([0, 3]), out=out) is out
    with pytest.raises(IndexError):
        streamed.batch(np.array([-1]))
    with pytest.raises(DataError, match="there is no array of all its pixels; read batches"):
        streamed.array  # noqa: B018


def test_bad_pictures_are_found_before_the_study(zoo: Path, tmp_path: Path, tight: None) -> None:
    (zoo / "cat" / "bb.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"cat/bb\.png: the file is empty"):
        prepare_pixels(open_folder(zoo), 16, cache=tmp_path)
    kept, pixels = prepare_pixels(open_folder(zoo), 16, cache=tmp_path, on_bad_input="skip")
    assert len(kept) == len(pixels) == 5 and kept.problems[0].where == "cat/bb.png"
    np.testing.assert_array_equal(pixels.batch(np.array([2]))[0], SquareResize(16).resize_image(kept.read(2)))
    again = load_cached_pixels(open_folder(zoo), 16, cache=tmp_path, on_bad_input="skip")
    assert again is not None and isinstance(again[1], StreamedPixels) and again[0].problems == kept.problems


def test_a_larger_budget_stores_the_pixels(zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tight: None) -> None:
    assert not prepare_pixels(open_folder(zoo), 16, cache=tmp_path)[1].stored
    monkeypatch.setenv("PHOROPTER_PIXELS_BUDGET", "1GB")
    assert prepare_pixels(open_folder(zoo), 16, cache=tmp_path)[1].stored
    monkeypatch.setenv("PHOROPTER_PIXELS_BUDGET", "100")
    assert prepare_pixels(open_folder(zoo), 16, cache=tmp_path)[1].stored


def test_recent_pictures_stay_in_memory_up_to_a_limit(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    real = FilePictures.image
    monkeypatch.setattr(FilePictures, "image", lambda self, row: (decoded.append(row), real(self, row))[1])
    pixels = StreamedPixels(open_folder(zoo), SquareResize(8), "x", memory=2 * 3 * 8 * 8)
    for row in (0, 1, 0, 1):
        pixels.batch(np.array([row]))
    assert decoded == [0, 1]
    pixels.batch(np.array([2]))
    pixels.batch(np.array([1]))
    pixels.batch(np.array([0]))
    assert decoded == [0, 1, 2, 0]


def test_it_is_pickled_without_its_threads(zoo: Path) -> None:
    pixels = StreamedPixels(open_folder(zoo), SquareResize(8), "x")
    first = pixels.batch(np.array([3]))
    again = pickle.loads(pickle.dumps(pixels))  # noqa: S301
    np.testing.assert_array_equal(again.batch(np.array([3])), first)

"""Options of decoding: their identity, and that they hold in the thread that decodes alone."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.core.files import digest
from phoropter.data.images.options import PictureOptions, active_options, apply_options, check_pixel_count, use_options
from phoropter.data.sources.folder import open_folder


def test_the_identity_of_a_window_alone_is_as_before_there_were_other_options(zoo: Path) -> None:
    plain = open_folder(zoo)
    rows = np.arange(len(plain))
    windowed = apply_options(plain, PictureOptions(window=(0.0, 9.0)))
    assert windowed.pictures.identity(rows) == digest(["window", (0.0, 9.0), plain.pictures.identity(rows)])
    keys = [
        str(options.key)
        for options in (
            PictureOptions(window=(0.0, 9.0)),
            PictureOptions(channels=(1, 2, 3)),
            PictureOptions(channels=(2, 1, 3)),
            PictureOptions(page=1),
            PictureOptions(page="first"),
        )
    ]
    assert len(set(keys)) == len(keys)


def test_options_hold_in_one_thread_and_end_with_an_error() -> None:
    other: list[PictureOptions] = []
    with pytest.raises(ZeroDivisionError), use_options(PictureOptions(page=2)):
        thread = threading.Thread(target=lambda: other.append(active_options()))
        thread.start()
        thread.join()
        assert active_options().page == 2
        raise ZeroDivisionError
    assert active_options() == PictureOptions() and other == [PictureOptions()]


def test_pixels_are_counted_before_decoding() -> None:
    check_pixel_count(100_000_000, "x")
    with pytest.raises(DataError, match="x: the header promises more than 100 million pixels"):
        check_pixel_count(100_000_001, "x")

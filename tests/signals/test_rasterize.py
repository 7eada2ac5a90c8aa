"""Reference images, and batched rasterising against a loop over pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from phoropter.core.errors import SpecError
from phoropter.signals.rasterize import Pen, column_starts, draw_area, draw_heatmap, draw_trace

AXIS = np.array([50.0, 210.0])


def drawn(values: np.ndarray, pen: Pen | None = None, size: int = 224) -> np.ndarray:
    """One window as whiteness 0..1."""
    return draw_trace(np.asarray(values, float)[None], AXIS, size, pen)[0] / 255


def literal_trace(values: list[float], low: float, high: float, size: int, width: float) -> np.ndarray:
    """A plain loop over columns and rows; whiteness 0..1."""
    n = len(values)
    height = [(high - min(max(v, low), high)) / (high - low) * (size - 1) for v in values]
    points: list[list[float]] = [[] for _ in range(size)]
    for i, y in enumerate(height):
        if not math.isnan(values[i]):
            points[i * size // n].append(y)
    for i in range(1, n):
        a, b = (i - 1) * size // n, i * size // n
        if a != b and not math.isnan(values[i]) and not math.isnan(values[i - 1]):
            for column in (a, b):
                points[column].append((height[i - 1] + height[i]) / 2)
    picture = np.ones((size, size))
    for column, ys in enumerate(points):
        for row in range(size):
            if ys:
                ink = min(row + 0.5, max(ys) + width / 2) - max(row - 0.5, min(ys) - width / 2)
                picture[row, column] = 1 - min(max(ink, 0.0), 1.0)
    return picture


def test_a_constant_in_the_middle() -> None:
    picture = drawn(np.full(7200, 130))
    assert (picture[[111, 112]] == 0).all()
    assert picture.sum() == 49_728


def test_a_constant_at_the_top() -> None:
    picture = drawn(np.full(7200, 210))
    assert (picture[0] == 0).all()
    assert np.allclose(picture[1], 0.5, atol=1 / 255)
    assert (picture[2:] == 1).all()


@pytest.mark.parametrize("value", [50, 20])
def test_a_constant_at_or_below_the_bottom(value: float) -> None:
    picture = drawn(np.full(7200, value))
    assert (picture[223] == 0).all()
    assert np.allclose(picture[222], 0.5, atol=1 / 255)
    assert (picture[:222] == 1).all()


def test_a_trace_without_samples_is_white() -> None:
    assert (drawn(np.full(7200, np.nan)) == 1).all()


def test_a_rising_ramp_goes_from_bottom_left_to_top_right() -> None:
    picture = drawn(np.linspace(50, 210, 7200))
    darkest = picture.argmin(axis=0)
    assert (np.diff(darkest) <= 0).all()
    assert darkest[0] >= 222
    assert darkest[-1] == 0


@pytest.mark.parametrize(("n", "size", "width"), [(7200, 224, 2.0), (500, 64, 2.0), (331, 32, 1.0), (64, 64, 3.0), (65, 64, 0.5)])
def test_a_batch_equals_pixel_by_pixel(n: int, size: int, width: float) -> None:
    rng = np.random.default_rng(n)
    batch = 130 + np.cumsum(rng.normal(0, 3, (3, n)), axis=1)
    batch[1, rng.integers(0, n, n // 5)] = np.nan
    batch[2, n // 4 : n // 2] = np.nan
    fast = draw_trace(batch, AXIS, size, Pen(width_px=width))
    for row, picture in zip(batch, fast, strict=True):
        slow = literal_trace(row.tolist(), 50, 210, size, width)
        assert np.abs(picture - 255 * slow).max() <= 0.51


def test_without_antialiasing_there_is_black_and_white() -> None:
    ramp = np.linspace(50, 210, 7200)
    hard = drawn(ramp, Pen(antialiased=False))
    assert set(np.unique(hard)) == {0, 1}
    soft = drawn(ramp)
    assert ((soft < 0.49) <= (hard == 0)).all()
    assert ((soft > 0.51) <= (hard == 1)).all()


def test_polarity_inverts_the_image() -> None:
    wave = 130 + 40 * np.sin(np.arange(7200) / 300)
    assert np.allclose(drawn(wave) + drawn(wave, Pen(polarity="ink")), 1, atol=1.01 / 255)


def test_every_window_may_have_its_own_axis() -> None:
    wave = np.sin(np.arange(500) / 20)
    two = draw_trace(np.stack([wave, 10 * wave]), np.array([[-1, 1], [-10, 10]]), 64)
    assert np.abs(two[0].astype(int) - two[1]).max() <= 1


def test_a_constant_without_an_axis_lies_in_the_middle() -> None:
    picture = draw_trace(np.full((1, 100), 5.0), np.array([[5.0, 5.0]]), 64)[0]
    assert np.flatnonzero(picture.min(axis=1) < 255).tolist() == [31, 32]


def test_fewer_samples_than_columns_are_joined() -> None:
    picture = draw_trace(np.array([[50.0, 210.0]]), AXIS, 64)[0]
    assert (picture.min(axis=0) < 128).all()


def test_a_single_sample_is_refused() -> None:
    with pytest.raises(SpecError, match="two samples"):
        draw_trace(np.array([[1.0]]), AXIS, 64)


@pytest.mark.parametrize(("n", "size"), [(7200, 224), (331, 32), (64, 64), (225, 224)])
def test_column_starts_are_where_the_column_changes(n: int, size: int) -> None:
    columns = [i * size // n for i in range(n)]
    assert column_starts(n, size).tolist() == [columns.index(c) for c in range(size)]


def test_a_heatmap_has_equal_rows_and_the_mean_of_each_column() -> None:
    values = np.linspace(50, 210, 640)
    heatmap = draw_heatmap(values[None], AXIS, 64)[0]
    assert (heatmap == heatmap[0]).all()
    ink = (values.reshape(64, 10).mean(axis=1) - 50) / 160
    assert np.abs(heatmap[0] - 255 * (1 - ink)).max() <= 0.51


def test_an_area_is_filled_below_the_mean_of_each_column() -> None:
    values = np.linspace(50, 210, 640)
    area = draw_area(values[None], AXIS, 64)[0] / 255
    height = (210 - values.reshape(64, 10).mean(axis=1)) / 160 * 63
    for column in range(64):
        expected = [1 - min(max(row + 0.5 - height[column], 0), 1) for row in range(64)]
        assert np.abs(area[:, column] - expected).max() <= 0.51 / 255


@pytest.mark.parametrize("draw", [draw_heatmap, draw_area])
def test_gaps_stay_white_in_heatmaps_and_areas(draw: object) -> None:
    values = np.full((1, 640), 200.0)
    values[0, 100:200] = np.nan
    picture = draw(values, AXIS, 64)[0]  # type: ignore[operator]
    assert (picture[:, 10:20] == 255).all()
    assert (picture[-1, :10] < 255).all()

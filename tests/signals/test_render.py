"""Batched rendering against one window at a time with SciPy, Pillow and PyWavelets."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest
import pywt
import scipy.signal
from PIL import Image

from phoropter.core.errors import DataError, MissingExtraError, SpecError
from phoropter.core.spec import Spec, validate_as
from phoropter.signals.rasterize import Pen, draw_trace
from phoropter.signals.render import (
    REPRESENTATIONS,
    CtgPlot,
    Representation,
    Scalogram,
    Spectrogram,
    Trace,
    bilinear_weights,
    compute_spectrogram,
    pool_ranges,
    render_windows,
    repeat_to_rgb,
    value_range,
)
from phoropter.signals.simulate_ecg import EcgCohort, ecg_simulate_subject

PAPER, DENSE = Spectrogram(style="paper"), Spectrogram(style="dense")


def ecg_windows(rate_hz: float = 700.0, count: int = 5, seconds: float = 5.0) -> np.ndarray:
    cohort = EcgCohort(rate_hz=rate_hz, baseline_s=30, stress_s=20, amusement_s=10, between_s=1)
    ecg = ecg_simulate_subject(cohort, 1).channel("ECG")
    length = round(seconds * rate_hz)
    return np.stack([ecg[i * 1000 : i * 1000 + length] for i in range(count)])


def sine(hz: float, n: int = 3500) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(n) / 700)[None].astype(np.float32)


def literal_grey(power: np.ndarray, picture: Spectrogram | Scalogram) -> np.ndarray:
    """(F, T) power → (S, S) grey values, written out plainly with Pillow's resize."""
    level = 10 * np.log10(np.maximum(power.astype(np.float64), 1e-20)) if picture.scale == "log" else power.astype(np.float64)
    if picture.scale == "log":
        level = np.clip(level, level.max() - picture.floor_db, level.max())
    spread = level.max() - level.min()
    scaled = (level - level.min()) / spread if spread > 0 else np.zeros_like(level)
    image = Image.fromarray(np.ascontiguousarray(scaled[::-1], np.float32))
    return np.asarray(image.resize((picture.size, picture.size), Image.Resampling.BILINEAR)) * 255


def literal_power(window: np.ndarray, rate_hz: float, picture: Spectrogram) -> np.ndarray:
    if picture.style == "paper":
        return np.asarray(scipy.signal.spectrogram(window, rate_hz)[2])
    return np.asarray(scipy.signal.spectrogram(window, rate_hz, window="hann", nperseg=378, noverlap=364, nfft=4096)[2][:224])


# --- spectrogram ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("picture", "shape"), [(PAPER, (129, 15)), (DENSE, (224, 224))])
def test_power_equals_scipys(picture: Spectrogram, shape: tuple[int, int]) -> None:
    windows = ecg_windows().astype(np.float64)
    found = compute_spectrogram(windows, 700.0, picture)
    assert found.shape == (5, *shape)
    for window, power in zip(windows, found, strict=True):
        np.testing.assert_allclose(power, literal_power(window, 700.0, picture), rtol=1e-9, atol=1e-18)


@pytest.mark.parametrize("picture", [PAPER, DENSE, Spectrogram(scale="linear"), Spectrogram(size=64), Spectrogram(size=97)])
def test_a_batch_of_images_equals_one_window_at_a_time(picture: Spectrogram) -> None:
    windows = ecg_windows(count=20)
    pictures = render_windows(windows, 700.0, picture)
    for window, found in zip(windows, pictures, strict=True):
        expected = literal_grey(literal_power(window, 700.0, picture), picture)
        assert np.abs(found - expected).max() <= 1.0


@pytest.mark.parametrize(("picture", "row", "hz"), [(PAPER, 4, 10.94), (DENSE, 59, 10.08)])
def test_a_sine_of_ten_hertz_is_found_in_its_row(picture: Spectrogram, row: int, hz: float) -> None:
    power = compute_spectrogram(sine(10), 700.0, picture)[0].mean(axis=1)
    assert power.argmax() == row
    step = 700 / 256 if picture.style == "paper" else 700 / 4096
    assert row * step == pytest.approx(hz, abs=0.005)


def test_low_frequencies_are_at_the_bottom() -> None:
    picture = render_windows(sine(10), 700.0, DENSE)[0].astype(int)
    assert picture[164].sum() == picture.sum(axis=1).max()  # row 59 from the bottom
    assert picture[0].mean() < picture[164].mean()


@pytest.mark.parametrize("picture", [PAPER, DENSE, Scalogram(voices=8, size=32)])
@pytest.mark.parametrize("level", [0.0, 1234.567])
def test_a_constant_signal_gives_an_empty_image(picture: Representation, level: float) -> None:
    assert not render_windows(np.full((2, 3500), level, np.float32), 700.0, picture).any()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_dtype_of_the_input_is_kept(kind: type) -> None:
    assert compute_spectrogram(sine(10).astype(kind), 700.0, PAPER).dtype == kind


def test_integer_samples_are_accepted() -> None:
    counts = np.rint(ecg_windows() * 1000)
    assert (
        render_windows(counts.astype(np.int16), 700.0, PAPER) == render_windows(counts.astype(np.float32), 700.0, PAPER)
    ).all()


@pytest.mark.parametrize(("rate", "segment", "step"), [(500.0, 270, 10), (1000.0, 540, 20)])
def test_the_dense_style_looks_alike_at_other_sampling_rates(rate: float, segment: int, step: int) -> None:
    """Segments of 0.54 s and equal frequencies at every rate: a 10-Hz sine lies in the same row."""
    wave = np.sin(2 * np.pi * 10 * np.arange(round(5 * rate)) / rate)[None]
    power = compute_spectrogram(wave, rate, DENSE)[0]
    assert power.shape == (224, 224)
    assert power.mean(axis=1).argmax() == 59
    window = scipy.signal.get_window("hann", segment)
    angle = 2 * np.pi * 59 * (700 / 4096) / rate * np.arange(segment)
    frames = [wave[0, k * step : k * step + segment] for k in range(224)]
    expected = [2 * abs(((f - f.mean()) * window * np.exp(-1j * angle)).sum()) ** 2 / (rate * (window**2).sum()) for f in frames]
    np.testing.assert_allclose(power[59], expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("picture", "n", "rate", "message"),
    [
        (PAPER, 255, 700.0, "segments of 256 samples in windows of 255"),
        (DENSE, 300, 700.0, "segments of 378 samples in windows of 300"),
        (DENSE, 3500, 60.0, "expected 0 < max_hz <= 30"),
        (Scalogram(), 3500, 60.0, "expected 0 < low_hz < high_hz <= 30"),
        (Scalogram(), 100, 700.0, "fewer than its 224 columns"),
        (Scalogram(wavelet="morlet"), 3500, 700.0, "the wavelet 'morlet' is unknown; .* did you mean 'morl'"),
    ],
)
def test_windows_a_representation_cannot_show_are_refused(picture: Representation, n: int, rate: float, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        render_windows(np.zeros((1, n), np.float32), rate, picture)


def test_missing_samples_have_no_spectrum() -> None:
    window = sine(10)
    window[0, 100] = np.nan
    with pytest.raises(DataError, match="missing samples"):
        render_windows(window, 700.0, PAPER)


# --- all pictures -----------------------------------------------------------------------------------------------------

ALL = [PAPER, DENSE, Spectrogram(scale="linear"), Trace(), Scalogram(voices=16, size=64)]


@pytest.mark.parametrize("picture", ALL, ids=lambda p: f"{type(p).__name__}-{getattr(p, 'style', '')}{getattr(p, 'scale', '')}")
def test_an_image_does_not_depend_on_its_batch(picture: Representation) -> None:
    windows = ecg_windows(count=37)
    together = render_windows(windows, 700.0, picture)
    for i in (0, 15, 16, 36):
        assert (render_windows(windows[i : i + 1], 700.0, picture)[0] == together[i]).all()
    assert (render_windows(windows[::-1], 700.0, picture)[::-1] == together).all()


@pytest.mark.parametrize("picture", ALL, ids=lambda p: f"{type(p).__name__}-{getattr(p, 'style', '')}{getattr(p, 'scale', '')}")
def test_an_empty_batch_gives_no_images(picture: Representation) -> None:
    assert render_windows(np.empty((0, 3500), np.float32), 700.0, picture).shape == (0, picture.size, picture.size)
    assert value_range(np.empty((0, 3500), np.float32), 700.0, picture).shape == (0, 2)  # type: ignore[arg-type]


def test_the_windows_own_range_changes_nothing() -> None:
    windows = ecg_windows()
    assert (
        render_windows(windows, 700.0, PAPER, value_range(windows, 700.0, PAPER)) == render_windows(windows, 700.0, PAPER)
    ).all()


def test_a_subjects_range_makes_its_windows_comparable() -> None:
    quiet, loud = sine(10), 10 * sine(10)
    windows = np.concatenate([quiet, loud, quiet])
    own = render_windows(windows, 700.0, PAPER)
    assert (own[0] == own[2]).all()
    ranges = pool_ranges(value_range(windows, 700.0, PAPER), np.array(["a", "a", "b"]))
    shared = render_windows(windows, 700.0, PAPER, ranges)
    assert (shared[2] == own[2]).all()
    assert abs(own[0].astype(int) - own[1]).max() <= 1
    assert shared[0].max() == pytest.approx(own[0].max() - 20 / 80 * 255, abs=2)  # ten times the amplitude are 20 dB


def test_pooled_ranges_are_the_extremes_of_the_group() -> None:
    ranges = np.array([[0.0, 5], [-1, 2], [3, 9]])
    assert pool_ranges(ranges, np.array([7, 7, 8])).tolist() == [[-1, 5], [-1, 5], [3, 9]]


def test_rgb_repeats_one_channel() -> None:
    pictures = render_windows(ecg_windows(), 700.0, PAPER)
    assert repeat_to_rgb(pictures).shape == (5, 224, 224, 3)
    assert (repeat_to_rgb(pictures) == pictures[..., None]).all()


def test_bilinear_weights_equal_pillow() -> None:
    rng = np.random.default_rng(0)
    for length, size in ((129, 224), (15, 224), (129, 64), (300, 7), (8, 8)):
        column = rng.random((length, 1)).astype(np.float32)
        expected = np.asarray(Image.fromarray(column).resize((1, size), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(bilinear_weights(length, size) @ column, expected, atol=1e-6)


# --- trace and scalogram ----------------------------------------------------------------------------------------------


def test_a_trace_spans_the_height_of_its_window() -> None:
    picture = render_windows(ecg_windows(), 700.0, Trace())[0]
    assert picture[0].min() == 0
    assert picture[-1].min() < 255


def test_a_trace_may_have_a_fixed_axis() -> None:
    windows = ecg_windows()
    expected = draw_trace(windows, np.array([-0.5, 1.5]), 224)
    assert (render_windows(windows, 700.0, Trace(low=-0.5, high=1.5)) == expected).all()


def test_scalograms_equal_one_window_at_a_time() -> None:
    picture = Scalogram(size=64, voices=20, low_hz=2.0)
    windows = ecg_windows(count=3)
    for window, found in zip(windows, render_windows(windows, 700.0, picture), strict=True):
        frequencies = np.array([2.0 * 20 ** (i / 19) for i in range(20)])
        scales = [pywt.scale2frequency(picture.wavelet, 1) * 700 / f for f in frequencies]
        wave, hz = pywt.cwt(window.astype(float) - window.mean(), scales, picture.wavelet, 1 / 700, method="conv")
        np.testing.assert_allclose(hz, frequencies, rtol=1e-6)
        columns = np.arange(3500) * 64 // 3500
        power = np.stack([(np.abs(wave) ** 2)[:, columns == c].mean(axis=1) for c in range(64)], axis=1)
        assert np.abs(found - literal_grey(power, picture)).max() <= 1.0


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **more: Any) -> Any:
        if name == "pywt":
            raise ImportError(name)
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match="rendering a scalogram needs the package PyWavelets"):
        render_windows(sine(10), 700.0, Scalogram())


# --- cardiotocograms --------------------------------------------------------------------------------------------------


def ctg_windows(count: int = 3, n: int = 7200) -> np.ndarray:
    rng = np.random.default_rng(0)
    fhr = 140 + np.cumsum(rng.normal(0, 0.5, (count, n)), axis=1)
    uc = 50 + 60 * np.sin(np.arange(n) / 200) + np.zeros((count, 1))
    return np.stack([fhr, uc, np.full((count, n), 140.0)], axis=1).astype(np.float32)


def test_the_three_channels_are_rendered_on_their_own_axes() -> None:
    windows = ctg_windows()
    pictures = render_windows(windows, 4.0, CtgPlot())
    assert pictures.shape == (3, 224, 224, 3)
    for channel, axis in enumerate([(50, 210), (0, 100), (50, 210)]):
        assert (pictures[..., channel] == draw_trace(windows[:, channel], np.array(axis), 224)).all()


def test_other_axes_move_the_trace() -> None:
    picture = render_windows(ctg_windows(), 4.0, CtgPlot(fhr_axis=(30, 240), uc_axis=(0, 120)))[0]
    assert picture[..., 2].min(axis=1).argmin() == round((240 - 140) / 210 * 223 - 0.5)


@pytest.mark.parametrize("style", ["heatmap", "area"])
def test_other_styles_render_all_channels(style: Any) -> None:
    pictures = render_windows(ctg_windows(), 4.0, CtgPlot(size=64, style=style))
    assert pictures.shape == (3, 64, 64, 3)
    assert (pictures.reshape(3, -1, 3).min(axis=1) < 255).all()


def test_a_cardiotocogram_does_not_depend_on_its_batch() -> None:
    windows = ctg_windows(20)
    assert (render_windows(windows[17:18], 4.0, CtgPlot())[0] == render_windows(windows, 4.0, CtgPlot())[17]).all()


@pytest.mark.parametrize(
    ("windows", "picture"), [(np.zeros((2, 2, 500)), CtgPlot()), (np.zeros((2, 500)), CtgPlot()), (np.zeros((2, 3, 500)), PAPER)]
)
def test_windows_of_other_channels_are_refused(windows: np.ndarray, picture: Representation) -> None:
    with pytest.raises(SpecError, match="expected"):
        render_windows(windows, 4.0, picture)


def test_a_representation_is_chosen_by_its_kind() -> None:
    class Study(Spec):
        picture: Representation

    assert validate_as(Study, {"picture": {"kind": "ctg", "uc_axis": [0, 120]}}).picture == CtgPlot(uc_axis=(0, 120))
    assert validate_as(Study, {"picture": {"kind": "trace", "pen": {"width_px": 3}}}).picture == Trace(pen=Pen(width_px=3))
    with pytest.raises(SpecError, match="did you mean 'dense'"):
        validate_as(Spectrogram, {"style": "dens"})


def test_the_table_of_representations_is_complete() -> None:
    assert {name: type(make()).__name__ for name, make in REPRESENTATIONS.items()} == {
        "spectrogram": "Spectrogram",
        "scalogram": "Scalogram",
        "trace": "Trace",
        "ctg": "CtgPlot",
    }


@pytest.mark.parametrize("make", REPRESENTATIONS.values(), ids=REPRESENTATIONS)
def test_the_set_fields_of_a_representation_keep_its_kind(make: type[Representation]) -> None:
    assert make(size=32).model_dump(exclude_unset=True) == {"kind": make(size=32).kind, "size": 32}
    assert make.model_validate(make(size=32).plain()) == make(size=32)

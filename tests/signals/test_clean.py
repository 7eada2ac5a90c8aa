"""Reference vectors, and every vectorised rule against a loop over samples."""

from __future__ import annotations

import math

import numpy as np
import pytest

from phoropter.core.errors import SpecError
from phoropter.signals.clean import (
    BLOCK,
    GAP,
    JUMP,
    NAN,
    OK,
    RANGE,
    FhrRules,
    UcRules,
    block_mean,
    centred_mean,
    exponential_mean,
    far_from_mean,
    fhr_baseline,
    fhr_clean,
    find_jumps,
    find_runs,
    interpolate_missing,
    lowpass_filter,
    out_of_range,
    seconds_to_samples,
    uc_clean,
    uc_minmax_scale,
    zero_runs,
)

NaN = float("nan")
T = np.arange(7200) / 4
TWO_WAVES = 140 + 10 * np.cos(2 * np.pi * 3 * T / 1800) + 5 * np.cos(2 * np.pi * 20 * T / 1800)


def near(found: np.ndarray, expected: list[float], within: float = 1e-9) -> bool:
    return bool(np.allclose(found, expected, rtol=0, atol=within, equal_nan=True))


# --- vectors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fhr", "values", "causes"),
    [
        ([140, 200, 142, 50, 146, 150], [140, 141, 142, 144, 146, 150], [0, 2, 0, 2, 0, 0]),
        ([140, 140, 165, 165, 140, 140], [140, 140, 152.5, 165, 152.5, 140], [0, 0, 3, 0, 3, 0]),
        ([140, 164.9, 140], [140, 164.9, 140], [0, 0, 0]),
        ([140, 140, 170, 140, 140], [140] * 5, [0, 0, 3, 3, 0]),
        ([0, 0, 140, 142, 0, 146, 0], [140, 140, 140, 142, 144, 146, 146], [2, 2, 0, 0, 2, 0, 2]),
    ],
)
def test_vectors_1_to_4(fhr: list[float], values: list[float], causes: list[int]) -> None:
    cleaned = fhr_clean(np.array(fhr))
    assert near(cleaned.values, values)
    assert cleaned.causes.tolist() == causes
    assert cleaned.valid


def test_just_under_two_hundred_is_kept() -> None:
    assert not out_of_range(np.array([199.9, 50.1]), 50, 200).any()


def test_vector_4_nothing_finite() -> None:
    cleaned = fhr_clean(np.zeros(3))
    assert np.isnan(cleaned.values).all()
    assert not cleaned.valid


def test_vector_5_a_long_gap() -> None:
    cleaned = fhr_clean(np.repeat([140.0, 0.0, 150.0], [10, 60, 10]))
    assert (cleaned.causes == GAP).sum() == 60
    assert near(cleaned.values[[10, 69]], [140.1639, 149.8361], 1e-4)


def test_vector_5_one_sample_less_is_a_range_fault() -> None:
    cleaned = fhr_clean(np.repeat([140.0, 0.0, 150.0], [10, 59, 11]))
    assert ((cleaned.causes == RANGE).sum(), (cleaned.causes == GAP).sum()) == (59, 0)
    assert near(cleaned.values[[10]], [140.1667], 1e-4)


def test_vector_6_a_block_far_from_its_mean() -> None:
    fhr = np.repeat([140.0, 160.0, 180.0, 160.0], [40, 1, 18, 1])
    cleaned = fhr_clean(fhr)
    assert np.flatnonzero(cleaned.causes).tolist() == list(range(41, 59))
    assert set(cleaned.causes[41:59]) == {BLOCK}
    assert near(cleaned.values[41:59], [160.0] * 18)


@pytest.mark.parametrize(
    ("x", "width", "mean"),
    [([1, 2, 3, 4, 5], 4, [1.5, 2, 2.5, 3.5, 4]), ([1, 2, 3, 4, 5], 3, [1.5, 2, 3, 4, 4.5]), ([1, NaN, 3], 3, [1, 2, 3])],
)
def test_vector_7_centred_mean(x: list[float], width: int, mean: list[float]) -> None:
    assert near(centred_mean(np.array(x, float), width), mean)


def test_vector_7_exponential_mean() -> None:
    assert near(exponential_mean(np.array([0.0, 1, 1, 1]), 3), [0, 0.5, 0.75, 0.875])
    step = exponential_mean(np.r_[0.0, np.ones(80)], 60)
    assert near(step[[1, 30, 60]], [0.0328, 0.6322, 0.8647], 5e-5)


def test_vector_8_contractions() -> None:
    cleaned = uc_clean(np.array([-1.0, 10, -5, 20, 20, -3]), 4.0, UcRules(mean_s=1.0, span_s=0.75))
    assert near(cleaned.values, [10, 10.8333, 12.2917, 14.2708, 16.5104, 18.2552], 1e-4)
    assert cleaned.causes.tolist() == [RANGE, OK, RANGE, OK, OK, RANGE]


def test_vector_9_baseline() -> None:
    fhr = np.repeat([120.0, 150.0, 135.0], 2400)
    at = [0, 1200, 2399, 2400, 3600, 4799, 7199]
    assert near(fhr_baseline(fhr)[at], [120, 120, 134.9875, 135, 150, 142.50625, 135])
    assert fhr_baseline(fhr, rules=FhrRules(baseline="block"))[[0, 2399, 2400, 7199]].tolist() == [120, 120, 150, 135]


@pytest.mark.parametrize(
    ("cutoff", "first", "sd"), [(0, 140, 0), (2, 140, 0), (3, 150, 7.0711), (19, 150, 7.0711), (20, 155, 7.9057)]
)
def test_lowpass_in_bins(cutoff: int, first: float, sd: float) -> None:
    kept = lowpass_filter(TWO_WAVES, cutoff, edge="wrap")
    assert kept[0] == pytest.approx(first)
    assert kept.std() == pytest.approx(sd, abs=5e-5)


@pytest.mark.parametrize(("cutoff", "first"), [(1.6, 140), (1.7, 150), (11.2, 155)])
def test_lowpass_in_millihertz(cutoff: float, first: float) -> None:
    assert lowpass_filter(TWO_WAVES, cutoff, unit="mHz", edge="wrap")[0] == pytest.approx(first)


def test_fifty_millihertz_is_bin_ninety() -> None:
    noise = np.random.default_rng(0).normal(size=7200)
    assert near(lowpass_filter(noise, 50, unit="mHz"), lowpass_filter(noise, 90).tolist())


def test_contractions_normalised() -> None:
    assert uc_minmax_scale(np.array([5.0, 10, 15]), 100).tolist() == [0, 50, 100]
    assert uc_minmax_scale(np.array([7.0, 7, 7]), 100).tolist() == [0, 0, 0]
    assert uc_minmax_scale(np.array([5.0, 10, 15]), 0).tolist() == [0, 0, 0]


# --- against a literal loop -------------------------------------------------------------------------------------------


def literal_mean(x: list[float], low: int, high: int) -> float:
    finite = [v for v in x[max(0, low) : min(len(x), high)] if not math.isnan(v)]
    return sum(finite) / len(finite) if finite else NaN


def literal_fill(x: list[float]) -> list[float]:
    known = [i for i, v in enumerate(x) if not math.isnan(v)]
    out = list(x)
    for i, v in enumerate(x):
        if known and math.isnan(v):
            before, after = [k for k in known if k < i], [k for k in known if k > i]
            if not before or not after:
                out[i] = x[after[0]] if after else x[before[-1]]
            else:
                a, b = before[-1], after[0]
                out[i] = x[a] + (x[b] - x[a]) * (i - a) / (b - a)
    return out


def literal_fhr(fhr: list[float], rules: FhrRules) -> tuple[list[float], list[int]]:
    """F1 to F5 as a plain loop over samples at 4 Hz."""
    x, n = list(fhr), len(fhr)
    cause = [NAN if math.isnan(v) else OK for v in x]
    start = 0
    while start < n:
        stop = start
        while stop < n and x[stop] == 0:
            stop += 1
        if stop - start >= 60:
            for i in range(start, stop):
                x[i], cause[i] = NaN, GAP
        start = max(stop, start + 1)
    for i in range(n):
        if x[i] >= 200 or x[i] <= 50:
            x[i], cause[i] = NaN, RANGE
    jumped = [i for i in range(1, n) if abs(x[i] - x[i - 1]) >= 25]
    for i in jumped:
        for j in (i, i - 1) if rules.jump == "both" else (i,):
            x[j], cause[j] = NaN, JUMP
    if rules.block == "blocks":
        mean = [literal_mean(x, i // 60 * 60, i // 60 * 60 + 60) for i in range(n)]
    else:
        mean = [literal_mean(x, i - 30, i + 30) for i in range(n)]
    for i in range(n):
        if abs(x[i] - mean[i]) >= 25:
            x[i], cause[i] = NaN, BLOCK
    x = literal_fill(x)
    if rules.long_gap == "keep-nan":
        x = [NaN if c == GAP else v for v, c in zip(x, cause, strict=True)]
    return x, cause


def random_record(seed: int, n: int = 700) -> np.ndarray:
    """Quarter-bpm steps with gaps of every length around 15 s, spikes, doubled stretches and NaN."""
    rng = np.random.default_rng(seed)
    x = np.round(4 * (140 + np.cumsum(rng.normal(0, 1.5, n)) + 8 * rng.standard_normal(n))) / 4
    for _ in range(rng.integers(0, 8)):
        start = rng.integers(0, n)
        x[start : start + rng.choice([1, 3, 30, 58, 59, 60, 61, 90])] = rng.choice([0.0, 0.0, NaN, 199.9, 200.0, 50.0])
    return x


@pytest.mark.parametrize(
    "rules",
    [FhrRules(), FhrRules(jump="both"), FhrRules(block="rolling"), FhrRules(long_gap="keep-nan")],
    ids=["default", "both", "rolling", "keep-nan"],
)
def test_cleaning_equals_the_literal_loop(rules: FhrRules) -> None:
    for seed in range(12):
        fhr = random_record(seed)
        values, causes = literal_fhr(fhr.tolist(), rules)
        cleaned = fhr_clean(fhr, 4.0, rules)
        assert cleaned.causes.tolist() == causes
        assert near(cleaned.values, values, 1e-8)


def test_all_causes_occur_in_the_random_records() -> None:
    seen = {int(c) for seed in range(12) for c in fhr_clean(random_record(seed)).causes}
    assert seen == {OK, GAP, RANGE, JUMP, BLOCK, NAN}


def test_contractions_equal_the_literal_loop() -> None:
    rng = np.random.default_rng(3)
    for _ in range(5):
        uc = np.round(rng.normal(10, 12, 500), 1)
        uc[rng.integers(0, 500, 20)] = NaN
        x = literal_fill([NaN if v < 0 else v for v in uc.tolist()])
        x = [literal_mean(x, i - 120, i - 120 + 240) for i in range(500)]
        y = [x[0]]
        for value in x[1:]:
            y.append(2 / 61 * value + (1 - 2 / 61) * y[-1])
        assert near(uc_clean(uc).values, y, 1e-8)


def test_block_mean_equals_the_literal_loop() -> None:
    x = random_record(1, 157)
    expected = [literal_mean(x.tolist(), i // 60 * 60, i // 60 * 60 + 60) for i in range(157)]
    assert near(block_mean(x, 60), expected, 1e-8)


def test_lowpass_of_a_batch_equals_one_by_one() -> None:
    batch = np.random.default_rng(0).normal(size=(3, 100))
    assert near(lowpass_filter(batch, 7)[1], lowpass_filter(batch[1], 7).tolist())


# --- edges ------------------------------------------------------------------------------------------------------------


def test_the_input_is_left_alone() -> None:
    fhr = np.array([140.0, 0.0, 300.0])
    fhr_clean(fhr)
    assert fhr.tolist() == [140, 0, 300]


@pytest.mark.parametrize("n", [100, 101])
def test_a_mirrored_lowpass_is_a_cut_of_the_cosine_transform(n: int) -> None:
    """Half a bin wide each, so bins 0..2k are kept: by SciPy's transform, whose basis is that of the mirrored window."""
    from scipy.fft import dct, idct

    x = np.random.default_rng(3).normal(size=n)
    coefficients = dct(x, norm="ortho")
    coefficients[2 * 6 + 1 :] = 0
    assert near(lowpass_filter(x, 6), idct(coefficients, norm="ortho").tolist(), 1e-9)
    assert near(lowpass_filter(x, 0), [x.mean()] * n, 1e-9)


def test_a_step_at_the_end_stays_at_the_end_of_a_mirrored_window() -> None:
    x = np.full(7200, 140.0)
    x[-1200:] = 100
    mirrored, wrapped = lowpass_filter(x, 5), lowpass_filter(x, 5, edge="wrap")
    assert abs(mirrored[0] - 140) < 2 and abs(wrapped[0] - 120) < 2, "half of the step, at the other end of the half hour"


def test_lowpass_keeps_missing_samples_missing() -> None:
    x = TWO_WAVES.copy()
    x[:100] = NaN
    kept = lowpass_filter(x, 3)
    assert np.isnan(kept[:100]).all()
    assert np.isfinite(kept[100:]).all()


def test_normalising_leaves_missing_samples_missing() -> None:
    assert near(uc_minmax_scale(np.array([NaN, 0.0, 5.0]), 10), [NaN, 0, 10])


def test_empty_arrays_pass_through() -> None:
    nothing = np.zeros(0)
    assert (
        len(fhr_clean(nothing).values)
        == len(uc_clean(nothing).values)
        == len(find_jumps(nothing, 25))
        == len(interpolate_missing(nothing))
        == 0
    )


def test_runs_at_both_ends() -> None:
    starts, stops = find_runs(np.array([True, False, True, True]))
    assert (starts.tolist(), stops.tolist()) == ([0, 2], [1, 4])


def test_zero_runs_count_only_long_ones() -> None:
    assert zero_runs(np.array([0.0, 0, 1, 0, 0, 0]), 3).tolist() == [False, False, False, True, True, True]


def test_nan_does_not_count_for_the_mean_of_a_block() -> None:
    assert far_from_mean(np.array([NaN, 100.0, 140.0]), 3, 20).tolist() == [False, True, True]


@pytest.mark.parametrize("seconds", [0.0, -1.0, NaN])
def test_durations_must_be_above_zero(seconds: float) -> None:
    with pytest.raises(SpecError, match="seconds above zero"):
        seconds_to_samples(seconds, 4.0)


@pytest.mark.parametrize("cutoff", [-1.0, NaN])
def test_a_cutoff_below_zero_is_refused(cutoff: float) -> None:
    with pytest.raises(SpecError, match="cut-off"):
        lowpass_filter(TWO_WAVES, cutoff)

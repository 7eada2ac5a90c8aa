from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from phoropter.core.errors import DataError, SpecError
from phoropter.core.spec import validate_as
from phoropter.signals.clean import GAP, OK
from phoropter.signals.ctg import (
    CtgFilter,
    CtgRules,
    CtgWindowRule,
    ctg_clean,
    ctg_window_starts,
    ctg_windows,
    extract_ctg_windows,
)
from phoropter.signals.recording import Recording

SHORT = CtgWindowRule(length_s=100)  # windows of 400 samples keep the tests small


def record(n: int = 2000, lost: list[tuple[int, int]] | None = None, ident: str = "1001") -> Recording:
    rng = np.random.default_rng(n)
    fhr = 140 + rng.normal(0, 2, n)
    for start, stop in lost or []:
        fhr[start:stop] = 0
    uc = 20 + 10 * np.sin(np.arange(n) / 100)
    samples = np.stack([fhr, uc]).astype(np.float32)
    return Recording(ident, ident, samples, ("FHR", "UC"), ("bpm", "nd"), 4.0)


def test_last_valid_ends_at_the_last_sample_that_was_kept() -> None:
    clean = ctg_clean(record(lost=[(1900, 2000)]))
    assert ctg_window_starts(clean, SHORT)[0] == [1500]


def test_last_ends_at_the_end_of_the_record() -> None:
    clean = ctg_clean(record(lost=[(1900, 2000)]))
    assert ctg_window_starts(clean, SHORT.with_changes(position="last"))[0] == [1600]


def test_several_windows_follow_back_to_back() -> None:
    clean = ctg_clean(record())
    assert ctg_window_starts(clean, SHORT.with_changes(position="last", count=3))[0] == [800, 1200, 1600]


def test_all_windows_step_from_the_beginning() -> None:
    clean = ctg_clean(record())
    assert ctg_window_starts(clean, SHORT.with_changes(position="all"))[0] == [0, 400, 800, 1200, 1600]
    assert ctg_window_starts(clean, SHORT.with_changes(position="all", step_s=150))[0] == [0, 600, 1200]


def test_a_window_may_start_at_a_given_second() -> None:
    clean = ctg_clean(record())
    assert ctg_window_starts(clean, SHORT.with_changes(position="start:20.5"))[0] == [82]


def test_a_window_with_too_much_missing_is_dropped() -> None:
    clean = ctg_clean(record(lost=[(1600, 1801)]))  # 201 of the last 400
    assert ctg_window_starts(clean, SHORT.with_changes(position="last")) == ([], {"missing": 1})
    assert ctg_window_starts(clean, SHORT.with_changes(position="last", max_missing=0.51))[0] == [1600]


def test_exactly_half_missing_is_kept() -> None:
    clean = ctg_clean(record(lost=[(1600, 1800)]))
    assert clean.causes[1600:].tolist() == [GAP] * 200 + [OK] * 200
    assert ctg_window_starts(clean, SHORT.with_changes(position="last"))[0] == [1600]


def test_a_short_record_is_rejected_or_padded_on_the_left() -> None:
    clean = ctg_clean(record(300))
    assert ctg_window_starts(clean, SHORT) == ([], {"too_short": 1})
    padded = SHORT.with_changes(short="pad")
    starts, _ = ctg_window_starts(clean, padded)
    assert starts == [-100]
    window = extract_ctg_windows(clean, starts, CtgRules(window=padded))[0]
    assert np.isnan(window[:, :100]).all()
    assert (window[:, 100:] == clean.samples).all()


def test_padding_counts_as_missing() -> None:
    clean = ctg_clean(record(199))
    assert ctg_window_starts(clean, SHORT.with_changes(short="pad")) == ([], {"missing": 1})


def test_a_record_without_heart_rate_is_invalid_and_has_no_window() -> None:
    clean = ctg_clean(record(lost=[(0, 2000)]))
    assert ctg_window_starts(clean, SHORT) == ([], {"invalid": 1})
    assert extract_ctg_windows(clean, [], CtgRules(window=SHORT)).shape[:2] == (0, 3)


def test_cleaning_comes_before_cutting() -> None:
    """The baseline at a window's edge depends on samples outside the window."""
    recording = record(8000)
    clean = ctg_clean(recording)
    window = extract_ctg_windows(clean, [6000], CtgRules(window=CtgWindowRule(length_s=500)))[0]
    assert window[2, 0] == pytest.approx(clean.samples[0, 4800:7200].astype(float).mean(), abs=1e-3)


def test_filters_touch_their_own_channel_only() -> None:
    clean = ctg_clean(record())
    plain = extract_ctg_windows(clean, [1000], CtgRules(window=SHORT))[0]
    filtered = extract_ctg_windows(clean, [1000], CtgRules(window=SHORT, filter=CtgFilter(fhr_lowpass=0, uc_factor=50)))[0]
    assert np.ptp(filtered[0]) < 1e-3
    assert filtered[0, 0] == pytest.approx(plain[0].mean(), abs=1e-3)
    assert (filtered[1].min(), filtered[1].max()) == (0, 50)
    assert (filtered[2] == plain[2]).all()


def test_the_table_lists_windows_and_counts_dropped_records() -> None:
    recordings = [record(ident="a"), record(300, ident="b"), record(lost=[(0, 2000)], ident="c"), record(2100, ident="d")]
    table = ctg_windows(recordings, ["normal", "normal", "high-risk", None], CtgRules(window=SHORT))
    assert (table.recording.tolist(), table.start.tolist(), table.stop.tolist()) == ([0], [1600], [2000])
    assert table.label.tolist() == ["normal"]
    assert table.dropped == {"too_short": 1, "invalid": 1, "no_label": 1}
    assert [str(p) for p in table.problems] == ["b: 75 s hold no window of 100 s at last_valid"]


def test_a_missing_channel_is_named() -> None:
    with pytest.raises(DataError, match="channel 'UC' is missing, there are FHR or TOCO"):
        ctg_clean(replace(record(), channels=("FHR", "TOCO")))


@pytest.mark.parametrize("position", ["lastvalid", "start:", "start:-3", "first"])
def test_an_unknown_choice_of_windows_is_refused(position: str) -> None:
    with pytest.raises(SpecError, match="expected last_valid, last, all or start:SECONDS"):
        validate_as(CtgWindowRule, {"position": position})


def test_a_count_of_zero_windows_is_refused() -> None:
    with pytest.raises(SpecError, match="count"):
        validate_as(CtgWindowRule, {"count": 0})

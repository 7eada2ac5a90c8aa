from __future__ import annotations

import numpy as np
import pytest

from phoropter.core.errors import DataError, SpecError
from phoropter.core.spec import validate_as
from phoropter.results.metrics.registry import compute_metrics
from phoropter.signals.recording import Events, Recording, Span, codes_to_spans
from phoropter.signals.windows import (
    WindowRule,
    event_windows,
    extract_windows,
    find_flat_windows,
    make_window_table,
    sliding_windows,
)

STRIDE2 = WindowRule(length_s=5, step_s=2)
GAP2 = WindowRule(length_s=5, gap_s=2)


@pytest.mark.parametrize(("rule", "step"), [(STRIDE2, "2 s"), (GAP2, "7 s")])
def test_a_window_of_less_than_a_sample_is_refused_with_the_rate(rule: WindowRule, step: str) -> None:
    """As where times in ms were read as seconds."""
    with pytest.raises(SpecError, match=f"length 5 s and step {step} should both be .* which at 0.05 Hz takes 20 s: .*time .ms."):
        rule.length_and_step(0.05)


def labelled(codes: np.ndarray, rate_hz: float = 700.0, ident: str = "a") -> Recording:
    spans = codes_to_spans(codes, {1: "one", 2: "two"}, [0], ident)
    return Recording(ident, ident, np.arange(len(codes), dtype=np.float32)[None], ("ECG",), ("mV",), rate_hz, spans=spans)


def test_starts_of_windows_by_step_and_by_gap() -> None:
    codes = np.repeat([0, 1, 2, 1], [700, 7000, 3500, 3499])
    stride, gap = sliding_windows([labelled(codes)], STRIDE2), sliding_windows([labelled(codes)], GAP2)
    assert stride.start.tolist() == [700, 2100, 3500, 7700]
    assert stride.label.tolist() == ["one", "one", "one", "two"]
    assert gap.start.tolist() == [700, 7700]
    assert (stride.stop - stride.start == 3500).all()


@pytest.mark.parametrize(("seconds", "stride", "gap"), [(1200, 598, 171), (684, 340, 98), (392, 194, 56)])
def test_counts_of_windows_of_wesad(seconds: int, stride: int, gap: int) -> None:
    one = labelled(np.ones(seconds * 700, int))
    assert (len(sliding_windows([one], STRIDE2)), len(sliding_windows([one], GAP2))) == (stride, gap)


@pytest.mark.parametrize(
    ("counts", "accuracy", "macro_f1"), [((8927 + 2908, 5107), 0.699, 0.411), ((8927, 5107, 2908), 0.527, 0.230)]
)
def test_the_share_of_the_most_frequent_class(counts: tuple[int, ...], accuracy: float, macro_f1: float) -> None:
    """Counted over the windows of all 15 subjects of WESAD, with steps of 2 s."""
    labels = np.repeat(np.arange(len(counts)), counts)
    said = np.eye(len(counts))[np.zeros(len(labels), dtype=int)]
    found = compute_metrics(("accuracy", "macro_f1"), labels, said)
    assert found["accuracy"] == pytest.approx(accuracy, abs=5e-4) and found["macro_f1"] == pytest.approx(macro_f1, abs=5e-4)


def test_windows_stay_inside_their_run_and_equal_the_literal_loop() -> None:
    rng = np.random.default_rng(0)
    codes = np.repeat(rng.integers(0, 3, 40), rng.integers(1, 60, 40))
    table = sliding_windows([labelled(codes, 10.0)], WindowRule(length_s=1, step_s=0.3))
    expected = []
    begin = 0
    while begin < len(codes):  # walk the label changes, then the windows inside each run
        end = begin
        while end < len(codes) and codes[end] == codes[begin]:
            end += 1
        at = begin
        while codes[begin] and at + 10 <= end:
            expected.append((at, {1: "one", 2: "two"}[codes[begin]]))
            at += 3
        begin = end
    assert list(zip(table.start.tolist(), table.label.tolist(), strict=True)) == expected


def test_labels_become_classes_and_others_are_left_out() -> None:
    table = sliding_windows([labelled(np.repeat([1, 2, 1], 3500))], STRIDE2, {"two": "stress"})
    assert table.label.tolist() == ["stress"]
    assert table.start.tolist() == [3500]


def test_two_labels_of_one_class_do_not_make_one_run() -> None:
    table = sliding_windows([labelled(np.repeat([1, 2], 2000))], STRIDE2, {"one": "calm", "two": "calm"})
    assert len(table) == 0


def test_windows_with_nan_are_dropped_and_counted() -> None:
    one = labelled(np.ones(10000, int))
    one.samples[0, 3400] = np.nan
    table = sliding_windows([one], STRIDE2)
    assert table.start.tolist() == [4200, 5600]
    assert table.dropped == {"nan": 3}


def test_only_the_chosen_channels_can_drop_a_window() -> None:
    samples = np.zeros((2, 4000), np.float32)
    samples[1] = np.nan
    two = Recording("a", "a", samples, ("ECG", "EDA"), ("mV", "uS"), 700.0, label="x")
    assert len(sliding_windows([two], STRIDE2)) == 0
    assert len(sliding_windows([two], STRIDE2, channels=("ECG",))) == 1


def test_a_recording_shorter_than_a_window_is_listed() -> None:
    table = sliding_windows([labelled(np.ones(3499, int), ident="short"), labelled(np.ones(3500, int), ident="long")], STRIDE2)
    assert table.recording.tolist() == [1]
    assert [str(p) for p in table.problems] == ["short: 4.99857 s is shorter than one window of 5 s"]


def test_recordings_of_two_rates_are_refused() -> None:
    both = [labelled(np.ones(4000, int), ident="a"), labelled(np.ones(4000, int), 500.0, "b")]
    with pytest.raises(DataError, match=r"recording b: its rate is 500 Hz, that of recording a 700 Hz"):
        sliding_windows(both, STRIDE2)


def test_a_class_none_of_whose_labels_occurs_is_refused() -> None:
    with pytest.raises(DataError, match=r"class 's': no recording has the label tow; .* did you mean 'two'"):
        sliding_windows([labelled(np.repeat([1, 2], 3500))], STRIDE2, {"one": "b", "tow": "s"})


@pytest.mark.parametrize(
    "rule",
    [
        {"length_s": 5},
        {"length_s": 5, "step_s": 2, "gap_s": 2},
        {"length_s": 5, "step_s": 0},
        {"length_s": 0, "step_s": 1},
        {"length_s": float("nan"), "step_s": 1},
        {"length_s": 5, "step_s": 1, "stride": 1},
    ],
)
def test_rules_that_make_no_windows_are_refused(rule: dict[str, float]) -> None:
    with pytest.raises(SpecError):
        validate_as(WindowRule, rule)


def test_a_step_less_than_a_sample_is_refused() -> None:
    with pytest.raises(SpecError, match="at least one sample"):
        sliding_windows([labelled(np.ones(4000, int))], WindowRule(length_s=5, step_s=0.0001))


def beats(at: list[int], symbols: list[str]) -> Recording:
    events = Events(np.array(at, np.int64), np.array(symbols))
    return Recording("100", "100", np.arange(1000, dtype=np.float32)[None], ("MLII",), ("mV",), 100.0, events=events)


def test_a_window_is_centred_on_each_event() -> None:
    table = event_windows([beats([100, 500], ["N", "V"])], 0.7)
    assert table.start.tolist() == [65, 465]
    assert table.stop.tolist() == [135, 535]
    assert table.label.tolist() == ["N", "V"]


def test_events_too_near_the_edges_are_counted() -> None:
    table = event_windows([beats([34, 35, 965, 966], ["N"] * 4)], 0.7)
    assert table.start.tolist() == [0, 930]
    assert table.dropped == {"edge": 2}


def test_events_of_other_labels_are_left_out() -> None:
    assert event_windows([beats([100, 500], ["N", "V"])], 0.7, {"V": "ectopic"}).label.tolist() == ["ectopic"]


def test_event_windows_need_events() -> None:
    with pytest.raises(DataError, match="it has no events"):
        event_windows([labelled(np.ones(4000, int))], 0.7)


def test_extracted_windows_are_the_samples_of_their_rows() -> None:
    recordings = [labelled(np.ones(5000, int), ident="a"), labelled(np.full(5000, 2), ident="b")]
    table = sliding_windows(recordings, STRIDE2)
    pieces = extract_windows(recordings, table, np.array([1, 2]), ("ECG",))
    assert pieces.shape == (2, 1, 3500)
    assert pieces[:, 0, 0].tolist() == [1400, 0]


def test_spans_take_precedence_over_the_label_of_the_recording() -> None:
    one = Recording("a", "a", np.zeros((1, 100), np.float32), ("E",), ("",), 10.0, label="whole", spans=(Span(0, 50, "part"),))
    assert set(sliding_windows([one], WindowRule(length_s=1, step_s=1)).label) == {"part"}


def test_flat_windows_are_found() -> None:
    samples = np.concatenate([np.arange(10), np.full(10, 5), [5, 6], np.full(8, np.nan)]).astype(np.float32)
    recording = Recording("a", "a", samples[None], ("ECG",), ("mV",), 1.0)
    table = make_window_table([(0, 0, "x"), (0, 5, "x"), (0, 10, "x"), (0, 16, "x"), (0, 24, "x"), (0, -2, "x")], 6, {})
    assert find_flat_windows([recording], table, "ECG").tolist() == [False, False, True, False, False, False]

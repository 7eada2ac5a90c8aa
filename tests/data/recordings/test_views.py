"""Views: which settings decide windows and which decide images, and what a bundle records of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from phoropter.core.errors import DataError
from phoropter.core.spec import validate_as
from phoropter.data.recordings.bundle_view import BundleView, get_bundle_view
from phoropter.data.recordings.dataset import render_recordings
from phoropter.data.recordings.views import UNKNOWN_CLASS, ChannelView, CtgView, RecordingView
from phoropter.signals.ctg import CtgFilter, CtgRules, CtgWindowRule
from phoropter.signals.recording import Recording
from phoropter.signals.render import CtgPlot, Spectrogram, Trace
from phoropter.signals.windows import WindowRule

ECG = ChannelView(channel="ECG", representation=Spectrogram(size=32), rule=WindowRule(length_s=5, step_s=5))
CTG = CtgView(representation=CtgPlot(size=32))


@pytest.mark.parametrize(
    ("view", "changed", "windows", "images"),
    [
        (ECG, {"representation": Trace(size=32)}, False, True),
        (ECG, {"grey_scale": "per-subject"}, False, True),
        (ECG, {"rule": WindowRule(length_s=4, step_s=5)}, True, False),
        (ECG, {"labels": {"stress": "stress"}}, True, False),
        (ECG, {"classes": ("stress", "baseline")}, False, False),
        (CTG, {"representation": CtgPlot(size=32, style="area")}, False, True),
        (CTG, {"clean": CtgRules(filter=CtgFilter(fhr_lowpass=5))}, False, True),
        (CTG, {"clean": CtgRules(window=CtgWindowRule(position="all"))}, True, False),
        (CTG, {"outcome": "pH<=7.15"}, True, False),
    ],
)
def test_settings_decide_windows_or_images(view: RecordingView, changed: dict[str, object], windows: bool, images: bool) -> None:
    other = view.with_changes(**changed)
    assert (other.window_settings != view.window_settings) == windows
    assert (other.image_settings != view.image_settings) == images


def test_a_bundle_records_the_view_and_the_rate(people: list[Recording], births: list[Recording]) -> None:
    for recordings, view, rate_hz in ((people, ECG, 100.0), (births, CTG.with_changes(outcome="pH<=7.25"), 4.0)):
        recorded = get_bundle_view(render_recordings(recordings, view))
        assert recorded is not None and (recorded.view, recorded.rate_hz) == (view, rate_hz)
        assert validate_as(BundleView, recorded.plain()) == recorded


def test_recordings_without_a_label_are_cut_from_beginning_to_end_where_that_is_wanted(people: list[Recording]) -> None:
    bare = replace(people[0], spans=(), label=None)
    assert ECG.build_window_table([bare], unknown=False).dropped == {"no_label": 1}
    table = ECG.build_window_table([bare], unknown=True)
    assert table.start.tolist() == list(range(0, bare.length - 499, 500)) and set(table.label) == {UNKNOWN_CLASS}


def test_a_view_names_what_a_recording_lacks(people: list[Recording], births: list[Recording]) -> None:
    with pytest.raises(DataError, match="channel 'ECG' is missing, there are FHR or UC"):
        ECG.check_recording(births[0])
    with pytest.raises(DataError, match="it has no events, so no window can be centred on one"):
        ECG.with_changes(rule=None, event_s=0.8).check_recording(people[0])
    with pytest.raises(DataError, match="channel 'FHR' is missing, there are ECG"):
        CTG.check_recording(people[0])


def test_missing_samples_are_counted(births: list[Recording]) -> None:
    samples = births[0].samples.copy()
    samples[0] = 140.0
    samples[0, : births[0].length // 4] = 0.0  # below the range of a heart rate
    assert CTG.missing_fraction(replace(births[0], samples=samples)) == pytest.approx(0.25)

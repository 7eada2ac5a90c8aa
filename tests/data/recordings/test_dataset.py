"""Windows of recordings as a Dataset: rows, labels, images equal to direct rendering, what is refused, and what is left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.data.dataset import UNLABELLED
from phoropter.data.images.cache import prepare_pixels
from phoropter.data.inspect import summarize_dataset
from phoropter.data.recordings.dataset import RenderedPictures, render_recordings, subsample_windows
from phoropter.data.recordings.views import ChannelView, CtgView
from phoropter.signals.clean import fhr_baseline, fhr_clean, lowpass_filter, uc_clean
from phoropter.signals.ctg import CtgFilter, CtgRules, CtgWindowRule
from phoropter.signals.recording import Events, LoadedRecordings, Recording, Span
from phoropter.signals.render import CtgPlot, Spectrogram, Trace, render_windows
from phoropter.signals.windows import WindowRule

RATE = 100.0
SMALL = Spectrogram(size=32)


def channel_view(**changes: Any) -> ChannelView:
    return ChannelView(**{"channel": "ECG", "representation": SMALL, "rule": WindowRule(length_s=5, step_s=2), **changes})


def flat(name: str, n: int = 1000, **fields: Any) -> Recording:
    samples = np.random.default_rng(n).normal(size=(1, n)).astype(np.float32)
    return Recording(name, name, samples, ("ECG",), ("mV",), fields.pop("rate_hz", RATE), **fields)


# --- rows ---------------------------------------------------------------------------------------------------------------


def test_a_row_is_a_window(people: list[Recording]) -> None:
    dataset = render_recordings(people, channel_view(classes=("baseline", "stress", "amusement")))
    assert len(dataset) == 3 * (13 + 9 + 4)  # floor((L - 5) / 2) + 1 of 30, 21 and 12 s
    assert dataset.classes == ("baseline", "stress", "amusement") and dataset.class_counts.tolist() == [39, 27, 12]
    assert dataset.groups is not None and dataset.sites is not None and dataset.spans is not None
    for row in range(len(dataset)):
        person, begins = str(dataset.ids[row]).split("@")
        start, stop = dataset.spans[row]
        assert dataset.groups[row] == dataset.recordings[row] == person and dataset.sites[row] == "simulator"  # type: ignore[index]
        assert float(begins) == start == stop - 5
        span = next(s for s in people[int(person[3:]) - 1].spans if s.start <= start * RATE < s.stop)
        assert dataset.classes[dataset.labels[row]] == span.label and stop * RATE <= span.stop
    assert dataset.ids.tolist() == sorted(dataset.ids.tolist())


def test_births_are_labelled_by_their_outcome(births: list[Recording]) -> None:
    undecided = replace(births[0], outcome={"pH": None, "Apgar1": 8.0, "Apgar5": 9.0})
    dataset = render_recordings([undecided, *births[1:]], CtgView(outcome="pH<=7.25", representation=CtgPlot(size=32)))
    assert dataset.recordings is not None and undecided.id not in dataset.recordings
    by_id = {r.id: r for r in births}
    for row, name in enumerate(dataset.recordings):
        assert dataset.labels[row] == (by_id[name].outcome["pH"] <= 7.25)  # type: ignore[operator]
    assert any("1 (recordings whose class is unknown)" in note for note in dataset.notes)
    assert set(dataset.sites) == {"hospital-1", "hospital-2", "unseen-1"}  # type: ignore[arg-type]


def test_recordings_without_a_class_can_be_predicted_and_not_trained_on(people: list[Recording], births: list[Recording]) -> None:
    bare = [replace(r, label=None, spans=(), outcome={}) for r in (people[0], births[0])]
    for recording, view in ((bare[0], channel_view(labels={"stress": "stress"})), (bare[1], CtgView(outcome="apgar<=6"))):
        dataset = render_recordings([recording], view, unknown=True)
        assert (dataset.labels == UNLABELLED).all()
        with pytest.raises(DataError, match=r"gives a window|has the label"):
            render_recordings([recording], view)


def test_a_window_for_each_event() -> None:
    beats = Events(np.array([10, 300, 500, 999]), np.array(["N", "V", "N", "V"]))
    view = channel_view(rule=None, event_s=0.8, labels={"N": "normal", "V": "ventricular"}, representation=Trace(size=32))
    dataset = render_recordings([flat("a", events=beats)], view)
    assert dataset.ids.tolist() == ["a@2.600", "a@4.600"]
    assert "left out: 2 (events too near to an end of the recording)" in dataset.notes


# --- pictures -----------------------------------------------------------------------------------------------------------


def test_an_image_equals_its_rendered_window(people: list[Recording]) -> None:
    dataset = render_recordings(people, channel_view())
    for row in (0, 30, len(dataset) - 1):
        start = round(dataset.spans[row, 0] * RATE)  # type: ignore[index]
        person = next(r for r in people if r.id == dataset.groups[row])  # type: ignore[index]
        by_hand = render_windows(person.samples[:, start : start + 500], RATE, SMALL)[0]
        np.testing.assert_array_equal(dataset.read(row), np.repeat(by_hand[:, :, None], 3, axis=2))


def test_a_birth_is_cleaned_before_it_is_cut_filtered_and_rendered(births: list[Recording]) -> None:
    rules = CtgRules(window=CtgWindowRule(position="all", step_s=300, max_missing=1), filter=CtgFilter(fhr_lowpass=7))
    dataset = render_recordings(births[:3], CtgView(clean=rules, representation=CtgPlot(size=48)))
    assert dataset.recordings is not None and dataset.spans is not None and len(dataset) == 9
    row = 4
    birth, start = births[1], round(dataset.spans[row, 0] * 4)
    fhr, uc = fhr_clean(birth.channel("FHR")).values, uc_clean(birth.channel("UC")).values
    piece = np.stack([fhr, uc, fhr_baseline(fhr)])[None, :, start : start + 7200].astype(np.float32)
    piece[:, 0] = lowpass_filter(piece[:, 0], 7)
    np.testing.assert_array_equal(dataset.read(row), render_windows(piece, 4.0, CtgPlot(size=48))[0])


@pytest.mark.parametrize("grey_scale", ["per-image", "per-subject"])
def test_a_batch_of_images_equals_single_images(people: list[Recording], grey_scale: str) -> None:
    dataset = render_recordings(people, channel_view(grey_scale=grey_scale))
    rows = np.array([70, 3, 3, 41])
    batch = dataset.pictures.images(rows)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(batch, np.stack([dataset.read(int(row)) for row in rows]))


def test_the_grey_scale_of_a_subject_spans_all_of_its_windows(people: list[Recording]) -> None:
    shared = render_recordings(people, channel_view(representation=Trace(size=32), grey_scale="per-subject"))
    for row in (0, 30, 60):
        windows = np.flatnonzero(shared.groups == shared.groups[row])  # type: ignore[index]
        person = next(r for r in people if r.id == shared.groups[row]).samples[0]  # type: ignore[index]
        pieces = {int(i): person[(at := round(shared.spans[i, 0] * RATE)) : at + 500] for i in windows}  # type: ignore[index]
        low, high = (float(edge([edge(piece) for piece in pieces.values()])) for edge in (np.min, np.max))
        by_hand = render_windows(pieces[row][None], RATE, Trace(size=32, low=low, high=high))[0]
        np.testing.assert_array_equal(shared.read(row)[:, :, 0], by_hand)
    few = shared.select_rows(np.array([5, 60]))
    np.testing.assert_array_equal(few.read(1), shared.read(60))  # the scale spans all windows of the subject, selected or not


def test_cached_pixels_equal_rendered_images(people: list[Recording], tmp_path: Path) -> None:
    dataset, pixels = prepare_pixels(render_recordings(people, channel_view()), 32, cache=tmp_path)
    rendered = np.stack([dataset.read(row) for row in range(len(dataset))])
    np.testing.assert_array_equal(pixels.batch(np.arange(len(dataset))), rendered.transpose(0, 3, 1, 2))


class _OneBad(RenderedPictures):
    def images(self, rows: np.ndarray) -> np.ndarray:
        if 7 in self.index[rows]:
            raise DataError("row 7: broken")
        return super().images(rows)


def test_one_bad_image_does_not_spoil_its_batch(people: list[Recording], tmp_path: Path) -> None:
    good = render_recordings(people, channel_view())
    dataset = replace(good, pictures=_OneBad(good.pictures.windows, good.pictures.index))  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="row 7: broken"):
        prepare_pixels(dataset, 32, cache=tmp_path)
    kept, pixels = prepare_pixels(dataset, 32, cache=tmp_path, on_bad_input="skip")
    assert len(kept) == len(good) - 1 and good.ids[7] not in kept.ids
    np.testing.assert_array_equal(pixels.batch(np.array([7]))[0], good.read(8).transpose(2, 0, 1))


# --- identity -----------------------------------------------------------------------------------------------------------


def test_identity_depends_on_samples_and_view_and_not_on_names(people: list[Recording]) -> None:
    one = render_recordings(people, channel_view(), name="a").pictures
    again = render_recordings(LoadedRecordings([replace(r, id=f"x{r.id}") for r in people]), channel_view(), name="b").pictures
    rows = np.array([3, 40])
    assert one.identity(rows) == again.identity(rows) == one.select(rows).identity(np.array([0, 1]))


@pytest.mark.parametrize(
    "other",
    [
        channel_view(representation=Spectrogram(size=32, style="dense")),
        channel_view(representation=Spectrogram(size=48)),
        channel_view(grey_scale="per-subject"),
        channel_view(rule=WindowRule(length_s=4, step_s=2)),
    ],
)
def test_a_view_that_changes_images_changes_the_identity(people: list[Recording], other: ChannelView) -> None:
    assert render_recordings(people, channel_view()).content_digest != render_recordings(people, other).content_digest


def test_labels_do_not_change_the_identity_of_images(births: list[Recording]) -> None:
    made = [
        render_recordings(births, CtgView(outcome=rule, representation=CtgPlot(size=32)))
        for rule in ("pH<=7.25", "apgar<=6", None)
    ]
    assert len({d.content_digest for d in made}) == 1 and len({d.fingerprint for d in made}) > 1


def test_one_changed_sample_changes_the_identity(people: list[Recording]) -> None:
    touched = people[0].samples.copy()
    touched[0, 700] += 1e-3
    other = [replace(people[0], samples=touched), *people[1:]]
    assert render_recordings(people, channel_view()).content_digest != render_recordings(other, channel_view()).content_digest


def test_copied_windows_are_reported_as_duplicates(people: list[Recording]) -> None:
    copy = replace(people[0], id="copy", subject="copy")
    summary = summarize_dataset(render_recordings([*people, copy], channel_view()))
    assert len(summary.duplicates) == 26 and all(
        {name.split("@")[0] for name in same} == {"sim01", "copy"} for same in summary.duplicates
    )


# --- what cannot be used -------------------------------------------------------------------------------------------------


def unusable_recordings() -> dict[str, Recording]:
    noise = flat("noise", 3000, label="stress")
    return {
        "no heartbeat in the ECG": noise,
        "channel 'ECG' is missing": replace(noise, id="eda", channels=("EDA",)),
        "its rate is 250 Hz, that of most is 100 Hz": replace(noise, id="fast", rate_hz=250.0),
    }


@pytest.mark.parametrize("words", unusable_recordings())
def test_a_recording_that_cannot_be_used_stops_or_is_listed(people: list[Recording], words: str) -> None:
    bad = unusable_recordings()[words]
    view = channel_view(require_r_peaks="heartbeat" in words)
    with pytest.raises(DataError, match=f"recording {bad.id}: {words}.*; or say on_bad_input: skip"):
        render_recordings([*people, bad], view)
    dataset = render_recordings([*people, bad], view, on_bad_input="skip")
    assert [p.where for p in dataset.problems] == [bad.id] and words in dataset.problems[0].what
    assert len(dataset) == 78


def test_a_recording_shorter_than_a_window_stops_or_is_listed(people: list[Recording]) -> None:
    short = flat("short", 300, label="stress")
    with pytest.raises(DataError, match="recording short: 3 s is shorter than one window of 5 s; or say"):
        render_recordings([*people, short], channel_view())
    assert [p.where for p in render_recordings([*people, short], channel_view(), on_bad_input="skip").problems] == ["short"]


def test_windows_with_missing_samples_are_left_out_and_counted(people: list[Recording]) -> None:
    holed = people[0].samples.copy()
    holed[0, people[0].spans[0].start + 1] = np.nan
    dataset = render_recordings([replace(people[0], samples=holed), *people[1:]], channel_view())
    assert len(dataset) == 77 and "left out: 1 (windows with missing samples)" in dataset.notes


def test_a_dataset_without_windows_is_refused_with_the_reasons(births: list[Recording]) -> None:
    with pytest.raises(DataError, match=r"of its 12 recordings gives a window: 11 \(records without any heart rate\), 1 \("):
        silent = [replace(b, samples=b.samples * 0) for b in births[1:]]
        render_recordings([births[0], *silent], CtgView(clean=CtgRules(window=CtgWindowRule(max_missing=0))))


def test_recordings_shorter_than_a_window_are_refused_with_their_length(people: list[Recording]) -> None:
    short = [replace(p, samples=p.samples[:, :100], spans=(), label="a") for p in people]
    with pytest.raises(DataError, match=r"gives a window: sim01: 1 s is shorter than one window of 5 s"):
        render_recordings(short, channel_view(), on_bad_input="skip")


# --- fewer --------------------------------------------------------------------------------------------------------------


def test_a_subsample_of_windows_keeps_every_subject_and_class(people: list[Recording]) -> None:
    dataset = render_recordings(people, channel_view())
    few = subsample_windows(dataset, 30)
    assert len(few) <= 30 and len(set(few.groups)) == 3  # type: ignore[arg-type]
    assert all(((few.groups == name) & (few.labels == label)).sum() >= 2 for name in set(few.groups) for label in range(3))  # type: ignore[arg-type]
    starts = few.spans[(few.groups == "sim01") & (few.labels == few.labels[0]), 0]  # type: ignore[index]
    assert np.ptp(starts) >= 16  # spread over the 30 s of baseline
    assert set(subsample_windows(dataset, 30).ids) == set(few.ids) and subsample_windows(dataset, 1000) is dataset


def test_a_subsample_of_single_windows_leaves_recordings_out(births: list[Recording]) -> None:
    dataset = render_recordings(births, CtgView(clean=CtgRules(window=CtgWindowRule(max_missing=1)), outcome="pH<=7.25"))
    assert len(subsample_windows(dataset, 6)) == 6


# --- looking at them ------------------------------------------------------------------------------------------------------


def test_the_summary_counts_windows_and_seconds_of_each_subject(people: list[Recording]) -> None:
    summary = summarize_dataset(render_recordings(people, channel_view()))
    assert [r["windows"] for r in summary.recordings] == [26, 26, 26]
    text = str(summary)
    assert "recordings: 3, of 83 to 83 s (median 83), 100 Hz" in text
    assert "  sim01  83 s, 26 windows, amusement 12 s, baseline 30 s, stress 21 s" in text


def test_spans_that_touch_are_cut_as_one() -> None:
    one = flat("a", spans=(Span(0, 400, "x"), Span(400, 1000, "x")))
    other = flat("b", 1100, label="y")
    assert render_recordings([one, other], channel_view(rule=WindowRule(length_s=5, step_s=5))).class_counts.tolist() == [2, 2]


def test_flat_windows_and_what_reading_left_out_are_noted() -> None:
    lost = replace(flat("b", label="rest"), samples=np.concatenate([np.zeros(500), np.arange(500)])[None].astype(np.float32))
    many = [replace(flat(f"c{at}", label="rest"), notes=("gaps in time",)) for at in range(5)]
    notes = render_recordings([flat("a", label="stress"), lost, *many], channel_view()).notes
    assert "flat: ECG has one value throughout in 1 of 21 windows, of 1 recording (b); was the lead off?" in notes
    assert "gaps in time: in 5 recordings (c0, c1, c2 and 2 more)" in notes
    assert not [n for n in render_recordings([flat("a", label="stress")], channel_view()).notes if n.startswith("flat")]

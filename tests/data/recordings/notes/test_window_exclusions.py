"""The flow from recordings to rows, against counts that are made by hand or by other means than the windows'."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from phoropter.data.recordings.dataset import render_recordings, subsample_windows
from phoropter.data.recordings.in_memory import from_recordings
from phoropter.data.recordings.views import ChannelView
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.results.exclusions import ExclusionStep, make_step
from phoropter.signals.recording import Events, Recording, Span

WINDOW_S, RATE_HZ = 60, 1
MINUTES = {"short": 0.5, "gappy": 3, "late": 3, "nolabel": 3}


def write_births(folder: Path) -> Path:
    """16 births at 1 Hz as CSV files with a manifest: 8 of them are sound."""
    rng, lines = np.random.default_rng(0), ["path,rate_hz,outcome.pH"]
    kinds = ["sound"] * 8 + ["short", "short", "gappy", "late", "nolabel", "nolabel", "nolabel", "damaged"]
    for number, kind in enumerate(kinds):
        count = int(MINUTES.get(kind, 3) * 60)
        rate = rng.uniform(110, 150, count)
        rate[0 : {"gappy": count, "late": count // 3}.get(kind, 0)] = 0
        if kind == "gappy":
            rate[::10] = 130  # measured, now and then
        cells = ["FHR,UC", *(f"{a:.1f},10" for a in rate)] if kind != "damaged" else ["FHR,UC", "what,is this"]
        (folder / f"{number:02d}-{kind}.csv").write_text("\n".join(cells))
        lines.append(f"{number:02d}-{kind}.csv,{RATE_HZ},{'' if kind == 'nolabel' else 7.0 + 0.3 * (number % 2)}")
    (folder / "births.csv").write_text("\n".join(lines))
    return folder / "births.csv"


def open_births(folder: Path) -> tuple[ExclusionStep, ...]:
    window = {"length_s": WINDOW_S, "position": "all", "max_missing": 0.5, "short": "reject"}
    spec = {"recordings": write_births(folder), "outcome": "pH<=7.15", "clean": {"window": window}, "on_bad_input": "skip"}
    return open_dataset(DataSpec.model_validate(spec)).exclusions


def test_a_folder_of_births_is_counted_step_by_step(tmp_path: Path) -> None:
    recordings, windows = open_births(tmp_path)
    files = [path.stem for path in tmp_path.glob("*-*.csv")]
    assert recordings.unit == "recordings" and recordings.found == len(files) == 16
    assert dict(recordings.left_out) == {
        "cannot be read, or of another rate": 1,
        "of unknown class": 3,
        "shorter than a window": 2,
        "more missing than allowed in every window": 1,
    }
    assert recordings.kept == recordings.groups == 9
    assert windows == make_step("windows", 8 * 3 + 2, {"more missing than allowed": 1}, 9), (
        "the late record lost its first minute"
    )


def sampled(name: str, samples: np.ndarray, **more: object) -> Recording:
    return Recording(name, name, samples[None].astype(np.float32), ("ECG",), ("mV",), 1.0, **more)  # type: ignore[arg-type]


def test_sliding_windows_tell_why_a_recording_has_none() -> None:
    wave, broken, late = np.sin(np.arange(60.0)), np.full(60, np.nan), np.sin(np.arange(60.0))
    broken[::5], late[25:] = 1.0, np.nan
    people = [
        sampled("calm", wave, label="calm"),
        sampled("tense", late, label="tense"),
        sampled("broken", broken, label="calm"),
        sampled("unnamed", wave),
        sampled("pieces", wave, spans=(Span(0, 5, "calm"), Span(20, 25, "tense"))),
    ]
    found = from_recordings(people, window={"length_s": 10, "gap_s": 0}, channel="ECG", size=16)
    assert found.exclusions == (
        make_step(
            "recordings",
            2,
            {"of unknown class": 1, "no stretch of one class is as long as a window": 1, "samples missing in every window": 1},
            2,
        ),
        make_step("windows", 8, {"samples missing": 4}, 2),
    ), "of the two, 6 windows are whole in one and 2 in the other"


def test_events_near_an_end_and_missing_samples_are_told_apart() -> None:
    wave, hole = np.sin(np.arange(60.0)), np.sin(np.arange(60.0))
    hole[28:32] = np.nan

    def beats(*at: int) -> Events:
        return Events(np.array(at), np.array(["N" if place % 2 else "V" for place in at]))

    people = [
        sampled("whole", wave, events=beats(1, 20, 31, 45)),
        sampled("ends", wave, events=beats(1, 59)),
        sampled("hole", hole, events=beats(1, 30)),
    ]
    recordings, windows = render_recordings(people, ChannelView(channel="ECG", rule=None, event_s=10.0)).exclusions
    assert dict(recordings.left_out) == {"events too near to an end alone": 1, "samples missing in every window": 1}
    assert windows == make_step("windows", 3, {"event too near to an end of the recording": 1}, 1)


def test_a_cut_to_so_many_windows_is_a_step_of_its_own(tmp_path: Path) -> None:
    people = [sampled(f"p{i}", np.sin(np.arange(60.0) + i), label="calm" if i % 2 else "tense") for i in range(4)]
    found = from_recordings(people, window={"length_s": 10, "gap_s": 0}, channel="ECG", size=16)
    smaller = subsample_windows(found, 9)
    assert smaller.exclusions == (
        *found.exclusions,
        make_step("windows", len(smaller), {"beyond max_samples of 9": 24 - len(smaller)}, smaller.n_groups),
    )
    assert subsample_windows(found, 24).exclusions == found.exclusions

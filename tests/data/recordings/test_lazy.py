"""Recordings that are loaded when first used: once for all variants of a sweep, and again in another process."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from phoropter.data.recordings import lazy
from phoropter.data.recordings.dataset import render_recordings
from phoropter.data.recordings.lazy import LazyRecordings, memoize_recordings
from phoropter.data.recordings.views import CtgView
from phoropter.signals.ctg import CtgFilter, CtgRules, CtgWindowRule
from phoropter.signals.recording import LoadedRecordings, Recording
from phoropter.signals.render import CtgPlot
from phoropter.signals.simulate import EcgCohort, ecg_simulate

loads: list[str] = []


def load_people(name: str) -> LoadedRecordings:
    loads.append(name)
    return LoadedRecordings(ecg_simulate(EcgCohort(subjects=1, rate_hz=50, baseline_s=5, stress_s=5, amusement_s=5)))


@pytest.fixture(autouse=True)
def _no_loads_yet() -> None:
    loads.clear()


def test_recordings_are_loaded_once_and_not_pickled() -> None:
    recordings = LazyRecordings(load_people, "a")
    assert not loads
    assert recordings.loaded is recordings.loaded and loads == ["a"]
    copy: LazyRecordings = pickle.loads(pickle.dumps(recordings))  # noqa: S301  our own
    assert loads == ["a"]
    first, again = recordings.loaded.recordings[0], copy.loaded.recordings[0]
    assert loads == ["a", "a"] and recordings.digest_recording(first) == copy.digest_recording(again)


def test_a_changed_file_beside_the_recordings_loads_them_again(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("one")
    first = memoize_recordings("key", tmp_path, load_people, "a")
    assert memoize_recordings("key", tmp_path, load_people, "a") is first and loads == ["a"]
    (tmp_path / "manifest.csv").write_text("another")
    assert memoize_recordings("key", tmp_path, load_people, "a") is not first and loads == ["a", "a"]


def test_few_sets_of_recordings_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "MAX_MEMOIZED", 1)
    first = memoize_recordings("one", None, load_people, "one")
    memoize_recordings("two", None, load_people, "two")
    assert memoize_recordings("one", None, load_people, "one") is not first


def test_variants_of_a_sweep_share_loaded_recordings_and_windows(births: list[Recording]) -> None:
    calls: list[int] = []

    def load() -> LoadedRecordings:
        calls.append(1)
        return LoadedRecordings(list(births))

    shared = LazyRecordings(load)
    windows = [CtgWindowRule(position=position, max_missing=1) for position in ("last", "last_valid")]
    rules = [CtgRules(window=window, filter=CtgFilter(fhr_lowpass=k)) for window in windows for k in (1, 9)]
    datasets = [render_recordings(shared, CtgView(clean=r, representation=CtgPlot(size=32))) for r in rules]
    assert calls == [1] and len({d.content_digest for d in datasets}) == 4
    separate = [render_recordings(births, CtgView(clean=r, representation=CtgPlot(size=32))) for r in rules]
    assert [d.fingerprint for d in datasets] == [d.fingerprint for d in separate]
    assert datasets[0].ids.tolist() == datasets[1].ids.tolist() != datasets[2].ids.tolist()

"""`shift` asked for after the runs were finished: kept models are loaded, others trained again, and the answers are the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from phoropter.results.shift.answer_file import load_shift_answers
from phoropter.results.store import Store
from phoropter.study.executors import execute_study
from phoropter.study.progress import ProgressEvent
from phoropter.study.spec import read_study
from phoropter.study.worker import ComputeOptions

STUDY = """\
name: later
data: {digits: true, size: 32, max_samples: 60}
protocol: {split: stratified-k-fold, folds: 2, seeds: [0]}
candidates:
  - {backbone: test_resnet, weights: random, frozen: true, recipe: {preset: probe, epochs: 2}, name: frozen}
  - {backbone: test_resnet, weights: random, recipe: {preset: scratch, epochs: 1}, name: trained}
  - {baseline: mean-image}
  - {fuse: [frozen, trained], mode: ensemble, name: both}
"""
Answers = dict[str, dict[str, np.ndarray]]


def run(folder: Path, shift: str) -> tuple[Answers, list[ProgressEvent], Store]:
    (folder / "study.yaml").write_text(STUDY + shift)
    events: list[ProgressEvent] = []
    study = read_study(folder / "study.yaml")[0]
    store = execute_study(study, folder / "out", events.append, options=ComputeOptions("cpu", threads=1))
    answers = {}
    for one in store.runs():
        predictions = one.load_predictions()
        assert predictions is not None
        answers[one.key] = load_shift_answers(store.folder, one.key, predictions.logits)
    return answers, events, store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("later")


def test_answers_asked_for_later_are_those_of_a_study_that_had_them_at_once(folder: Path) -> None:
    none, _, store = run(folder, "")
    assert not any(none.values())
    bundles = [one.key for one in store.runs() if one.bundle_folder]
    assert 0 < len(bundles) < 4  # those of the first runs are kept
    later, events, _ = run(folder, "shift: {blur: 2}\n")
    started = [e.title for e in events if e.kind == "start"]
    assert started and all("on corrupted rows" in title for title in started if "because" not in title)
    assert all(len(found) == 1 for found in later.values()) and len(later) == 8
    again, events, _ = run(folder, "shift: {blur: 2}\n")
    assert not [e for e in events if e.kind == "start"] and again.keys() == later.keys()
    more, _, _ = run(folder, "shift: {blur: [2, 3]}\n")
    assert all(len(found) == 2 for found in more.values())
    shutil.rmtree(folder / "out")
    at_once, events, _ = run(folder, "shift: {blur: [2, 3]}\n")
    assert not [e for e in events if "on corrupted rows" in e.title and e.kind == "start"]
    for key, found in at_once.items():
        for name, logits in found.items():
            np.testing.assert_allclose(more[key][name], logits, rtol=1e-4, atol=1e-4)


def test_a_run_that_cannot_be_evaluated_is_told_and_the_others_go_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(folder, "")

    def fail_to_fit(*args: object) -> object:
        raise ValueError("no more")

    monkeypatch.setattr("phoropter.study.finished.complete_shifts.fit_table", fail_to_fit)
    found, events, store = run(folder, "shift: {blur: 4}\n")
    failed = [e for e in events if e.kind == "failed"]
    assert len(failed) == 2 and {e.note["error"] for e in failed} == {"no more"}
    lacking = {one.candidate_name for one in store.runs() if not any(key.startswith("blur 4") for key in found[one.key])}
    assert lacking == {"mean-image"}
    monkeypatch.undo()
    found, _, _ = run(folder, "shift: {blur: 4}\n")
    assert all(any(key.startswith("blur 4") for key in answers) for answers in found.values())

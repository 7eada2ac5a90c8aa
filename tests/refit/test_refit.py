"""From a finished study to a bundle: it predicts raw files as the study's own evaluation does, for every kind of candidate."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import phoropter as ph
from phoropter.cli import main
from phoropter.core.errors import DiskError, SpecError, StoreError
from phoropter.refit.finished_study import open_finished_study
from phoropter.refit.made_classifier import find_kept_folders, list_answering_runs
from phoropter.refit.refit import RefitOptions, refit_candidate
from phoropter.refit.train_all import FullTrainer
from phoropter.results.metrics.probabilities import softmax
from phoropter.results.store import Store
from phoropter.signals.recording import Recording
from phoropter.signals.simulate import ctg_simulate, ecg_simulate
from phoropter.training.candidates.refit_record import RefitRecord
from phoropter.training.fit import predict_rows
from phoropter.training.train import train_candidate
from small_pictures import run_small_study
from small_recordings import BIRTHS, PEOPLE

CPU = torch.device("cpu")
TRAINED = ["single", "vit", "probe", "solved", "logits", "concat", "warm", "student", "token"]
RECORDINGS = {
    "people": lambda: ecg_simulate(PEOPLE),
    "births": lambda: ctg_simulate(BIRTHS),
}
Refit = Callable[..., RefitRecord]
SWEPT = """\
name: swept
data: {digits: true, max_samples: 60}
protocol: {split: stratified-k-fold, folds: 2, seeds: [0]}
recipe: {preset: scratch, epochs: 1}
sweep: {data.size: [32, 48]}
candidates:
  - {name: one, backbone: test_resnet, weights: random}
  - {name: two, backbone: test_vit, weights: random}
  - {name: solved, backbone: test_vit, weights: random, frozen: true, recipe: logistic}
  - {name: student, student: test_vit, weights: random, teacher: solved, loss: soft}
  - {name: warm, fuse: [one, two], warm_start: true}
  - {name: average, fuse: [one, two], mode: ensemble}
  - {name: flat, backbone: test_resnet, weights: random, frozen: true, recipe: logistic}
  - {name: chosen, fuse: [solved, flat], mode: select}
  - {name: table, baseline: mean-image}
  - {name: joined, fuse: [table, one], mode: ensemble}
"""


def evaluate_in_study(store: Store, name: str, work: Path) -> dict[str, np.ndarray[tuple[int], np.dtype[np.float32]]]:
    """Id → logits of a candidate trained on all rows, by the study's own path: its pixels, its function of evaluation."""
    study = open_finished_study(store.folder, lambda event: None)
    run, trained = FullTrainer(study, CPU, work, lambda event: None).train_on_all(name)
    logits, _ = predict_rows(trained, run.split.train)
    return dict(zip(run.image_set.dataset.ids[run.split.train].tolist(), logits, strict=True))


@pytest.mark.parametrize("name", TRAINED)
def test_a_classifier_of_all_pictures_predicts_files_as_the_study_would(
    shapes: Store, refit: Refit, tmp_path: Path, name: str
) -> None:
    record = refit(shapes, tmp_path / "bundle", name)
    model = ph.load(tmp_path / "bundle")
    (tmp_path / "work").mkdir()
    expected = evaluate_in_study(shapes, name, tmp_path / "work")
    predicted = model.predict(shapes.folder.parent / "pictures", device="cpu")
    assert len(predicted.logits) == len(expected) == record.n_rows == 24
    for row, sample in enumerate(predicted.dataset.ids.tolist()):
        np.testing.assert_allclose(predicted.logits[row], expected[sample], rtol=0, atol=2e-5)
    assert any("24 of 24 have ids of rows" in note for note in predicted.notes)


def test_an_average_of_candidates_is_that_of_its_members_trained_on_all_pictures(
    shapes: Store, refit: Refit, tmp_path: Path
) -> None:
    """By the study's rule: the mean of the probabilities of its members, each with its own views."""
    record = refit(shapes, tmp_path / "bundle", "average")
    predicted = ph.load(tmp_path / "bundle").predict(shapes.folder.parent / "pictures", device="cpu")
    (tmp_path / "work").mkdir()
    members = [evaluate_in_study(shapes, name, tmp_path / "work") for name in ("single", "vit")]
    assert record.n_models == 2 and record.epochs.keys() == {"single", "vit"} and record.evidence.candidate == "average"
    for row, sample in enumerate(predicted.dataset.ids.tolist()):
        expected = np.mean([softmax(member[sample][None]) for member in members], axis=0)[0]
        np.testing.assert_allclose(softmax(predicted.logits[row][None])[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["people", "births"])
def test_a_classifier_of_all_recordings_predicts_them_as_the_study_would(
    signals: dict[str, Store], refit: Refit, tmp_path: Path, name: str
) -> None:
    store = signals[name]
    refit(store, tmp_path / "bundle", None)
    (tmp_path / "work").mkdir()
    expected = evaluate_in_study(store, "cnn" if name == "people" else "bags", tmp_path / "work")
    recordings: list[Recording] = RECORDINGS[name]()
    predicted = ph.load(tmp_path / "bundle").predict(recordings, device="cpu", on_bad_input="skip")
    place = {sample: row for row, sample in enumerate(predicted.dataset.ids.tolist())}
    assert expected.keys() <= place.keys() and len(expected) > 10
    for sample, logits in expected.items():
        np.testing.assert_allclose(predicted.logits[place[sample]], logits, rtol=0, atol=2e-5)


def test_what_a_candidate_of_a_sweep_needs_is_found_under_its_longer_name(refit: Refit, tmp_path: Path) -> None:
    """A candidate says `teacher: solved`, and its runs were taught by `solved · size 32`."""
    store = run_small_study(tmp_path, SWEPT)
    for name, trained in (("student", {"solved", "student"}), ("warm", {"one", "two", "warm"}), ("average", {"one", "two"})):
        record = refit(store, tmp_path / name, f"{name} · size 32")
        assert record.epochs.keys() == {f"{each} · size 32" for each in trained}
    assert refit(store, tmp_path / "folds", "average · size 32", how="folds").n_models == 4
    weights = [each["weight"] for run in store.runs() for each in run.record.get("selection", {"members": []})["members"]]
    assert len(weights) == 8 and sum(weights) == pytest.approx(4), "of two members at two sizes on two splits"
    assert refit(store, tmp_path / "chosen", "chosen · size 48").n_models in (1, 2)
    for how in ("all", "folds"):
        with pytest.raises(SpecError, match=r"'joined · size 48' averages 'table · size 48', which has no network \(baseline\)"):
            refit(store, tmp_path / "no", "joined · size 48", how=how)


def test_the_epochs_are_the_median_of_those_selected(shapes: Store, refit: Refit, tmp_path: Path) -> None:
    record = refit(shapes, tmp_path / "bundle", "single")
    chosen = sorted(r.record["choice"]["epoch"] for r in shapes.runs() if r.candidate_name == "single")
    assert len(chosen) == 2 and record.epochs == {"single": chosen[1]}  # of two, the later


def test_training_that_ends_early_is_the_beginning_of_the_complete_training(shapes: Store, tmp_path: Path) -> None:
    study = open_finished_study(shapes.folder, lambda event: None)
    _, complete = FullTrainer(study, CPU, tmp_path, lambda event: None).train_on_all("vit")
    training = train_candidate(replace(complete.task, last_epoch=1))
    while True:
        try:
            next(training)
        except StopIteration as stop:
            ended = stop.value
            break
    assert len(complete.history) == 2 and len(ended.history) == 1
    for figure in ("learning_rate", "train_loss", "train_accuracy"):
        assert ended.history[0][figure] == complete.history[0][figure]


def test_the_bundle_says_what_the_study_measured(shapes: Store, refit: Refit, tmp_path: Path) -> None:
    record = refit(shapes, tmp_path / "bundle", "vit")
    runs = [r for r in shapes.runs() if r.candidate_name == "vit"]
    held_out = [p for r in runs if (p := r.load_predictions()) is not None]
    hits = np.concatenate([p.logits.argmax(1) == p.labels for p in held_out])
    assert record.evidence.figure.metric == "accuracy" and record.evidence.figure.value == pytest.approx(hits.mean())
    assert record.evidence.n_rows == len(hits) == record.temperature_rows and record.evidence.n_runs == 2
    assert record.positive_class == "light" and record.threshold is None
    written = json.loads((tmp_path / "bundle" / "bundle.json").read_text())["training"]["refit"]
    assert written == record.plain()
    logits, labels = np.concatenate([p.logits for p in held_out]).astype(float), np.concatenate([p.labels for p in held_out])

    def log_loss(temperature: float) -> float:
        z = logits / temperature
        return float(np.mean(np.log(np.exp(z - z.max(1, keepdims=True)).sum(1)) + z.max(1) - z[np.arange(len(z)), labels]))

    grid = np.exp(np.linspace(-3, 3, 121)) * record.temperature
    assert log_loss(record.temperature) <= min(map(log_loss, grid)) + 1e-6


def test_probabilities_are_calibrated_by_the_temperature(shapes: Store, refit: Refit, tmp_path: Path) -> None:
    record = refit(shapes, tmp_path / "bundle", "vit")
    model = ph.load(tmp_path / "bundle")
    predicted = model.predict(shapes.folder.parent / "pictures" / "dark", device="cpu")
    z = predicted.logits.astype(float) / record.temperature
    np.testing.assert_allclose(predicted.probabilities, np.exp(z) / np.exp(z).sum(1, keepdims=True), rtol=1e-5)
    assert model.temperature == record.temperature != 1


def test_the_command_refits_the_first_of_the_leaderboard_and_predict_reads_it(shapes: Store, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    done = CliRunner().invoke(main, ["refit", str(shapes.folder), "-o", str(out), "--device", "cpu"], catch_exceptions=False)
    first = open_finished_study(shapes.folder, lambda event: None).summary.candidates[0].name
    assert done.exit_code == 0 and f"for {first}" in done.output and "95 % interval" in done.output
    assert "trained anew on 24 rows" in done.output and "written:" in done.output
    predicted = CliRunner().invoke(main, ["predict", str(out), str(shapes.folder.parent / "pictures"), "--device", "cpu"])
    assert predicted.exit_code == 0 and "calibrated by a temperature" in predicted.output


def test_what_cannot_be_claimed_is_refused(shapes: Store, tmp_path: Path) -> None:
    def refit(folder: Path, name: str | None, out: str = "bundle") -> None:
        refit_candidate(folder, tmp_path / out, RefitOptions(name), CPU, lambda event: None)

    with pytest.raises(SpecError, match=r"'vitt' has no finished run.*did you mean"):
        refit(shapes.folder, "vitt")
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match="a folder is needed there"):  # before anything is opened or trained
        refit(tmp_path / "nowhere", None, "file/bundle")
    (tmp_path / "there").mkdir()
    with pytest.raises(StoreError, match="exists already"):
        refit(shapes.folder, "vit", "there")
    with pytest.raises(StoreError, match="is not a results folder"):
        refit(tmp_path, "vit")
    copied = shutil.copytree(shapes.folder.parent, tmp_path / "copy")
    Image.new("RGB", (9, 9)).save(copied / "pictures" / "dark" / "99.png")
    with pytest.raises(StoreError, match="computed with other data, weights or another phoropter"):
        refit(copied / "out", "vit")
    (copied / "pictures" / "dark" / "99.png").unlink()
    key = next(r.key for r in Store(copied / "out").runs() if r.candidate_name == "vit")
    shutil.rmtree(copied / "out" / "runs" / key)
    with pytest.raises(StoreError, match="candidate 'vit' has 1 of 2 runs"):
        refit(copied / "out", "vit")
    assert not (tmp_path / "bundle").exists()


def test_a_run_counts_as_kept_where_all_its_models_are(shapes: Store) -> None:
    folders = {run.key: run.bundle_folder for run in shapes.runs()}
    of_average = next(run for run in shapes.runs() if run.candidate_name == "average")
    needs = of_average.record["needs"]
    assert folders[of_average.key] is None and len(needs) == 2 and all(folders[need] for need in needs)
    assert list_answering_runs(of_average) == needs and list_answering_runs(shapes.run(needs[0])) == [needs[0]]
    half = ("half", [needs[0], of_average.key])
    found = find_kept_folders(shapes, [half, ("whole", needs), ("later", needs[:1])])
    assert found == ("whole", [(need, folders[need]) for need in needs])
    assert find_kept_folders(shapes, [half]) is None and find_kept_folders(shapes, []) is None

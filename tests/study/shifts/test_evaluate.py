"""Runs of every kind on corrupted test rows: the answers of their own models, for all candidates on the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from phoropter.core.errors import SpecError
from phoropter.core.files import cache_dir
from phoropter.data.images.cache import prepare_pixels
from phoropter.data.images.decode import SquareResize
from phoropter.data.shift.shifted_rows import ShiftedRows, shift_rows
from phoropter.models.classifier import load_classifier
from phoropter.results.metrics.probabilities import softmax
from phoropter.results.shift.answer_file import load_shift_answers
from phoropter.results.shift.corruption_kinds import Corruption
from phoropter.results.store import Run, Store
from phoropter.study.executors import execute_study
from phoropter.study.plan import plan_study
from phoropter.study.shifts import evaluate
from phoropter.study.spec import read_study
from phoropter.study.worker import ComputeOptions
from phoropter.training.candidates.table_spec import TableSpec
from phoropter.training.predict import predict_from_pixels
from phoropter.training.tables.metadata_features import load_metadata
from phoropter.training.tables.picture_features import measure_mean_image
from phoropter.training.tables.row_features import RowFeatures
from phoropter.training.tables.table_fit import fit_table
from small_pictures import draw_dark_and_light
from small_recordings import CTG_STUDY

SHIFT = "shift: {blur: [1, 3], noise: 0.1}\n"
STUDY = """\
name: shifted
data: {digits: true, size: 32, max_samples: 100}
protocol: {split: stratified-k-fold, folds: 2, seeds: [0]}
save_models: all
candidates:
  - {backbone: test_resnet, weights: random, frozen: true, recipe: logistic, name: frozen}
  - {backbone: test_resnet, weights: random, recipe: {preset: scratch, epochs: 1}, name: trained}
  - {baseline: mean-image}
  - {fuse: [frozen, trained], mode: ensemble, name: both}
"""
BLUR = Corruption("blur", 3.0)


def run(folder: Path, text: str) -> Store:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").write_text(text)
    study = read_study(folder / "study.yaml")[0]
    store = execute_study(study, folder / "out", lambda event: None, options=ComputeOptions("cpu", threads=1))
    assert not store.read_failures()
    return store


def answers_of(store: Store, run: Run) -> dict[str, Any]:
    predictions = run.load_predictions()
    assert predictions is not None
    return load_shift_answers(store.folder, run.key, predictions.logits)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return run(tmp_path_factory.mktemp("shifted"), STUDY + SHIFT)


@pytest.fixture(scope="module")
def shifted_digits(done: Store) -> ShiftedRows:
    """All rows of the study, blurred."""
    images = plan_study(read_study(done.folder.parent / "study.yaml")[0]).image_sets[0]
    dataset, pixels = prepare_pixels(images.dataset, 32, cache=cache_dir(done.folder))
    return shift_rows(dataset, pixels, SquareResize(32), np.arange(len(dataset)), BLUR)


def test_every_run_has_an_answer_for_each_level_of_its_own_rows(done: Store) -> None:
    assert [row["level"] for row in done.study["shift"]] == [1.0, 3.0, 0.1]
    for one in done.runs():
        found = answers_of(done, one)
        assert len(found) == 3 and all(logits.shape == (50, 10) for logits in found.values())
        assert all(np.isfinite(logits).all() for logits in found.values())


@pytest.mark.parametrize("name", ["frozen", "trained"])
def test_the_answers_are_those_of_the_kept_models(name: str, done: Store, shifted_digits: ShiftedRows) -> None:
    runs = [r for r in done.runs() if r.candidate_name == name]
    assert len(runs) == 2
    for one in runs:
        predictions = one.load_predictions()
        assert predictions is not None and one.bundle_folder is not None
        rows = np.array([shifted_digits.dataset.ids.tolist().index(i) for i in predictions.ids])
        model = load_classifier(one.bundle_folder)
        expected = predict_from_pixels(model, shifted_digits.pixels, rows, torch.device("cpu"))[0]
        np.testing.assert_allclose(answers_of(done, one)[BLUR.key], expected, rtol=2e-3, atol=2e-3)
        assert np.abs(expected - predictions.logits).max() > 0.01


def test_a_baseline_is_measured_on_the_corrupted_rows(done: Store, shifted_digits: ShiftedRows) -> None:
    planned = plan_study(read_study(done.folder.parent / "study.yaml")[0])
    dataset, rows = shifted_digits.dataset, np.arange(len(shifted_digits.dataset))
    own = prepare_pixels(planned.image_sets[0].dataset, 32, cache=cache_dir(done.folder))[1]
    clean, blurred = measure_mean_image(own.batch(rows)), measure_mean_image(shifted_digits.pixels.batch(rows))
    for one in (r for r in planned.runs if r.candidate.name == "mean-image"):
        table = one.candidate.table
        assert table is not None
        fitted = fit_table(table, RowFeatures(clean, 0.0), dataset, one.split)
        assert fitted.predict_values is not None
        expected = fitted.predict_values(blurred[one.split.test])
        np.testing.assert_allclose(answers_of(done, done.run(one.key))[BLUR.key], expected, rtol=1e-4, atol=1e-4)


def test_metadata_are_read_once_for_all_corruptions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_dark_and_light(tmp_path, 12, size=(32, 32))
    lines = [f"{label}/{i}.png,{label},{30 + (7 * i) % 11}" for label in ("dark", "light") for i in range(12)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,age", *lines]))
    calls: list[tuple[str, ...]] = []

    def load_and_count(table: TableSpec, *others: Any) -> Any:
        calls.append(table.metadata)
        return load_metadata(table, *others)

    monkeypatch.setattr(evaluate, "load_metadata", load_and_count)
    candidates = "candidates: [{baseline: mean-image, metadata: [age]}]\nmetrics: [accuracy]\n"
    head = "name: listed\ndata: {manifest: list.csv, size: 32}\nprotocol: {split: stratified-k-fold, folds: 2, seeds: [0]}\n"
    store = run(tmp_path, head + candidates + SHIFT)
    assert calls == [("age",)] and all(len(answers_of(store, one)) == 3 for one in store.runs())


def test_an_average_averages_the_probabilities_of_its_members(done: Store) -> None:
    by_name: dict[str, list[Run]] = {}
    for one in done.runs():
        by_name.setdefault(one.candidate_name, []).append(one)
    for both, frozen, trained in zip(by_name["both"], by_name["frozen"], by_name["trained"], strict=True):
        for key, logits in answers_of(done, both).items():
            members = [softmax(answers_of(done, member)[key]) for member in (frozen, trained)]
            np.testing.assert_allclose(softmax(logits), np.mean(members, axis=0), atol=1e-6)


def test_shift_changes_no_run(done: Store, tmp_path: Path) -> None:
    """Keys and predictions are those of the study without it."""
    (tmp_path / "plain.yaml").write_text(STUDY)
    plain = plan_study(read_study(tmp_path / "plain.yaml")[0])
    assert [r.key for r in plain.runs] == [str(row["key"]) for row in done.study["plan"]]


def test_a_study_refuses_what_its_rows_cannot_have(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(STUDY + "shift: {powerline: true}\n")
    with pytest.raises(SpecError, match="powerline does not fit digits"):
        plan_study(read_study(tmp_path / "s.yaml")[0])


def test_births_lose_samples_before_they_are_cleaned_and_measured(tmp_path: Path) -> None:
    """A network on drawn windows, one on samples, which is trained again where it must be, and a baseline of the traces."""
    candidates = (
        "candidates:\n  - {backbone: test_resnet, weights: random, frozen: true, recipe: logistic, name: drawn}\n"
        "  - {baseline: ctg-features}\n  - {baseline: signal-1d, recipe: {epochs: 2}}\n"
    )
    store = run(tmp_path, CTG_STUDY.replace("folds: 2", "folds: 2, seeds: [0]") + candidates + "shift: {dropout_s: 300}\n")
    (row,) = store.study["shift"]
    assert (row["kind"], row["every_s"]) == ("dropout_s", 1800) and len(list(store.runs())) == 6
    for one in store.runs():
        predictions, (logits,) = one.load_predictions(), answers_of(store, one).values()
        assert predictions is not None and logits.shape == predictions.logits.shape
        assert not np.array_equal(logits, predictions.logits)
    first = next(one for one in store.runs() if one.candidate_name == "signal-1d")
    before = answers_of(store, first)
    (store.folder / "shift" / f"{first.key}.npz").unlink()
    again = answers_of(run(tmp_path, (tmp_path / "study.yaml").read_text()), first)
    assert again.keys() == before.keys() and np.allclose([*again.values()], [*before.values()], rtol=1e-4, atol=1e-4)

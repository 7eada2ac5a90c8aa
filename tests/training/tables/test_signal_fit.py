"""The network on samples: what standardises them, that tested rows do not reach it, and that a killed training ends alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from phoropter.core.errors import LeakageError
from phoropter.data.dataset import Dataset
from phoropter.data.splits.protocol import Split
from phoropter.study.plan import plan_study
from phoropter.study.spec import read_study
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.recipe import Recipe
from phoropter.training.fit import TrainingTask
from phoropter.training.loop.checkpoint import Checkpoints
from phoropter.training.loop.training_loop import StepProgress
from phoropter.training.tables.signal_fit import fit_signal_network, make_signal_loader
from phoropter.training.tables.signal_windows import SignalWindows, open_signal_windows
from phoropter.training.tables.table_fit import FittedTable
from small_recordings import CTG_STUDY, ECG_STUDY

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def births(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, list[Split]]:
    return open_study(tmp_path_factory.mktemp("births"), CTG_STUDY)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("windows")


def open_study(folder: Path, text: str) -> tuple[Dataset, list[Split]]:
    (folder / "study.yaml").write_text(text + "candidates: [{baseline: signal-1d}]\n")
    planned = plan_study(read_study(folder / "study.yaml")[0])
    return planned.image_sets[0].dataset, planned.splits


def candidate_of(**recipe: Any) -> Candidate:
    return parse_candidates([{"baseline": "signal-1d", "recipe": {"epochs": 2, "batch_size": 4, **recipe}}], Recipe())[0]


def task_of(
    study: tuple[Dataset, list[Split]], cache: Path, checkpoints: Checkpoints | None = None, **recipe: Any
) -> TrainingTask:
    dataset, splits = study
    none: Any = None  # no picture is read
    there = checkpoints or Checkpoints(None)
    return TrainingTask(candidate_of(**recipe), splits[0], dataset, none, torch.device("cpu"), cache, checkpoints=there)


def finish(task: TrainingTask, stop_after: int | None = None) -> FittedTable | None:
    """Trains to the end, or gives up after some steps, as a kill does. Every step is told of."""
    training, steps = fit_signal_network(task), 0
    while True:
        try:
            steps += isinstance(next(training), StepProgress)
        except StopIteration as stop:
            fitted: FittedTable = stop.value
            return fitted
        if steps == stop_after:
            return None


def test_a_killed_training_ends_with_the_same_bits(
    births: tuple[Dataset, list[Split]], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phoropter.training.loop.training_loop.PROGRESS_INTERVAL_S", 0)
    rows = births[1][0].test
    straight = finish(task_of(births, cache))
    assert straight is not None
    for stop_after in (1, 4):
        folder = tmp_path / str(stop_after)
        folder.mkdir()
        assert finish(task_of(births, cache, Checkpoints(folder, 0)), stop_after) is None
        resumed = finish(task_of(births, cache, Checkpoints(folder, 0)))
        assert resumed is not None
        np.testing.assert_array_equal(resumed.predict_held_out(rows), straight.predict_held_out(rows))
        assert [row["train_loss"] for row in resumed.history] == [row["train_loss"] for row in straight.history]
    with pytest.raises(LeakageError, match="were trained on"):
        straight.predict_held_out(births[1][0].train)


def test_what_a_tested_row_shows_reaches_neither_scale_nor_weights(
    births: tuple[Dataset, list[Split]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, (split, *_) = births
    windows = open_signal_windows(dataset, cache)
    planted = np.array(windows.samples)
    planted[split.test] = 1e6
    before = finish(task_of(births, cache))
    monkeypatch.setattr("phoropter.training.tables.signal_fit.open_signal_windows", lambda *_: replace(windows, samples=planted))
    after = finish(task_of(births, cache))
    assert before is not None and after is not None
    np.testing.assert_array_equal(before.predict(split.train), after.predict(split.train))


def test_levels_of_a_cardiotocogram_stay_and_those_of_an_electrode_go(
    births: tuple[Dataset, list[Split]], cache: Path, tmp_path: Path
) -> None:
    dataset, (split, *_) = births
    windows = open_signal_windows(dataset, cache)
    loader = make_signal_loader(dataset, windows, split.train, torch.device("cpu"))
    train = np.asarray(windows.samples[split.train], dtype=float)
    mean, deviation = np.nanmean(train, axis=(0, 2), keepdims=True), np.nanstd(train, axis=(0, 2), keepdims=True)
    expected = np.nan_to_num((windows.samples[split.test] - mean) / deviation)
    np.testing.assert_allclose(loader.load_samples(split.test).numpy(), expected, rtol=1e-3, atol=1e-4)
    people, splits = open_study(tmp_path, ECG_STUDY)
    beats = open_signal_windows(people, cache)
    loaded = make_signal_loader(people, beats, splits[0].train, torch.device("cpu")).load_samples(splits[0].test)
    np.testing.assert_allclose(loaded.mean(2), 0, atol=1e-4)
    np.testing.assert_allclose(loaded.std(2, correction=0), 1, atol=1e-3)


def test_a_channel_that_does_not_move_and_missing_samples_are_0() -> None:
    samples = np.array([[[1, 2, np.nan, 3], [7, 7, 7, 7]], [[np.nan] * 4, [0, 1, 0, 1]]], dtype=np.float32)
    none: Any = None
    loader = make_signal_loader(none, SignalWindows(samples, ("a", "b"), 1.0, False), np.array([0, 1]), torch.device("cpu"))
    found = loader.load_samples(np.array([0, 1])).numpy()
    step = np.sqrt(1.5)
    np.testing.assert_allclose(found, [[[-step, 0, 0, step], [0] * 4], [[0] * 4, [-1, 1, -1, 1]]], atol=1e-6)


def test_the_recipe_says_epochs_weights_and_which_epoch_predicts(births: tuple[Dataset, list[Split]], cache: Path) -> None:
    dataset, (split, *_) = births
    plain = finish(task_of(births, cache))
    weighted = finish(task_of(births, cache, loss={"class_weights": "auto"}))
    assert (
        plain is not None and weighted is not None and not np.array_equal(plain.predict(split.test), weighted.predict(split.test))
    )
    assert plain.choice == (2, "last") and len(plain.history) == 2 and plain.parameters == 95_810
    inner = replace(split, train=split.train[2:], val=split.train[:2])
    chosen = finish(task_of((dataset, [inner]), cache, checkpoint="best-val", epochs=3))
    assert chosen is not None and chosen.choice[1] == "best-val"
    losses = [row["validation_loss"] for row in chosen.history]
    assert chosen.choice[0] == 1 + int(np.argmin(losses))
    logits = chosen.predict(inner.val if inner.val is not None else split.test).astype(float)
    shown = np.log(np.exp(logits).sum(1)) - logits[np.arange(2), dataset.labels[split.train[:2]]]
    assert np.isclose(shown.mean(), min(losses), rtol=1e-4)  # the weights of that epoch predict


def test_it_learns_what_only_samples_show(
    births: tuple[Dataset, list[Split]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, (split, *_) = births
    draw = np.random.default_rng(0)
    made = draw.normal(size=(len(dataset), 2, 256)).astype(np.float32)
    made[dataset.labels == 1, 0] += 3 * np.sin(np.arange(256) / 3).astype(np.float32)
    windows = SignalWindows(made, ("FHR", "UC"), 1.0, True)
    monkeypatch.setattr("phoropter.training.tables.signal_fit.open_signal_windows", lambda *_: windows)
    fitted = finish(task_of(births, cache, epochs=15, batch_size=8))
    assert fitted is not None
    assert (fitted.predict_held_out(split.test).argmax(1) == dataset.labels[split.test]).mean() >= 0.9


def test_rows_may_have_several_labels(births: tuple[Dataset, list[Split]], cache: Path) -> None:
    dataset, (split, *_) = births
    several = replace(dataset, labels=np.stack([dataset.labels, 1 - dataset.labels], axis=1))
    fitted = finish(task_of((several, [split]), cache, loss={"class_weights": "auto"}))
    assert fitted is not None and several.is_multi_label
    assert fitted.predict(split.test).shape == (len(split.test), 2) and np.isfinite(fitted.history[-1]["train_loss"])

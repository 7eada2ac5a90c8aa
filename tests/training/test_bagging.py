"""Bags: draws that share as few rows as can be, models that equal those trained alone, and the mean of what they say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from phoropter.core.errors import SpecError
from phoropter.core.seeds import named_generator
from phoropter.data.splits.protocol import make_splits
from phoropter.data.splits.spec import KFold
from phoropter.models import classifier as classifiers
from phoropter.results.metrics.probabilities import softmax
from phoropter.training.batches.loading import select_bag_rows, undersample_rows
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.presets import PRESETS, parse_recipe
from phoropter.training.fit import TrainedRun, TrainingTask, make_batch_sampler
from phoropter.training.frozen.batched_fit import can_batch
from phoropter.training.loop.checkpoint import Checkpoints
from phoropter.training.predict import predict_from_pixels
from phoropter.training.train import train_candidate


@pytest.mark.parametrize(
    ("positives", "negatives", "ratio", "full"), [(648, 28_968, 3942 / 648, 7), (10, 40, 1, 4), (10, 15, 1, 1)]
)
def test_no_negative_comes_twice_before_every_one_came_once(positives: int, negatives: int, ratio: float, full: int) -> None:
    labels = np.repeat([1, 0], [positives, negatives])
    bags = [select_bag_rows(np.arange(len(labels)), labels, ratio, bag, named_generator(0, "x")) for bag in range(full + 1)]
    size = len(undersample_rows(np.arange(len(labels)), labels, ratio, named_generator(0, "x")))
    times = np.zeros(len(labels), dtype=int)
    for bag in bags:
        assert len(bag) == len(np.unique(bag)) == size and (labels[bag] == 1).sum() == positives
        times[bag] += 1
    own = times[labels == 0]
    assert own[:negatives].sum() == (full + 1) * (size - positives)
    assert own.max() - own.min() <= 1 and (times[labels == 1] == full + 1).all()
    disjoint = np.concatenate([bag[labels[bag] == 0] for bag in bags[:full]])
    assert len(np.unique(disjoint)) == len(disjoint)


def test_classes_as_rare_as_the_rarest_are_whole_in_every_bag() -> None:
    labels = np.repeat([0, 1, 2], [5, 30, 5])
    bags = [select_bag_rows(np.arange(40), labels, 2, bag, named_generator(1, "x")) for bag in range(3)]
    assert [np.bincount(labels[bag]).tolist() for bag in bags] == [[5, 10, 5]] * 3
    assert len(np.unique(np.concatenate(bags))) == 40


def task_of(few_digits: Any, folder: Path, *, frozen: bool = False, bags: int = 3, **recipe: Any) -> TrainingTask:
    """Digits of which two of ten are the rare class."""
    dataset, pixels = few_digits
    rare = np.where(dataset.labels < 2, 0, 1)
    dataset = replace(dataset, labels=rare.astype(np.int64), classes=("rare", "frequent"))
    preset = PRESETS["probe" if frozen else "scratch"]
    changes = {
        "epochs": 2,
        "batch_size": 16,
        "imbalance": {"undersample": 1, "n_bags": bags, "stratified_batches": True},
        **recipe,
    }
    entry = {
        "backbone": "test_resnet",
        "weights": "random",
        "size": 32,
        "frozen": frozen,
        "recipe": parse_recipe(changes, preset),
    }
    (candidate,) = parse_candidates([entry], preset)
    return TrainingTask(candidate, make_splits(dataset, KFold(3))[0], dataset, pixels, torch.device("cpu"), folder)


def finished(task: TrainingTask, rows: int | None = None) -> TrainedRun | None:
    """Trained to the end, or let go of after so many epochs' rows, as a kill would."""
    training = train_candidate(task)
    seen = 0
    try:
        while rows is None or seen < rows:
            seen += isinstance(next(training), dict)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    training.close()
    return None


def whole(task: TrainingTask) -> TrainedRun:
    found = finished(task)
    assert found is not None
    return found


@pytest.mark.parametrize("frozen", [False, True])
def test_a_bagged_run_says_the_mean_of_bags_trained_alone(few_digits: Any, tmp_path: Path, frozen: bool) -> None:
    task = task_of(few_digits, tmp_path, frozen=frozen)
    assert not can_batch(task.candidate)
    fitted = whole(task)
    alone = [whole(replace(task, bag_index=bag)) for bag in range(3)]
    rows = task.split.test
    expected = np.mean([softmax(a.predict_held_out(rows)[0]) for a in alone], axis=0)
    np.testing.assert_allclose(softmax(fitted.predict_held_out(rows)[0]), expected, atol=1e-6)
    assert np.abs(softmax(alone[0].predict_held_out(rows)[0]) - expected).max() > 1e-4  # the bags do differ
    shown = [np.concatenate(make_batch_sampler(a.task).epoch_batches(0)) for a in alone]
    assert fitted.bagging_info == {
        "count": 3,
        "rows": [len(s) for s in shown],
        "rows_together": len(np.unique(np.concatenate(shown))),
        "best_epochs": [0, 0, 0],
    }
    assert [row["epoch"] for row in fitted.history] == [1, 2]
    for row, *same in zip(fitted.history, *(a.history for a in alone), strict=True):
        assert row["train_loss"] == pytest.approx(np.mean([s["train_loss"] for s in same]))


def test_the_bags_are_one_bundle(few_digits: Any, tmp_path: Path) -> None:
    task = task_of(few_digits, tmp_path, epochs=1)
    fitted = whole(task)
    classifiers.save_classifier(fitted.model, tmp_path / "bundle")
    again = classifiers.load_classifier(tmp_path / "bundle").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert len(again.spec.backbones) == 3 and again.spec.fusion and again.spec.fusion.mode == "ensemble"
    rows = task.split.test
    said = predict_from_pixels(again, task.pixels, rows, task.device)[0]
    np.testing.assert_allclose(said, fitted.predict_held_out(rows)[0], atol=1e-6)


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_killed_bagged_run_goes_on_bit_for_bit(few_digits: Any, tmp_path: Path, stop_after: int) -> None:
    """In the middle of the first bag, and between the two epochs of the second."""
    task = task_of(few_digits, tmp_path, bags=2)
    (tmp_path / "work").mkdir()

    def there() -> TrainingTask:
        return replace(task, checkpoints=Checkpoints(tmp_path / "work", 0))

    assert finished(there(), stop_after) is None and list((tmp_path / "work").glob("checkpoint-bag-*.pt"))
    resumed, straight = whole(there()), whole(task)
    assert all(
        torch.equal(a, b) for a, b in zip(resumed.model.state_dict().values(), straight.model.state_dict().values(), strict=True)
    )


def test_asking_for_a_checkpoint_reaches_the_bag_under_way(tmp_path: Path) -> None:
    asked = Checkpoints(tmp_path, 1e9)
    part = asked.for_part("bag-1")
    assert not part.is_due()
    asked.request_save()
    assert part.is_due() and asked.is_due()
    part.save(part.load())
    assert not asked.is_due() and (tmp_path / "checkpoint-bag-1.pt").exists()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"fuse": ["test_resnet", "test_vit"]}, "bags and a fusion contradict"),
        ({"student": "test_resnet", "teacher": "test_vit"}, "bags and a student contradict"),
        ({"backbone": "test_resnet", "head": "pretrained"}, "bags and head: pretrained contradict"),
    ],
)
def test_what_cannot_be_bagged_is_refused(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_candidates([entry], parse_recipe({"imbalance": {"undersample": 1, "n_bags": 2}}, PRESETS["scratch"]))

"""Seconds per epoch of a student: without a teacher, with a live one, and with one whose answers are in the cache, in one run.

    python benchmarks/distil.py

The student is a resnet18 shown 32 pixels, the teacher a vit_small_patch16_224 shown the same pictures at 224 (over ten times the
multiply-adds; checked first). Weights are random on both sides: they change no time. The three take turns in one process, on
one core; the first epoch of every turn is warm-up and thrown away. The cached epoch is that of the second student on: the first
has asked.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from _sides import figure, one_thread, write
from phoropter.data.images.cache import prepare_pixels
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.data.splits.protocol import Split
from phoropter.models import classifier as classifiers
from phoropter.models.spec import BackboneSpec, ClassifierSpec
from phoropter.training import fit as room
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.presets import parse_recipe
from phoropter.training.costs.classifier_cost import measure_cost
from phoropter.training.distillation import Teacher, digest_classifier
from phoropter.training.fit import TrainingTask, fit
from phoropter.training.loop.training_loop import StepProgress

PICTURES = 256
TURNS = 9
LIVE = 8  # the live teacher, slow and so steadily measured, has the first turn and the last
EPOCHS = 2  # a turn: one to warm up, one timed
GOAL = 1.05
RECIPE = {"preset": "cnn-distil", "epochs": EPOCHS, "batch_size": 128}


def tasks(folder: Path) -> dict[str, TrainingTask]:
    """The student's three tasks, and beside them the ratio of what teacher and student cost."""
    dataset, pixels = prepare_pixels(open_dataset(DataSpec(digits=True)), 32, cache=folder)
    rows = np.arange(len(dataset), dtype=np.int64)
    split = Split(0, 0, 0, 1, "a part", rows[:PICTURES], rows[PICTURES:])
    spec = BackboneSpec(name="vit_small_patch16_224", weights="random")
    teacher = classifiers.build_classifier(ClassifierSpec(backbones=(spec,), classes=dataset.classes, picture=32), seed=0)
    name = digest_classifier(teacher)
    student = {"weights": "random", "size": 32, "recipe": RECIPE}
    plain, taught, _ = parse_candidates(
        [
            {"backbone": "resnet18", "name": "plain", **student},
            {"student": "resnet18", "teacher": spec.name, "loss": "soft", **student},
        ],
        parse_recipe("cnn-distil"),
    )
    common: dict[str, Any] = {
        "split": split,
        "dataset": dataset,
        "pixels": pixels,
        "device": torch.device("cpu"),
        "cache": folder,
    }
    nobody = np.array([], np.uint64)
    made = {
        "plain": TrainingTask(plain, **common),
        "live": TrainingTask(taught, teacher=Teacher(spec.name, name, lambda: teacher, nobody, uncached=True), **common),
        "cached": TrainingTask(taught, teacher=Teacher(spec.name, name, lambda: teacher, nobody), **common),
    }
    costs = [measure_cost(m, 32).macs or 0 for m in (teacher, room.build_model(made["plain"]))]
    if costs[0] < 10 * costs[1]:
        raise SystemExit(f"the teacher's {costs[0]:,} multiply-adds are not ten times the student's {costs[1]:,}")
    return made


def epoch_seconds(task: TrainingTask) -> float:
    """Processor seconds of an epoch, which other programs on the machine change less than they change the clock."""
    seconds, began = [], time.process_time()
    for step in fit(task):
        if not isinstance(step, StepProgress):
            seconds.append(time.process_time() - began)
            began = time.process_time()
    return statistics.mean(seconds[1:])


def ratio(claim: str, goal: float | None, turns: list[dict[str, float]], ours: str, theirs: str) -> dict[str, Any]:
    """A row in which the ratio is how many times longer ours took: less is better, and the goal a limit."""
    both = [t for t in turns if ours in t and theirs in t]
    slow, quick = (tuple(t[name] for t in both) for name in (ours, theirs))
    words = (f"{statistics.median(seconds):.3f} s an epoch" for seconds in (slow, quick))
    return figure(claim, [a / b for a, b in zip(slow, quick, strict=True)], goal, *words)


def main() -> None:
    one_thread(__file__)
    torch.set_num_threads(1)
    room.check_teacher_accuracy = lambda *_: {}  # type: ignore[assignment]  # a teacher of random weights would fail, and costs the same
    with tempfile.TemporaryDirectory() as folder:
        made = tasks(Path(folder))
        epoch_seconds(made["cached"])  # the first student: the teacher is asked
        turns = []
        for turn in range(TURNS):
            names = ["plain", "cached"][:: 1 if turn % 2 else -1] + (["live"] if turn % LIVE == 0 else [])
            turns.append({name: epoch_seconds(made[name]) for name in names})
    write(
        "distil",
        [
            ratio("a student's epoch with a cached teacher, in epochs without one (at most)", GOAL, turns, "cached", "plain"),
            ratio("the same with a live teacher", None, turns, "live", "plain"),
            ratio("an epoch with a cached teacher, in epochs with a live one", None, turns, "cached", "live"),
        ],
    )


if __name__ == "__main__":
    main()

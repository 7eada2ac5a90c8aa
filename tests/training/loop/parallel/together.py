"""Several forked processes that train together, as torchrun would start them, for the tests of this folder.

Each runs a function of this file by its name; what the first one finds goes into a file. The data are in the cache already.
"""

from __future__ import annotations

import itertools
import json
import os
import pickle
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from killed_runs import task_of

from phoropter.core.errors import RunError
from phoropter.data.splits.protocol import make_splits
from phoropter.data.splits.spec import KFold
from phoropter.training import fit as training_fit
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.distillation import Teacher, digest_classifier
from phoropter.training.fit import TrainedRun, TrainingTask, build_model
from phoropter.training.loop.checkpoint import Checkpoints
from phoropter.training.loop.parallel.training_group import join_group
from phoropter.training.loop.stop_signals import StopRequest
from phoropter.training.train import train_candidate

VIT: dict[str, Any] = {"backbone": "test_vit"}  # neither batch norm nor dropout
CNN: dict[str, Any] = {"backbone": "test_resnet"}  # batch norm in every block
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # entry of a candidate, recipe
    "sgd": (VIT, {"optimizer": "sgd", "lr": 0.01}),
    "adamw": (VIT, {}),
    "a batch of fewer rows than processes": (VIT, {"batch_size": 98}),
    "weights of classes, smoothing": (VIT, {"loss": {"class_weights": "auto", "smoothing": 0.1}}),
    "mixed pictures, weights of classes": (VIT, {"augment": ["hflip", "cutmix"], "loss": {"class_weights": "auto"}}),
    "focal loss, clipped": (VIT, {"loss": "focal", "grad_clip": 0.1}),
    "accumulated": (VIT, {"batch_size": 15, "grad_accum_steps": 3}),
    "averaged weights": (VIT, {"ema": 0.5}),
    "head first": (CNN, {"phases": [{"train": "head", "epochs": 1, "lr": 1e-2}]}),
    "best epoch by validation": (VIT, {"epochs": 3, "checkpoint": "best-val"}),
    "bags": (VIT, {"imbalance": {"undersample": 1, "n_bags": 2}}),
}
BATCH_NORM: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "lr": 0.01},
    "adamw": {"ema": 0.5, "grad_clip": 0.5, "augment": ["hflip", "mixup"]},
    "a batch of fewer rows than processes": {"batch_size": 98},
    "accumulated": {"batch_size": 15, "grad_accum_steps": 3},
}


def make_task(digits: Any, folder: Path, entry: dict[str, Any], recipe: dict[str, Any], every_s: float = 1e9) -> TrainingTask:
    task = task_of(digits, folder, {**({} if "phases" in recipe else {"epochs": 1}), **recipe}, every_s=every_s, **entry)
    return replace(task, split=make_splits(digits[0], KFold(3, val_size=0.2))[0]) if "checkpoint" in recipe else task


def make_student(task: TrainingTask) -> TrainingTask:
    """A task of a student with its teacher, an untrained network whose answers are wild enough to matter."""
    teacher = replace(task, candidate=parse_candidates([{**VIT, "weights": "random", "size": 32}], task.candidate.recipe)[0])
    model = build_model(replace(teacher, split=replace(task.split, seed=5)))
    draws = torch.Generator().manual_seed(0)
    for parameter in model.head.parameters():
        torch.nn.init.normal_(parameter, generator=draws)
    return replace(task, teacher=Teacher("the teacher", digest_classifier(model), lambda: model, np.array([], np.uint64)))


def train_to_end(task: TrainingTask) -> TrainedRun:
    training = train_candidate(task)
    while True:
        try:
            next(training)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]


def summarise(run: TrainedRun) -> dict[str, Any]:
    rows = run.task.split.test
    weights = {name: value.numpy() for name, value in run.model.state_dict().items()}
    figures = [row["train_loss"] for row in run.history], [row["train_accuracy"] for row in run.history]
    return {"logits": run.predict_held_out(rows)[0], "weights": weights, "figures": figures, "micro_batch": run.micro_batch}


@contextmanager
def double_precision() -> Iterator[None]:
    """Networks of float64: rounding is then too small for a training to enlarge it."""

    def build_double(task: TrainingTask) -> Any:
        model = build_model(task).double()
        preprocess = model.preprocess_pictures
        model.preprocess_pictures = lambda pictures, branch: preprocess(pictures, branch).double()  # type: ignore[method-assign]
        return model

    training_fit.build_model = build_double
    try:
        yield
    finally:
        training_fit.build_model = build_model


@contextmanager
def wrapped_objective(answer: Callable[[Any, Any, int], Any]) -> Iterator[None]:
    """Within it, `answer(objective, batch, number)` stands for objective(batch). number: of the answer, counted from 0"""
    make, count = training_fit._make_objective, itertools.count()

    def make_wrapped(*given: Any) -> Any:
        objective = make(*given)
        return lambda batch: answer(objective, batch, next(count))

    training_fit._make_objective = make_wrapped
    try:
        yield
    finally:
        training_fit._make_objective = make


def short_memory(most_rows: int, after: int = 0) -> AbstractContextManager[None]:
    """Within it, the memory does not suffice for the answers of more rows at once, once `after` batches were answered."""

    def answer(objective: Any, batch: Any, number: int) -> Any:
        found = objective(batch)
        if number >= after and len(found[1]) > most_rows:
            raise torch.OutOfMemoryError("planted: out of memory")
        return found

    return wrapped_objective(answer)


# ---------------------------------------------------------------------------------------------------- what the processes do


class Bench:
    """What each of the processes has: its group, the data, and a folder; the first one keeps what is found."""

    def __init__(self) -> None:
        given = json.loads(os.environ["TOGETHER"])
        self.folder = Path(given["folder"])
        self.digits = pickle.loads((self.folder / "digits.pkl").read_bytes())  # noqa: S301
        self.group = join_group("cpu")
        self.found: dict[str, Any] = {}

    def task(self, name: str, entry: dict[str, Any], recipe: dict[str, Any], every_s: float = 1e9, **fields: Any) -> TrainingTask:
        """The task as each process has it; checkpoints of the first alone."""
        base = make_task(self.digits, self.folder / f"{name} {self.group.size}", entry, recipe, every_s)
        checkpoints = base.checkpoints if self.group.is_leader else Checkpoints(None)
        return replace(base, group=self.group, checkpoints=checkpoints, **fields)

    def train(self, task: TrainingTask) -> TrainedRun:
        if not self.group.is_leader:
            announced = self.group.receive_message()
            assert (announced.dataset, announced.pixels) == (task.dataset.fingerprint, task.pixels.identity)
            task = replace(task, **announced.fields)
        return train_to_end(task)

    def abandon(self, task: TrainingTask, count: int) -> None:
        """Trains until the first process has saved so many checkpoints, and fails; the others hear of it."""
        if self.group.is_leader:
            save, left = task.checkpoints.save, [None] * (count - 1)

            def save_and_fail(state: Any) -> None:
                save(state)
                if not left:
                    raise RunError("planted stop")
                left.pop()

            task.checkpoints.save = save_and_fail  # type: ignore[method-assign]
        try:
            self.train(task)
        except RunError as error:
            assert "planted stop" in str(error)
        else:
            raise AssertionError("it was not stopped")

    def keep(self, name: str, run: TrainedRun) -> None:
        if self.group.is_leader:
            self.found[name] = summarise(run)

    def close(self) -> None:
        if self.group.is_leader:
            (self.folder / f"found-{self.group.size}.pkl").write_bytes(pickle.dumps(self.found))
        self.group.meet()


def train_every_case() -> None:
    bench = Bench()
    for name, (entry, recipe) in CASES.items():
        bench.keep(name, bench.train(bench.task(name, entry, recipe)))
    with double_precision():
        for name, recipe in BATCH_NORM.items():
            bench.keep(f"batch norm, {name}", bench.train(bench.task(f"bn {name}", CNN, recipe)))
    bench.close()


DROPPED: dict[str, Any] = {**VIT, "head": {"kind": "dense", "dropout": 0.5}}
RESUMED: dict[str, Any] = {"epochs": 2, "ema": 0.9, "batch_size": 16, "grad_accum_steps": 2}
HANDED: dict[str, Any] = {"epochs": 2, "optimizer": "sgd", "lr": 0.01}
STUDENT = {"student": "test_vit", "teacher": "test_vit", "weights": "random", "size": 32, "loss": "soft"}


def stop_and_go_on() -> None:
    """Trainings that are stopped after some checkpoints and go on; and one that is left as it was stopped."""
    bench = Bench()
    bench.keep("unbroken", bench.train(bench.task("unbroken", DROPPED, RESUMED)))
    for count in (1, 3):
        bench.abandon(bench.task(f"stopped {count}", DROPPED, RESUMED, 0), count)
        bench.keep(f"stopped after {count}", bench.train(bench.task(f"stopped {count}", DROPPED, RESUMED, 0)))
    bench.abandon(bench.task("handed over", VIT, HANDED, 0), 3)
    bench.close()


def meet_errors() -> None:
    """One process fails, then the other; one finds too little memory; and the training after each is as if nothing had been."""
    bench = Bench()
    for failing in (1, 0):
        with plant_error(bench.group.rank == failing):
            try:
                bench.train(bench.task(f"failing {failing}", VIT, {}))
            except Exception as error:
                bench.found[f"process {failing} fails"] = f"{type(error).__name__}: {error}"
    with short_memory(4 if bench.group.rank == 1 else 10**6, after=2):
        bench.keep("short memory", bench.train(bench.task("short", VIT, {"batch_size": 16, "grad_accum_steps": 2})))
    for case in ({"compile": True}, {"grad_checkpointing": True}):
        try:
            bench.train(bench.task(f"refused {case}", CNN, case))
        except RunError as error:
            bench.found[f"refused {next(iter(case))}"] = str(error)
    training_fit.check_teacher_accuracy = lambda *given: {}  # type: ignore[attr-defined]
    student = bench.task("student", STUDENT, {"augment": ["hflip"]})
    bench.keep("student", bench.train(make_student(student) if bench.group.is_leader else student))
    bench.close()


def lose_a_process() -> None:
    """One process dies in the middle of a training, or finds too little memory in a network with batch norm."""
    bench, case = Bench(), json.loads(os.environ["TOGETHER"])
    lost = short_memory(8) if case["how"] == "memory" else plant_error(True, lambda: os._exit(9))
    try:
        with lost if bench.group.rank == case["rank"] else nullcontext():
            bench.train(bench.task("lost", {"backbone": case["backbone"]}, {}))
    except StopRequest as stop:
        sys.exit(stop.exit_code)


def plant_error(there: bool, act: Callable[[], None] | None = None) -> AbstractContextManager[None]:
    """Within it, the second answer of a network is an error, or an act."""

    def answer(objective: Any, batch: Any, number: int) -> Any:
        if there and number == 1:
            if act is not None:
                act()
            raise ValueError("planted")
        return objective(batch)

    return wrapped_objective(answer)


# ------------------------------------------------------------------------------------------------------------------- starting


def start_together(warm: Any, folder: Path, work: str, size: int = 2, **given: Any) -> list[Any]:
    """Starts so many processes that run the function `work`; returns the commands, the first one's first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import together; together.{work}()"
    commands = []
    for rank in range(size):
        environment = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "a test"}
        environment |= {"TOGETHER": json.dumps({"folder": str(folder), **given})}
        commands.append(warm.run_code(code, folder, environment))
    return commands


def find_together(warm: Any, folder: Path, work: str, size: int = 2) -> dict[str, Any]:
    """What the first of so many processes found, once all have ended well."""
    commands = start_together(warm, folder, work, size)
    for command in commands:
        assert command.wait(240) == 0, command.read_log()
    return pickle.loads((folder / f"found-{size}.pkl").read_bytes())  # type: ignore[no-any-return]  # noqa: S301

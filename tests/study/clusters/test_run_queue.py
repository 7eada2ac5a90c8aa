"""Runs are handed out when their needs are done, batches together; lost processes and failures end as with workers here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from phoropter.core.errors import DataError
from phoropter.results.run_folder import Predictions
from phoropter.results.store import Store
from phoropter.study.clusters.run_queue import MAX_LOSSES, RunQueue
from phoropter.study.plan import Plan, plan_study
from phoropter.study.progress import ProgressEvent
from phoropter.study.spec import read_study

STUDY = """\
name: queued
data: {digits: true, size: 32, max_samples: 80}
protocol: {split: stratified-k-fold, folds: 2, seeds: [0]}
recipe: {preset: scratch, epochs: 1}
candidates:
  - {name: cnn, backbone: test_resnet, weights: random}
  - {name: taught, student: test_resnet, teacher: cnn, weights: random, loss: soft, recipe: {epochs: 1}}
  - {name: probe, backbone: test_vit, weights: random, frozen: true, recipe: {preset: probe, epochs: 1}}
"""


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("queued")
    (folder / "study.yaml").write_text(STUDY)
    return plan_study(read_study(folder / "study.yaml")[0], folder / "cache")


@pytest.fixture
def store(planned: Plan, tmp_path: Path) -> Store:
    made = Store(tmp_path)
    rows = [{"key": r.key, "candidate": r.candidate.name, "split": r.split.name, "seed": 0} for r in planned.runs]
    made.write_study({"name": "queued", "plan": rows})
    return made


class MadeTasks:
    """Tasks that end at once, the last started first. act: what a task of these keys does, and what is returned of its loss"""

    def __init__(self, act: Callable[[frozenset[str]], str | None]) -> None:
        self.act = act
        self.started: list[frozenset[str]] = []

    def start_task(self, keys: frozenset[str]) -> Any:
        self.started.append(keys)
        return len(self.started) - 1

    def wait_for_any(self, tasks: list[Any]) -> list[Any]:
        return [max(tasks)]

    def collect_loss(self, task: Any) -> str | None:
        return self.act(self.started[task])


def finish_runs(store: Store, keys: frozenset[str]) -> None:
    import numpy as np

    for key in keys:
        with store.create_run(key) as folder:
            folder.write_record({"candidate": {"name": "c"}, "metrics": {"accuracy": 0.5}})
            folder.write_predictions(Predictions(np.array(["a"]), np.array([0]), np.zeros((1, 2), np.float32)))


def run_queue(planned: Plan, store: Store, act: Callable[[frozenset[str]], str | None]) -> tuple[MadeTasks, list[ProgressEvent]]:
    tasks, events = MadeTasks(act), list[ProgressEvent]()
    RunQueue(planned, store, tasks, events.append).compute_all([])
    return tasks, events


def named_keys(planned: Plan, name: str) -> list[str]:
    return [run.key for run in planned.runs if run.candidate.name == name]


def test_needs_come_first_and_batched_heads_are_one_task(planned: Plan, store: Store) -> None:
    tasks, events = run_queue(planned, store, lambda keys: finish_runs(store, keys))
    done = [e for e in events if e.kind == "done"]
    assert len(done) == 6 and [e.done for e in done] == [1, 2, 3, 4, 5, 6] and {e.total for e in done} == {6}
    assert Counter(map(len, tasks.started)) == {1: 4, 2: 1}
    assert frozenset(named_keys(planned, "probe")) in tasks.started
    for student in named_keys(planned, "taught"):
        (teacher,) = planned.by_key[student].needs
        assert tasks.started.index(frozenset([teacher])) < tasks.started.index(frozenset([student]))
    again, events = run_queue(planned, store, lambda keys: "must not be started")
    assert again.started == [] and events == []


def test_a_failed_teacher_fails_its_student_and_nothing_else(planned: Plan, store: Store) -> None:
    teacher = named_keys(planned, "cnn")[0]

    def act(keys: frozenset[str]) -> None:
        if teacher in keys:
            store.record_failure(teacher, {"error": "diverged", "candidate": "cnn", "split": "s", "seed": 0})
        else:
            finish_runs(store, keys)

    _, events = run_queue(planned, store, act)
    failed = {key: e.note["error"] for e in events if e.kind == "failed" for key in e.keys}
    (student,) = [key for key in named_keys(planned, "taught") if teacher in planned.by_key[key].needs]
    assert failed.keys() == {teacher, student} and "failed: diverged" in failed[student]
    assert store.read_failures().keys() == failed.keys() and len(list(store.runs())) == 4


@pytest.mark.parametrize("losses", [MAX_LOSSES - 1, MAX_LOSSES])
def test_a_lost_process_begins_its_runs_again_twice(planned: Plan, store: Store, losses: int) -> None:
    key, counts = named_keys(planned, "cnn")[0], Counter[str]()

    def act(keys: frozenset[str]) -> str | None:
        counts.update(keys)
        if key in keys and counts[key] <= losses:
            return "worker died"
        return finish_runs(store, keys)

    _, events = run_queue(planned, store, act)
    assert sum(e.kind == "lost" for e in events) == MAX_LOSSES - 1
    assert (key in store) == (losses < MAX_LOSSES)
    if losses == MAX_LOSSES:
        assert f"lost {MAX_LOSSES} times: worker died" in store.read_failures()[key]["error"]


def test_what_stops_a_study_is_raised(planned: Plan, store: Store) -> None:
    def act(keys: frozenset[str]) -> None:
        raise DataError("the data have gone")

    with pytest.raises(DataError, match="the data have gone"):
        run_queue(planned, store, act)


def test_a_request_to_stop_starts_nothing(planned: Plan, store: Store) -> None:
    tasks = MadeTasks(lambda keys: None)
    RunQueue(planned, store, tasks, lambda event: None).compute_all([15])
    assert tasks.started == []

"""A few batches tell the speed of each network: the arithmetic by hand, what is kept, and that no prediction depends on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from phoropter.models import catalog
from phoropter.results.store import Store
from phoropter.study.compute import decode_images, open_pixels
from phoropter.study.cost import ResourceEstimate, estimate_resources
from phoropter.study.executors import execute_study
from phoropter.study.forecasts.measured_speeds import (
    estimate_work,
    find_machine_share,
    find_network_use,
    load_measured_speeds,
)
from phoropter.study.load import load_study
from phoropter.study.measuring import first_batches
from phoropter.study.measuring.first_batches import (
    BatchTimes,
    learn_unknown_speeds,
    make_measured_task,
    spread_rows,
    time_batches,
)
from phoropter.study.plan import Plan, make_plan
from phoropter.study.spec import StudySpec, read_study
from phoropter.study.worker import ComputeOptions
from phoropter.training.fit import TrainingTask
from small_study import all_predictions

STUDY = """\
name: measured
data: {digits: true, size: 32, max_samples: 120}
protocol: {split: stratified-k-fold, folds: 2, seeds: [0]}
candidates:
  - name: cnn
    backbone: test_resnet
    weights: random
    recipe: {phases: [{train: head, epochs: 3, lr: 0.01}, {train: all, epochs: 1, lr: 0.01}], batch_size: 16}
  - {name: probe, backbone: test_vit, weights: random, size: 32, frozen: true, recipe: {preset: probe, epochs: 1}}
"""
CPU = torch.device("cpu")


def ignore(event: object) -> None:
    pass


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudySpec:
    file = tmp_path_factory.mktemp("study") / "study.yaml"
    file.write_text(STUDY)
    return read_study(file)[0]


@pytest.fixture(scope="module")
def planned(study: StudySpec, _own_cache: Path) -> Plan:
    return make_plan(study, decode_images(load_study(study, _own_cache), _own_cache, ignore))


def make_task(planned: Plan, name: str, rows: int, cache: Path) -> TrainingTask:
    run = next(run for run in planned.runs if run.candidate.name == name)
    pixels = open_pixels(run.image_set, cache, ignore)
    return make_measured_task(planned, run, spread_rows(run.split.train, rows), pixels, CPU, cache)


def test_a_frozen_network_is_timed_behind_its_first_batch(
    planned: Plan, _own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter([0.0, 9.0, 10.0, 12.0, 20.0, 24.0])
    task = make_task(planned, "probe", 8, _own_cache)
    monkeypatch.setattr("phoropter.study.measuring.first_batches.time.perf_counter", lambda: next(ticks))
    (times,) = time_batches(task, 2)
    assert times.image_seconds == (2 / 8, 4 / 8) and times.use == "shown" and times.backbones == task.candidate.backbones
    assert times.peak_bytes > 1 << 20


def test_training_counts_each_phase_by_its_epochs(planned: Plan, _own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[TrainingTask] = []

    def train_in_words(task: TrainingTask) -> Iterator[dict[str, float]]:
        asked.append(task)
        yield from ({"images_per_s": s} for s in (1.0, 40.0, 20.0, 1.0, 8.0, 5.0))  # the first of each phase is not counted

    monkeypatch.setattr(first_batches, "fit", train_in_words)
    (times,) = time_batches(make_task(planned, "cnn", 8, _own_cache), 2)
    passes = 3 * 1 + 1 * 3  # three epochs of the head, one of everything
    assert times.image_seconds == pytest.approx(((3 / 40 + 1 / 8) / passes, (3 / 20 + 1 / 5) / passes))
    assert [phase.epochs for phase in asked[0].candidate.recipe.phases] == [3, 3] and times.use == "trained"


def test_a_real_training_is_timed_and_leaves_the_generator_as_it_was(planned: Plan, tmp_path: Path, _own_cache: Path) -> None:
    before = torch.random.get_rng_state()
    (times,) = time_batches(replace(make_task(planned, "cnn", 8, _own_cache), cache=tmp_path), 1)
    assert len(times.image_seconds) == 1 and times.image_seconds[0] > 0
    assert torch.equal(before, torch.random.get_rng_state())


def test_rows_are_from_all_over() -> None:
    assert spread_rows(np.arange(10, 20), 4).tolist() == [10, 13, 16, 19]
    assert spread_rows(np.arange(3), 8).tolist() == [0, 1, 2]


def learn(planned: Plan, out: Path, cache: Path) -> ResourceEstimate:
    return learn_unknown_speeds(planned, Store(out), cache, CPU, partial(open_pixels, cache=cache, on_progress=ignore))


def test_speeds_that_are_not_known_are_learnt_once_and_forecast_with(
    planned: Plan, tmp_path: Path, _own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def take_two_seconds(task: TrainingTask, batches: int) -> Iterator[BatchTimes]:
        told.append(task.candidate.name)
        assert len(task.split.train) <= 0.01 * 120 * 4, "a hundredth of what is shown, or it would not be worth it"
        use = find_network_use(task.candidate)
        yield BatchTimes(task.candidate.name, task.candidate.backbones, use, (2.0,) * batches, 0)

    monkeypatch.setattr(first_batches, "time_batches", take_two_seconds)
    monkeypatch.setattr(first_batches, "LEAST_IMAGES", 1)
    monkeypatch.setattr(first_batches, "SHARE", 0.02)
    learn(planned, tmp_path / "out", tmp_path)
    assert told == [], "a study of seconds is not measured"
    monkeypatch.setattr(first_batches, "WORTH_S", 0.0)
    expected = [learn(planned, tmp_path / "out", tmp_path) for _ in range(2)]
    assert told == ["cnn", "probe"]
    speeds = load_measured_speeds(tmp_path)
    for run, use in ((planned.runs[0], "trained"), (planned.runs[-1], "shown")):
        (backbone,) = run.candidate.backbones
        side = catalog.resolve_side(backbone, None)
        share = find_machine_share("cpu", torch.get_num_threads())
        assert speeds.knows_network(backbone, "cpu", use)
        assert speeds.image_seconds(backbone, side, "cpu", use) == pytest.approx(2.0 / share)
        assert speeds.networks[f"cpu {backbone.name}{'' if use == 'shown' else ' trained'}"] == pytest.approx(
            estimate_work(backbone, side) / 2 * share
        )
    cost = estimate_resources(planned, Store(tmp_path / "out"), tmp_path)
    assert cost.feature_seconds == pytest.approx(120 * 2.0 / share)
    assert expected == [cost, cost], "by the speeds that are known then, new ones and old ones"


def test_a_network_that_cannot_be_measured_is_left_to_its_run(
    planned: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> Iterator[BatchTimes]:
        raise RuntimeError("no such thing")
        yield

    monkeypatch.setattr(first_batches, "time_batches", fail)
    for name, value in (("WORTH_S", 0.0), ("LEAST_IMAGES", 0)):
        monkeypatch.setattr(first_batches, name, value)
    learn(planned, tmp_path / "out", tmp_path)
    assert load_measured_speeds(tmp_path).networks == {}
    assert not list((tmp_path / "measuring").iterdir())


def test_a_network_that_killed_the_process_which_measured_it_is_not_measured_again(
    planned: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(first_batches, "time_batches", lambda task, batches: told.append(task.candidate.name) or iter(()))
    for name, value in (("WORTH_S", 0.0), ("LEAST_IMAGES", 0)):
        monkeypatch.setattr(first_batches, name, value)
    (tmp_path / "measuring").mkdir()
    (tmp_path / "measuring" / planned.runs[0].key).touch()  # as a process leaves it that is killed meanwhile
    learn(planned, tmp_path / "out", tmp_path)
    assert planned.runs[0].candidate.name == "cnn" and told == ["probe"]


def test_no_prediction_depends_on_it(study: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(folder: Path) -> dict[str, bytes]:
        options = ComputeOptions("cpu", threads=1)
        store = execute_study(study, folder / "out", ignore, options=options, cache=folder / "cache")
        assert store.read_failures() == {}
        return all_predictions(store)

    plain = run(tmp_path / "a")
    for name, value in (("WORTH_S", 0.0), ("LEAST_IMAGES", 1), ("SHARE", 0.5)):
        monkeypatch.setattr(first_batches, name, value)
    assert run(tmp_path / "b") == plain
    assert {"cpu test_vit", "cpu test_resnet trained"} <= load_measured_speeds(tmp_path / "b" / "cache").networks.keys()

"""What `plan --measure` says, against schedules worked out by hand, with batches of known length and with real ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from phoropter.cli import main
from phoropter.commands import plan_command
from phoropter.models import catalog
from phoropter.results.store import Store
from phoropter.study.cost import RUN_SECONDS
from phoropter.study.forecasts.measured_speeds import find_machine_share, load_measured_speeds
from phoropter.study.measuring import first_batches, measured_plan
from phoropter.study.measuring.first_batches import BatchTimes
from phoropter.study.measuring.measured_plan import MeasuredPlan, measure_missing_runs, schedule_runs, slow_down
from phoropter.study.plan import Plan, plan_study
from phoropter.study.spec import read_study
from phoropter.training.fit import TrainingTask

STUDY = """\
name: measured
data: {digits: true, size: 32, max_samples: 120}
protocol: {split: stratified-k-fold, folds: 3, seeds: [0]}
save_models: all
candidates:
  - {name: cnn, backbone: test_resnet, weights: random, size: 32, recipe: {preset: scratch, epochs: 2, batch_size: 16}}
  - {name: vit, backbone: test_vit, weights: random, size: 32, recipe: {preset: scratch, epochs: 1, batch_size: 16}}
  - {name: mean, fuse: [cnn, vit], mode: ensemble}
"""


@pytest.fixture
def planned(tmp_path: Path) -> Plan:
    (tmp_path / "study.yaml").write_text(STUDY)
    return plan_study(read_study(tmp_path / "study.yaml")[0], tmp_path)


def measure(planned: Plan, folder: Path, patch: pytest.MonkeyPatch, gpus: int = 0, threads: int = 4) -> MeasuredPlan:
    """With batches of 1, 2 and 4 s an image for the median 2, whatever the network, and three times as long on one thread."""
    count = [threads]

    def time_in_words(task: TrainingTask, batches: int) -> Iterator[BatchTimes]:
        seconds = (1.0, 2.0, 4.0) if batches == 3 else (6.0,)
        yield BatchTimes(task.candidate.name, task.candidate.backbones, "trained", seconds, 3 << 30)

    patch.setattr(measured_plan, "time_batches", time_in_words)
    patch.setattr(torch, "get_num_threads", lambda: count[0])
    patch.setattr(torch, "set_num_threads", lambda number: count.__setitem__(0, number))
    patch.setattr(first_batches, "find_machine_share", lambda device, number: 1.0)
    return measure_missing_runs(planned, Store(folder / "out"), folder, "cpu", gpus)


def test_places_are_forecast_by_measured_batches(planned: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = measure(planned, tmp_path, monkeypatch)
    assert found.problems == () and found.took_s > 0
    cnn = RUN_SECONDS["trained"] + 2.0 * (40 + 3 * 2 * 80)  # 40 rows to test, two epochs of 80, forward and backward
    vit = RUN_SECONDS["trained"] + 2.0 * (40 + 3 * 1 * 80)
    mean = RUN_SECONDS["average"]
    whole = 3 * (cnn + vit + mean)
    assert found.cost.seconds == pytest.approx(whole)
    alone, two, four = found.places
    decoding = found.decode_seconds
    assert (alone.words, two.words, four.words) == ("", "-j 2", "-j 4") and [p.processes for p in found.places] == [1, 2, 4]
    assert alone.seconds == pytest.approx(whole + decoding)
    low, high = (3 * (f * (cnn + vit) + g * mean) for f, g in ((0.5, 0.85), (2.0, 1.15)))
    assert (alone.low, alone.high) == (pytest.approx(low + decoding), pytest.approx(high + decoding))
    # Of 4 threads: 3 times as long on one, so 1 + (3 - 1) / (1 - 1/4) · (1/2 - 1/4) = 5/3 on two
    slow, fast = (5 / 3 * each for each in (cnn, vit))
    # Two workers: cnn beside cnn; cnn beside vit; vit behind both; and the last average when its vit is done
    assert two.seconds == pytest.approx(2 * slow + fast + mean + decoding)
    # Four, each with one thread: three cnn beside a vit, on whose worker the next vit is done after a cnn; the third vit is last
    assert four.seconds == pytest.approx(3 * cnn + 3 * vit + mean + decoding)
    assert alone.memory_bytes == 3 << 30
    parameters = sum(catalog.find_architecture(name).parameters or 0 for name in ("test_resnet", "test_vit"))
    assert found.result_bytes == 3 * 4 * parameters + 9 * 40 * (40 + 100)


def test_speeds_are_kept_and_what_cannot_be_measured_is_said(
    planned: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_for_vit(task: TrainingTask, batches: int) -> Iterator[BatchTimes]:
        if task.candidate.name == "vit":
            raise RuntimeError("out of memory\nand more")
        yield BatchTimes("cnn", task.candidate.backbones, "trained", (2.0,) * batches, 1)

    monkeypatch.setattr(measured_plan, "time_batches", fail_for_vit)
    found = measure_missing_runs(planned, Store(tmp_path / "out"), tmp_path, "cpu")
    assert found.problems == ("vit: out of memory",)
    networks = load_measured_speeds(tmp_path).networks
    assert networks.keys() == {"cpu test_resnet trained"}
    (backbone,) = planned.runs[0].candidate.backbones
    seconds = load_measured_speeds(tmp_path).image_seconds(backbone, 32, "cpu", "trained")
    assert seconds == pytest.approx(2.0 / find_machine_share("cpu", torch.get_num_threads()))


def test_gpus_are_a_place_of_their_own(planned: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = measure(planned, tmp_path, monkeypatch, gpus=3, threads=1)
    assert [(p.words, p.processes) for p in found.places] == [("", 1), ("--devices all", 3)]
    cnn = RUN_SECONDS["trained"] + 2.0 * (40 + 3 * 2 * 80)
    vit = RUN_SECONDS["trained"] + 2.0 * (40 + 3 * 1 * 80)
    assert found.places[1].seconds == pytest.approx(cnn + vit + RUN_SECONDS["average"] + found.decode_seconds)


def test_what_the_figures_of_several_processes_leave_out_is_said(
    planned: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "not counted: that several processes slow one another by sharing memory, caches and the disk"
    for threads in (4, 1):
        plan_command._print_measured(measure(planned, tmp_path, monkeypatch, threads=threads))
        shown = " ".join(capsys.readouterr().out.split())
        assert "(this process)" in shown and (words in shown) == (threads > 1)


def test_threads_share_a_part_of_the_work() -> None:
    assert slow_down(3.0, 4, 4) == 1 and slow_down(3.0, 4, 1) == 3 and slow_down(1.0, 8, 2) == 1 and slow_down(5.0, 1, 1) == 1
    assert slow_down(4.0, 4, 2) == pytest.approx(2.0), "four times as long on one thread: twice as long on two"


def make_runs(*needs: tuple[int, ...]) -> list[Any]:
    candidate = SimpleNamespace(is_ensemble=False)
    return [SimpleNamespace(key=str(n), waits_for=tuple(map(str, each)), candidate=candidate) for n, each in enumerate(needs)]


def test_runs_are_scheduled_as_workers_take_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured_plan, "is_batched", lambda run: False)
    seconds = {"0": 10.0, "1": 4.0, "2": 1.0, "3": 5.0}

    def schedule(runs: list[Any], workers: int) -> float:
        return schedule_runs(runs, workers, lambda run: seconds[run.key])

    assert schedule(make_runs((), (), (), ()), 1) == 20
    assert schedule(make_runs((), (), (), ()), 2) == 10  # 10 beside 4 + 1 + 5
    assert schedule(make_runs((), (), (0,), ()), 2) == 11  # run 2 waits for run 0; run 3 is taken in its place
    assert schedule(make_runs((), (0,), (1,), (2,)), 8) == 20  # a chain
    assert schedule(make_runs(("99",)), 2) == 10 and schedule([], 2) == 0  # type: ignore[arg-type]


def test_the_command_measures_real_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOROPTER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "study.yaml").write_text(STUDY)
    arguments = ["plan", str(tmp_path / "study.yaml"), "-o", str(tmp_path / "out"), "--device", "cpu"]
    before = CliRunner().invoke(main, arguments)
    shown = CliRunner().invoke(main, [*arguments, "--measure"])
    assert shown.exit_code == 0, shown.output
    assert "a guess; the first run measures it" in before.output and "at the speed of earlier runs here" in shown.output
    assert "(this process)" in shown.output and "by a few batches of each network" in shown.output
    assert load_measured_speeds(tmp_path / "cache").networks.keys() == {"cpu test_resnet trained", "cpu test_vit trained"}
    assert not (tmp_path / "out").exists()

"""What `plan` says of evaluating on corrupted rows: images counted by hand, and runs that must be trained again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from phoropter.core.files import cache_dir
from phoropter.results.store import Store
from phoropter.study.executors import execute_study
from phoropter.study.plan import Plan, plan_study
from phoropter.study.shifts.shift_forecast import describe_shift, forecast_shift
from phoropter.study.spec import read_study
from phoropter.study.worker import ComputeOptions

STUDY = """\
name: costs
data: {digits: true, size: 32, max_samples: 60}
protocol: {split: stratified-k-fold, folds: 2, seeds: [0]}
candidates:
  - {backbone: test_resnet, weights: random, frozen: true, recipe: logistic, name: frozen}
  - {backbone: test_resnet, weights: random, recipe: {preset: scratch, epochs: 1}, name: trained}
  - {baseline: mean-image}
"""


def plan(folder: Path, shift: str) -> Plan:
    (folder / "s.yaml").write_text(STUDY + shift)
    return plan_study(read_study(folder / "s.yaml")[0])


def test_a_frozen_network_sees_every_tested_row_once_a_level_and_a_trained_one_those_of_its_split(tmp_path: Path) -> None:
    planned = plan(tmp_path, "shift: {blur: [1, 2], noise: 0.1}\n")
    found = forecast_shift(planned, Store(tmp_path / "out"), cache_dir())
    # 60 rows, each tested once: features of the frozen one are shared, those of random weights by the splits of a seed
    assert found.images == 3 * 60 + 3 * 60 and found.n_runs == 6 and found.seconds > 0 and found.retrained == ()
    (line,) = describe_shift(planned, Store(tmp_path / "out"), cache_dir())
    assert "6 runs answer for 3 corrupted versions of the test rows: 360 images" in line
    assert describe_shift(plan(tmp_path, ""), Store(tmp_path / "out"), cache_dir()) == []


def test_finished_runs_whose_models_were_not_kept_are_trained_again(tmp_path: Path) -> None:
    plan(tmp_path, "")
    study = read_study(tmp_path / "s.yaml")[0]
    store = execute_study(study, tmp_path / "out", lambda event: None, options=ComputeOptions("cpu", threads=1))
    planned = plan(tmp_path, "shift: {blur: 2}\n")
    found = forecast_shift(planned, store, cache_dir())
    assert {run.title for run in found.retrained} == {
        r.title for r in planned.runs if r.split.fold == 1 and not r.candidate.table
    }
    assert "2 finished runs are trained again" in describe_shift(planned, store, cache_dir())[1]
    study = read_study(tmp_path / "s.yaml")[0]
    execute_study(study, tmp_path / "out", lambda event: None, options=ComputeOptions("cpu", threads=1))
    assert describe_shift(planned, store, cache_dir()) == [
        "shift: all runs that can answer have answered for all corrupted versions of the test rows"
    ]
    added = forecast_shift(plan(tmp_path, "shift: {blur: [2, 3]}\n"), store, cache_dir())
    assert (added.n_runs, added.n_levels, added.images) == (6, 1, 60 + 60)
    shutil.rmtree(tmp_path / "out" / "shift")
    assert forecast_shift(planned, store, cache_dir()).n_runs == 6


@pytest.mark.process
def test_the_forecast_loads_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, phoropter.study.shifts.shift_forecast; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

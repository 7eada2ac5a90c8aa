"""The answers that are timed are those of the bundle, from the same files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from phoropter.core.errors import DataError
from phoropter.deploy.predict import open_bundle, predict_paths
from phoropter.results.store import Store
from phoropter.study.plan import PlannedRun
from phoropter.study.records import answer_time, run_record
from phoropter.study.records.answer_time import answer_rows, measure_answer_seconds
from phoropter.study.records.cost_record import describe_run_cost
from phoropter.study.spec import read_study
from phoropter.study.worker import compute_missing_runs
from phoropter.training.fit import TrainedRun

STUDY = """\
name: files
data: {folder: pictures, size: 32}
protocol: {split: hold-out, test_size: 0.5, seeds: [0]}
save_models: all
candidates:
  - {name: probe, backbone: test_resnet, weights: random, frozen: true, recipe: {preset: probe, epochs: 1}}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[PlannedRun, TrainedRun, Path]:
    root = tmp_path_factory.mktemp("answers")
    rng = np.random.default_rng(0)
    for i in range(40):
        file = root / "pictures" / f"class{i % 2}" / f"{i:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(file)
    (root / "study.yaml").write_text(STUDY)
    seen: list[tuple[PlannedRun, TrainedRun]] = []

    def described(run: PlannedRun, fitted: TrainedRun, *rest: Any) -> dict[str, Any]:
        seen.append((run, fitted))
        return describe_run_cost(run, fitted, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_record, "describe_run_cost", described)
        compute_missing_runs(read_study(root / "study.yaml")[0], root / "out", lambda event: None, cache=root / "cache")
    return (*seen[0], root)


def test_the_timed_answers_are_those_of_the_bundle(trained: Any) -> None:
    run, fitted, root = trained
    rows = run.split.test
    (bundle,) = Store(root / "out").folder.glob("runs/*/bundle")
    names = [root / "pictures" / str(i) for i in run.image_set.dataset.ids[rows]]
    predicted = predict_paths(open_bundle(bundle), names, device="cpu")
    np.testing.assert_allclose(answer_rows(run, fitted, rows), predicted.probabilities, atol=1e-6)


def test_the_batches_are_of_one_and_of_32_and_the_median_is_kept(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run, fitted, _ = trained
    shown: list[int] = []
    monkeypatch.setattr(answer_time, "answer_rows", lambda run, fitted, rows: shown.append(len(rows)))
    clock = iter([0, 9, 9, 10, 10, 12] + [t for i in range(99) for t in (i, i + 5)])  # 9 s: the budget is spent at once
    monkeypatch.setattr("phoropter.study.records.answer_time.time.perf_counter", lambda: next(clock))
    monkeypatch.setattr(answer_time, "BUDGET_S", 10.5)
    assert measure_answer_seconds(run, fitted) == {"answer_seconds_1": 2, "answer_seconds_32": 5}
    assert shown == [1, 1, 1, 1, 32, 32, 32]  # the first is not timed


def test_a_picture_that_is_gone_leaves_the_time_unknown(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run, fitted, _ = trained

    class Gone:
        def read(self, row: int) -> Any:
            raise DataError("it is gone")

        def select(self, rows: Any) -> Gone:
            return self

    dataset = replace(run.image_set.dataset, pictures=Gone())
    lost = replace(run, image_set=replace(run.image_set, dataset=dataset))
    assert measure_answer_seconds(lost, fitted) == {"answer_seconds_1": None, "answer_seconds_32": None}
    few = replace(run.image_set, dataset=run.image_set.dataset.select_rows(np.arange(20)))
    small = replace(run, image_set=few, split=replace(run.split, test=np.arange(5)))
    assert measure_answer_seconds(small, fitted)["answer_seconds_32"] is None

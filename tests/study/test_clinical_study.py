"""A study that names its positive class and subgroups: what is written, and that naming others computes no run anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score

from phoropter.results.positive_class import open_results
from phoropter.results.subgroup_file import FILE, load_subgroups
from phoropter.study.executors import execute_study
from phoropter.study.spec import read_study
from phoropter.study.worker import ComputeOptions

STUDY = """\
name: people
data: {{manifest: people.csv, size: 32{extra}}}
protocol: {{split: stratified-group-k-fold, folds: 2, seeds: [0]}}
candidates: [{{backbone: test_resnet, weights: random, frozen: true, recipe: logistic}}]
{keys}
metrics: [average_precision]
"""


def run_people(folder: Path, extra: str, keys: str = "") -> list[float]:
    """Runs it; returns when each run was written."""
    (folder / "study.yaml").write_text(STUDY.format(extra=extra, keys=keys))
    execute_study(
        read_study(folder / "study.yaml")[0], folder / "out", lambda event: None, options=ComputeOptions("cpu", threads=1)
    )
    return [path.stat().st_mtime for path in sorted((folder / "out" / "runs").glob("*/record.json"))]


def test_the_positive_class_and_subgroups_are_written_beside_the_runs(tmp_path: Path) -> None:
    draw, lines = np.random.default_rng(0), ["path,label,group,sex"]
    for i in range(32):
        ill, sex = i // 2 % 2, "mf"[i // 4 % 2]
        Image.fromarray(draw.integers(0, 120 + 100 * ill, (32, 32, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{'well' if ill else 'ill'},p{i // 2},{sex}")
    (tmp_path / "people.csv").write_text("\n".join(lines) + "\n")
    first = run_people(tmp_path, ", positive: ill, subgroups: [sex]", "aggregate: vote\nclinical: {prevalence: 0.1}")
    store = open_results(tmp_path / "out")
    assert store.study["dataset"]["positive"] == "ill" and store.study["dataset"]["classes"] == ["well", "ill"]
    assert store.study["study"]["aggregate"] == "vote" and store.study["study"]["clinical"] == {"prevalence": 0.1}
    run = next(iter(store.runs()))
    found = run.load_predictions()
    assert found is not None and run.record["classes"] == ["well", "ill"]
    area = average_precision_score(found.labels, found.probabilities[:, 1])
    assert run.record["metrics"]["average_precision"] == pytest.approx(area)  # of ill, by which a screening would choose
    numbers = [int(str(i).removesuffix(".png")) for i in found.ids]
    assert found.labels.tolist() == [1 - i // 2 % 2 for i in numbers]  # ill is the last
    assert load_subgroups(tmp_path / "out").find_rows(found.ids)["sex"].tolist() == ["mf"[i // 4 % 2] for i in numbers]
    assert run_people(tmp_path, ", positive: well") == first and len(first) == 2  # no run is computed anew
    assert open_results(tmp_path / "out").study["dataset"]["classes"] == ["ill", "well"]
    assert not (tmp_path / "out" / FILE).exists()

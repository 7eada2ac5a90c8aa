"""Which runs can answer on corrupted rows, and on which rows of the dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from made_rows import save_frame
from phoropter.study.plan import Plan, plan_study
from phoropter.study.shifts.asked_answers import AskedAnswers
from phoropter.study.spec import read_study

STUDY = """\
name: asked
data: {digits: true, size: 32, max_samples: 60}
protocol: {split: hold-out, seeds: [0]}
candidates:
  - {backbone: test_resnet, weights: random, frozen: true, recipe: logistic, name: frozen}
  - {backbone: test_resnet, weights: random, recipe: {preset: scratch, epochs: 1}, name: trained}
  - {features: f.csv, name: theirs}
  - {baseline: mean-image}
  - {fuse: [frozen, trained], mode: ensemble, name: both}
"""


def plan(folder: Path, text: str) -> Plan:
    (folder / "s.yaml").write_text(text)
    return plan_study(read_study(folder / "s.yaml")[0])


@pytest.fixture
def planned(tmp_path: Path) -> Plan:
    dataset = plan(tmp_path, STUDY.replace("  - {features: f.csv, name: theirs}\n", "")).image_sets[0].dataset
    save_frame(pd.DataFrame({"id": dataset.ids, "x": np.arange(60.0)}), tmp_path / "f.csv")
    return plan(tmp_path, STUDY + "shift: {blur: 2}\n")


def test_all_answer_but_tables_that_were_made_elsewhere(planned: Plan, tmp_path: Path) -> None:
    asked = AskedAnswers(planned, tmp_path)
    assert {r.candidate.name: asked.can_answer(r) for r in planned.runs} == {
        "frozen": True,
        "trained": True,
        "theirs": False,
        "mean-image": True,
        "both": True,
    }
    none = AskedAnswers(plan(tmp_path, STUDY), tmp_path)
    assert not any(none.can_answer(r) for r in none.planned.runs) and none.list_corruptions(planned.image_sets[0]) == ()


def test_only_tested_rows_are_corrupted(planned: Plan, tmp_path: Path) -> None:
    rows = AskedAnswers(planned, tmp_path).list_tested_rows(planned.image_sets[0])
    assert np.array_equal(rows, np.sort(planned.splits[0].test)) and 0 < len(rows) < 60

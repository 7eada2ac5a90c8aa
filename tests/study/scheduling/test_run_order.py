"""Under a budget every candidate has its first fold before any has its second, and what a run needs is there before it."""

from __future__ import annotations

from pathlib import Path

from phoropter.study.plan import Plan, plan_study
from phoropter.study.scheduling.run_order import order_by_folds
from phoropter.study.spec import read_study

STUDY = """\
name: ordered
data: {digits: true, size: 32, max_samples: 60}
protocol: {split: stratified-k-fold, folds: 2, seeds: [0, 1]}
learning_curve: {shares: [0.5]}
candidates:
  - {name: cnn, backbone: test_resnet, weights: random, recipe: {preset: scratch, epochs: 1}}
  - {name: vit, backbone: test_vit, weights: random, recipe: {preset: scratch, epochs: 1}}
  - {name: mean, fuse: [cnn, vit], mode: ensemble}
  - {name: taught, student: test_resnet, weights: random, teacher: vit, loss: soft, recipe: {epochs: 1}}
"""


def plan_with(tmp_path: Path, more: str = "") -> Plan:
    (tmp_path / "study.yaml").write_text(STUDY + more)
    return plan_study(read_study(tmp_path / "study.yaml")[0])


def test_every_candidate_has_its_first_fold_before_any_has_its_second(tmp_path: Path) -> None:
    planned = plan_with(tmp_path)
    ordered = order_by_folds(planned, planned.runs)
    compared = [run for run in ordered if run.role == "compared"]
    assert [r.split.name for r in compared] == [s.name for s in planned.splits for _ in range(4)]
    assert [r.candidate.name for r in compared[:4]] == ["cnn", "vit", "mean", "taught"]
    assert ordered[: len(compared)] == compared and {r.role for r in ordered[len(compared) :]} == {"learning-curve"}
    assert len(ordered) == len(planned.runs) and {r.key for r in ordered} == planned.by_key.keys()
    places = {run.key: place for place, run in enumerate(ordered)}
    assert all(places[need] < places[run.key] for run in ordered for need in run.waits_for)


def test_trials_stand_before_the_run_that_they_are_for(tmp_path: Path) -> None:
    planned = plan_with(tmp_path, "tune: {grid: {recipe.lr: [0.01, 0.001]}, folds: 2, candidates: [cnn]}\n")
    ordered = order_by_folds(planned, planned.runs)
    places = {run.key: place for place, run in enumerate(ordered)}
    tuned = [run for run in planned.compared if run.trials]
    assert tuned and all(places[key] < places[run.key] for run in tuned for key in run.waits_for)
    first = next(run for run in planned.compared if run.split.name == planned.splits[0].name and run.candidate.name == "vit")
    later = next(run for run in tuned if run.split.name == planned.splits[1].name)
    assert places[first.key] < min(places[key] for key in later.waits_for)


def test_a_part_of_the_runs_keeps_its_order(tmp_path: Path) -> None:
    planned = plan_with(tmp_path)
    few = planned.compared[::3]
    whole = [run for run in order_by_folds(planned, planned.runs) if run in few]
    assert order_by_folds(planned, few) == whole

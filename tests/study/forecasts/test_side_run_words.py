"""What `plan` says of the runs that `tune` and `learning_curve` add."""

from __future__ import annotations

from pathlib import Path

from phoropter.study.forecasts.side_run_words import describe_side_runs
from phoropter.study.plan import plan_study
from phoropter.study.spec import read_study

STUDY = """\
name: a
data: {digits: true, size: 32, max_samples: 100}
protocol: {split: stratified-k-fold, folds: 2}
candidates: [{name: cnn, backbone: test_resnet, weights: random, recipe: scratch}, {baseline: mean-image}]
"""


def describe(tmp_path: Path, more: str) -> list[str]:
    (tmp_path / "study.yaml").write_text(STUDY + more)
    return describe_side_runs(plan_study(read_study(tmp_path / "study.yaml")[0], tmp_path / "cache"))


def test_trials_and_shares_are_counted(tmp_path: Path) -> None:
    assert describe(tmp_path, "") == []
    # 2 folds at 2 sizes, each with 3 values on 3 inner folds; without trials 2 candidates × 2 folds × 2 sizes are left
    assert describe(tmp_path, "tune: {recipe.lr: [1, 2, 3]}\nlearning_curve: [0.5]\n") == [
        "tune: 36 of the runs are trials on 3 inner folds of a training part, by which Accuracy chooses the values of cnn "
        "(3 combinations); without it there would be 8 runs",
        "learning_curve: 4 of the runs are trained on shares of the training part (50 %)",
    ]

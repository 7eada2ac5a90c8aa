"""`tune` and `learning_curve` from end to end: what is chosen, from which rows; and a stopped study ends in the same bytes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from phoropter.core.errors import SpecError
from phoropter.data.sources.arrays import from_arrays
from phoropter.refit.finished_study import open_finished_study
from phoropter.results.store import Store
from phoropter.study.executors import execute_study
from phoropter.study.load import load_study
from phoropter.study.plan import plan_study
from phoropter.study.progress import count_run_states
from phoropter.study.records.study_record import describe_study
from phoropter.study.side_runs.tuned_run import choose_for_all_rows, choose_trial
from phoropter.study.spec import StudySpec, read_study
from phoropter.study.worker import ComputeOptions
from small_pictures import draw_dark_and_light, run_small_study

HERE = ComputeOptions("cpu", threads=1)
STUDY = """\
name: tuned
data: {folder: pictures, size: 32}
protocol: {split: k-fold, folds: 2}
metrics: [accuracy, log_loss]
recipe: {preset: scratch, epochs: 1}
learning_curve: [0.5, 1.0]
tune: {recipe.lr: [0.0001, 0.01], baseline.classifier: [logistic, gradient-boosting],
  folds: 2, metric: log_loss, candidates: [probe, mean-image]}
candidates:
  - {name: cnn, backbone: test_resnet, weights: random}
  - {name: probe, backbone: test_resnet, weights: random, frozen: true, recipe: {preset: probe, epochs: 3}}
  - {baseline: mean-image}
  - {fuse: [probe, cnn], mode: ensemble, name: both}
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("tuned")
    draw_dark_and_light(folder / "pictures", 12, size=(32, 32), greys=(90, 100), noise=100)
    return run_small_study(folder, STUDY)


def read_text(tmp_path: Path, text: str) -> StudySpec:
    (tmp_path / "study.yaml").write_text(text)
    if not (tmp_path / "pictures").exists():
        draw_dark_and_light(tmp_path / "pictures", 4, size=(32, 32))
    return read_study(tmp_path / "study.yaml")[0]


def read_predictions(store: Store) -> dict[str, bytes]:
    return {str(r["key"]): (store.run(str(r["key"])).folder / "predictions.npz").read_bytes() for r in store.planned_rows}


def test_side_runs_stand_beside_the_comparison(done: Store) -> None:
    assert not done.read_failures()
    study = done.study
    assert {row["candidate"] for row in study["plan"]} == {"cnn", "probe", "mean-image", "both"} and len(study["plan"]) == 8
    roles = [(row["role"], row["candidate"]) for row in study["side_plan"]]
    assert roles.count(("learning-curve", "cnn")) == roles.count(("learning-curve", "both")) == 2
    assert roles.count(("trial", "probe")) == 2 * 2 * 2 * 2  # values × inner folds × folds × sizes
    assert ("trial", "cnn") not in roles and ("trial", "both") not in roles
    assert len(list(done.runs())) == 8  # what reports read
    assert sum(count["done"] for count in count_run_states(done).values()) == len(done.planned_rows) == 8 + len(roles)
    assert done.find_unplanned_runs() == []
    assert study["learning_curve"] == {"of": "rows", "sizes": {"0.5": [6.0, None], "1": [12.0, None]}}


def test_the_chosen_values_are_those_of_the_least_inner_loss(done: Store) -> None:
    """Against scikit-learn's log-loss over the trials' rows, which are all rows that the run was trained on and no other."""
    trials = [row for row in done.study["side_plan"] if row["role"] == "trial"]
    for run in done.runs():
        tuning, name, split = run.record.get("tuning"), run.candidate_name, run.record["split"]["name"]
        if name in ("cnn", "both"):
            assert tuning is None
            continue
        held_out = run.load_predictions()
        assert tuning is not None and held_out is not None and (tuning["metric"], tuning["folds"]) == ("log_loss", 2)
        losses = []
        for score in tuning["scores"]:
            keys = [
                str(row["key"])
                for row in trials
                if row["candidate"] == name and row["split"].endswith(f"of {split}") and row["settings"] == score["settings"]
                if "%" not in row["split"]
            ]
            parts = [done.run(key).load_predictions() for key in keys]
            assert len(parts) == 2 and all(part is not None for part in parts)
            ids, labels = (np.concatenate([getattr(part, field) for part in parts]) for field in ("ids", "labels"))
            shown = np.concatenate([part.probabilities for part in parts if part is not None])
            assert len(set(ids)) == len(ids) == run.record["split"]["n_train"] and not set(ids) & set(held_out.ids)
            losses.append(log_loss(labels, shown, labels=[0, 1]))
            assert score["value"] == pytest.approx(losses[-1], rel=1e-5)
        assert tuning["chosen"] == tuning["scores"][int(np.argmin(losses))]["settings"]
        recorded = run.record["recipe"] if name != "mean-image" else run.record["candidate"]["table"]
        for path, value in tuning["chosen"].items():
            found = recorded["phases"][-1]["lr"] if path == "recipe.lr" else recorded[path.partition(".")[2]]
            assert found == value


def test_a_study_that_lost_runs_ends_in_the_same_bytes(done: Store, tmp_path: Path) -> None:
    """A third of all runs are gone, trials and tuned runs among them."""
    folder = tmp_path / "out"
    shutil.copytree(done.folder, folder)
    for place, row in enumerate(done.planned_rows):
        if place % 3 == 0:
            shutil.rmtree(folder / "runs" / str(row["key"]))
    study = read_study(done.folder.parent / "study.yaml")[0]
    again = execute_study(study, folder, lambda event: None, options=HERE)
    assert read_predictions(again) == read_predictions(done)


def test_no_label_of_the_test_part_has_a_say(tmp_path: Path) -> None:
    """Planted labels in the test part of the only fold: the choice, the trials' answers and the tuned model's stay the same."""
    draw = np.random.default_rng(0)
    pictures = draw.integers(0, 255, (60, 8, 8, 3), dtype=np.uint8)
    labels = np.where(pictures[:, :4].mean(axis=(1, 2, 3)) > pictures[:, 4:].mean(axis=(1, 2, 3)), "up", "down")
    parts = np.where(np.arange(60) < 40, "train", "test")
    found: list[Any] = []
    for planted in (False, True):
        shown = np.where(planted & (parts == "test"), np.where(labels == "up", "down", "up"), labels)
        study = StudySpec(
            name="planted",
            data={"object": from_arrays(pictures, shown.tolist(), parts=parts.tolist(), name="made"), "size": 32},  # type: ignore[arg-type]
            protocol="predefined",  # type: ignore[arg-type]
            tune={"baseline.classifier": ["logistic", "gradient-boosting"], "recipe.l2_penalties": [[0.1], [1e-3]]},  # type: ignore[arg-type]
            candidates=[
                {"baseline": "mean-image"},
                {"name": "solved", "backbone": "test_resnet", "weights": "random", "frozen": True, "recipe": "logistic"},
            ],
        )
        store = execute_study(study, tmp_path / str(planted), lambda event: None, options=HERE)
        runs = list(store.runs())
        predictions = [run.load_predictions() for run in runs]
        tunings, logits = [run.record["tuning"] for run in runs], [p.logits.tolist() for p in predictions if p]
        found.append((tunings, logits, [p.labels.tolist() for p in predictions if p]))
    assert len(found[0][0]) == 2 and found[0][:2] == found[1][:2] and found[0][2] != found[1][2]


def test_settled_runs_leave_the_others_as_they_were(done: Store, tmp_path: Path) -> None:
    """Keys of candidates that are not tuned are those of a study without `tune` and `learning_curve`."""
    lines = [line for line in STUDY.splitlines() if not line.startswith(("tune", "learning_curve", "  folds"))]
    shutil.copytree(done.folder.parent / "pictures", tmp_path / "pictures")
    plain = plan_study(read_text(tmp_path, "\n".join(lines)))
    recorded = {row["candidate"]: row["key"] for row in done.study["plan"]}
    own = {run.candidate.name: run.key for run in plain.compared}
    assert not {"side_plan", "learning_curve"} & describe_study(plain, torch.device("cpu")).keys()
    assert all(not variant.trials for variant in load_study(plain.study))
    assert own["cnn"] == recorded["cnn"] and own["probe"] != recorded["probe"]


def test_refit_takes_the_recorded_values_and_for_all_rows_the_best_on_average(done: Store) -> None:
    study = open_finished_study(done.folder, lambda event: None)
    runs = study.planned_runs("probe")
    records = [done.run(run.key).record["tuning"] for run in runs]
    assert [run.candidate.recipe.phases[-1].lr for run in runs] == [record["chosen"]["recipe.lr"] for record in records]
    means = np.mean([[score["value"] for score in record["scores"]] for record in records], axis=0)
    assert choose_for_all_rows(runs).recipe.phases[-1].lr == (0.0001, 0.01)[int(np.argmin(means))]
    assert choose_for_all_rows(study.planned_runs("cnn")).name == "cnn"


def test_ties_are_won_by_the_first_and_unknown_scores_by_none() -> None:
    assert choose_trial([0.5, 0.7, 0.7], True) == 1 and choose_trial([0.5, 0.2, 0.2], False) == 1
    assert choose_trial([float("nan"), 0.1], True) == 1 and choose_trial([float("nan")], True) is None


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("recipe.lr: [0.0001, 0.01]", "recipe.lr: [0.01]", "recipe.lr has nothing to choose from"),
        ("recipe.lr: [0.0001, 0.01]", "data.size: [32, 64]", "tune is over recipe.…, head.…, fusion.… or baseline.…"),
        ("recipe.lr: [0.0001, 0.01]", "recipe.rate: [1, 2]", "unknown key 'rate'"),
        ("recipe.lr: [0.0001, 0.01]", "baseline.columns: [1, 2]", "of a baseline the classifier can be tuned"),
        (
            "recipe.lr: [0.0001, 0.01]",
            "recipe.lr: [1, 2], fusion.hidden: [8, 16]",
            "no candidate that is tuned reads fusion.hidden",
        ),
        ("candidates: [probe, ", "candidates: [prob, ", "'prob' is no candidate of this study; did you mean 'probe'"),
        ("candidates: [probe, ", "candidates: [both, ", "'both' reads none of"),
        ("recipe.lr: [0.0001, 0.01]", "recipe.lr: [0.01, 1e-2]", "recipe.lr has the value 0.01 twice"),
        ("candidates: [probe, ", "candidates: [probe, probe, ", "the candidate 'probe' is named twice"),
        ("metric: log_loss", "metric: accurcy", "there is no metric 'accurcy'"),
        ("metric: log_loss", "metric: hamming_loss", "the metric 'hamming_loss' has no meaning where rows have one class each"),
        (
            "learning_curve: [0.5, 1.0]",
            "learning_curve: [1e-4, 2e-4]",
            "shares 0.0001 and 0.0002 are the same rows in every split",
        ),
        ("learning_curve: [0.5, 1.0]", "learning_curve: [1.0]", "a learning curve needs a share below 1"),
        ("learning_curve: [0.5, 1.0]", "learning_curve: [0.5, 0.5]", "the share 0.5 is named twice"),
        ("learning_curve: [0.5, 1.0]", "learning_curve: {shares: [0.5], of: groups}", "of: groups needs groups"),
        ("learning_curve: [0.5, 1.0]", "sweep: {recipe.lr: [0.1, 0.2]}", "recipe.lr is swept and tuned"),
        ("learning_curve: [0.5, 1.0]", "screening: true", "'tune' and 'screening' contradict each other"),
        (
            "  - {baseline: mean-image}",
            "  - {student: test_vit, weights: random, teacher: probe, recipe: scratch}",
            "'probe' cannot be tuned, because",
        ),
    ],
)
def test_what_cannot_act_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in STUDY
    text = STUDY.replace(old, new)
    if "student" in new:
        text = text.replace(", mean-image]", "]").replace(" baseline.classifier: [logistic, gradient-boosting],", "")
    with pytest.raises(SpecError, match=r"study\.yaml") as raised:
        plan_study(read_text(tmp_path, text))
    assert words in str(raised.value).replace("\n", " ")


def test_a_curve_of_what_is_not_trained_is_refused(tmp_path: Path) -> None:
    text = (
        "name: a\ndata: {digits: true, size: 32, max_samples: 60}\nlearning_curve: [0.5]\n"
        "candidates: [{backbone: test_resnet, weights: random, recipe: as-is, head: linear}]\n"
    )
    with pytest.raises(SpecError, match="no candidate is trained, so more data would change none"):
        plan_study(read_text(tmp_path, text))

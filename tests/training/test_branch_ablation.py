"""Fusions trained as others are: every branch learns, a branch's own rate and loss are heeded, and a dead branch is seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from phoropter.data.splits.protocol import make_splits
from phoropter.data.splits.spec import KFold
from phoropter.training import fit as room
from phoropter.training.branch_ablation import ablate_branches
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.fine_tuning.phase import Phase
from phoropter.training.candidates.presets import PRESETS, parse_recipe
from phoropter.training.fine_tuning.adapted_network import AdaptedNetwork
from phoropter.training.fit import TrainedRun, TrainingTask, build_model, fit
from phoropter.training.loop.schedule import build_optimizer

torch.set_num_threads(1)
PAIR = [{"name": "test_resnet", "weights": "random", "size": 32}, {"name": "test_vit", "weights": "random", "size": 160}]


def finished(task: TrainingTask) -> TrainedRun:
    training = fit(task)
    while True:
        try:
            next(training)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]


def task_of(digits: Any, folder: Path, recipe: dict[str, Any], **entry: Any) -> TrainingTask:
    dataset, pixels = digits
    (candidate,) = parse_candidates(
        [{"fuse": PAIR, "recipe": recipe, **entry}], parse_recipe({"batch_size": 32}, PRESETS["scratch"])
    )
    return TrainingTask(candidate, make_splits(dataset, KFold(3))[0], dataset, pixels, torch.device("cpu"), folder / "cache")


@pytest.mark.parametrize(
    "entry", [{"mode": "logits"}, {"mode": "logits", "aux_loss_weight": 0.5}, {"mode": "concat", "aux_loss_weight": 0.5}]
)
def test_one_step_moves_every_parameter_of_every_branch(few_digits: Any, tmp_path: Path, entry: dict[str, Any]) -> None:
    task = task_of(few_digits, tmp_path, {"epochs": 1, "lr": 0.01}, dropout=0.0, head={"kind": "dense"}, **entry)
    before = {k: v.clone() for k, v in build_model(task).named_parameters()}
    still = [k for k, v in finished(task).model.named_parameters() if torch.equal(v, before[k])]
    assert not still


def test_the_auxiliary_loss_is_the_branches_own(few_digits: Any, tmp_path: Path) -> None:
    """The objective against the sum written out."""
    task = task_of(few_digits, tmp_path, {"epochs": 1}, aux_loss_weight=0.3, dropout=0.0, head={"kind": "dense"})
    model = build_model(task).eval()
    lesson = room._make_training_setup(task, AdaptedNetwork(model, task.candidate.recipe, 0), None, (), None)
    batch = lesson.batch_source.batch(task.split.train[:8], 0, 0)
    loss, logits = lesson.objective(batch)
    out = model.forward_outputs(batch.inputs)  # type: ignore[arg-type]
    entropy = torch.nn.functional.cross_entropy
    expected = entropy(out.logits, batch.labels) + 0.3 * sum(entropy(own, batch.labels) for own in out.branch_logits)
    assert torch.equal(logits, out.logits)
    torch.testing.assert_close(loss, expected)


def test_a_branch_has_its_own_rate(few_digits: Any, tmp_path: Path) -> None:
    task = task_of(few_digits, tmp_path, {"epochs": 1})
    model = build_model(task)
    model.freeze("all")
    phase = Phase(epochs=1, lr=1e-3, head_lr=1e-2, branch_lr={"test_vit": 1e-5})
    rates = {id(p): g["peak"] for g in build_optimizer(model, task.candidate.recipe, phase).param_groups for p in g["params"]}
    for name, parameter in model.named_parameters():
        slow = name.startswith(("backbones.1.", "head.branches.1."))
        assert rates[id(parameter)] == (1e-5 if slow else 1e-2 if name.startswith("head.") else 1e-3), name


def test_a_total_rate_keeps_a_branch_s_share() -> None:
    base = parse_recipe({"phases": [{"epochs": 2, "lr": 1e-3, "branch_lr": {"test_vit": 1e-5}}]})
    assert parse_recipe({"lr": 1e-2}, base).phases[0].branch_lr == {"test_vit": pytest.approx(1e-4)}


def test_a_frozen_fusion_learns_from_stored_features_alone(
    few_digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its dropout it is trained by `fit`; its pictures are shown to each backbone once."""
    shown: list[int] = []
    take = type(few_digits[1]).batch
    monkeypatch.setattr(
        type(few_digits[1]), "batch", lambda self, rows, out=None: shown.append(len(rows)) or take(self, rows, out)
    )
    task = task_of(few_digits, tmp_path, {"preset": "probe", "epochs": 3}, frozen=True)
    fitted = finished(task)
    assert fitted.features is not None and sum(shown) == 2 * len(task.dataset)
    assert fitted.predict_held_out(task.split.test)[0].shape == (len(task.split.test), 10) and sum(shown) == 2 * len(task.dataset)


@pytest.mark.parametrize("mode", ["logits", "concat"])
def test_a_branch_fed_noise_is_seen(few_digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """The first branch's features tell the classes apart, the second's are noise."""
    recipe = {"phases": [{"train": "head", "epochs": 30, "lr": 1e-2}]}
    task = task_of(
        few_digits, tmp_path, recipe, frozen=True, mode=mode, dropout=0.0, hidden=64, head={"kind": "dense"}, aux_loss_weight=0.3
    )
    widths = [b.num_features for b in build_model(task).branches]
    draw = np.random.default_rng(0)
    noise = [draw.normal(size=(len(task.dataset), w)).astype(np.float32) for w in widths]
    told = noise[0] + 4 * draw.normal(size=(10, widths[0])).astype(np.float32)[task.dataset.labels]
    monkeypatch.setattr(room, "extract_features", lambda *_: (told, noise[1]))
    fitted = finished(task)
    seeing, blind = ablate_branches(fitted, task.split.train, task.split.test)
    assert seeing["accuracy"] > 0.9 and blind["accuracy"] < 0.4
    assert blind["without"] >= blind["fused"] - 0.1 > 0.7  # nothing is owed to it
    assert seeing["without"] < 0.4  # everything is owed to the other


def test_a_branch_left_out_is_its_mean_over_training_rows(few_digits: Any, tmp_path: Path) -> None:
    """Written out by hand for fused features."""
    fitted = finished(task_of(few_digits, tmp_path, {"preset": "probe", "epochs": 3}, frozen=True, mode="concat"))
    split, labels = fitted.task.split, fitted.task.dataset.labels
    assert fitted.features is not None
    first, second = (torch.from_numpy(np.array(f)) for f in fitted.features)
    mean = first[split.train].mean(0, keepdim=True).expand(len(split.test), -1)
    with torch.inference_mode():
        logits = fitted.model.eval().head.fusing(torch.cat([mean, second[split.test]], 1))[0]  # type: ignore[operator, union-attr]
    found = ablate_branches(fitted, split.train, split.test)[0]
    assert found["without"] == pytest.approx(float((logits.argmax(1).numpy() == labels[split.test]).mean()))
    assert found["accuracy"] is None


def test_a_fusion_at_work_is_judged_from_pictures_too(few_digits: Any, tmp_path: Path) -> None:
    fitted = finished(task_of(few_digits, tmp_path, {"epochs": 1}))
    rows = ablate_branches(fitted, fitted.task.split.train, fitted.task.split.test)
    logits = fitted.predict_held_out(fitted.task.split.test)[0]
    whole = float((logits.argmax(1) == fitted.task.dataset.labels[fitted.task.split.test]).mean())
    assert [r["name"] for r in rows] == ["test_resnet", "test_vit"] and all(r["fused"] == pytest.approx(whole) for r in rows)

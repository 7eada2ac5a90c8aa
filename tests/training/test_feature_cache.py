"""A frozen backbone is asked about a few fixed views of each picture, and heads learn from them as from pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from phoropter.core.errors import SpecError
from phoropter.data.splits.protocol import make_splits
from phoropter.data.splits.spec import KFold
from phoropter.models.classifier import Classifier
from phoropter.models.inference.folded_norms import fold_norms
from phoropter.training import array_cache
from phoropter.training import feature_cache as caches
from phoropter.training.augmentation.pipeline import Augmentation
from phoropter.training.batches.loading import Batch, PixelLoader
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.presets import PRESETS, parse_recipe
from phoropter.training.fit import TrainedRun, TrainingTask, build_model, fit, make_batch_sampler, training_features
from phoropter.training.frozen.batched_fit import can_batch, fit_batched
from phoropter.training.loop.checkpoint import Checkpoints
from phoropter.training.loop.training_loop import TrainingSetup, train
from phoropter.training.predict import predict_from_pixels

torch.set_num_threads(1)

RECIPE = {
    "preset": "probe",
    "augment": ["hflip", {"random-crop": {"padding": 2}}],
    "cached_views": 2,
    "batch_size": 16,
    "epochs": 5,
    "lr": 0.05,
}


def candidate(recipe: dict[str, Any], **more: Any) -> Candidate:
    entry = {"backbone": "test_resnet", "weights": "random", "size": 32, "frozen": True, "recipe": recipe, **more}
    return parse_candidates([entry], PRESETS["scratch"])[0]


def tasks(few_digits: Any, cache: Path, recipe: dict[str, Any], **more: Any) -> list[TrainingTask]:
    dataset, pixels = few_digits
    made = make_splits(dataset, KFold(2, seeds=[0, 1]))
    return [TrainingTask(candidate(recipe, **more), split, dataset, pixels, torch.device("cpu"), cache) for split in made]


def test_features_are_those_of_the_network_whose_batch_norms_are_folded(few_digits: Any, tmp_path: Path) -> None:
    """Bit for bit, and up to rounding those of the network itself."""
    task = tasks(few_digits, tmp_path, {"preset": "probe"})[0]
    model = build_model(task)
    features = caches.extract_features(model, task.pixels, tmp_path, task.device)[0]
    squares = torch.from_numpy(task.pixels.batch(np.arange(len(task.pixels))))
    with torch.inference_mode():
        folded, plain = (each.eval().forward_features(squares)[0].numpy() for each in (fold_norms(model), model))
    np.testing.assert_array_equal(features, folded)
    np.testing.assert_allclose(features, plain, rtol=1e-4, atol=1e-5 * np.abs(plain).max())
    assert not np.array_equal(features, plain), "or nothing was folded"


def test_features_by_onnx_runtime_are_the_networks_own_and_have_an_entry_of_their_own(few_digits: Any, tmp_path: Path) -> None:
    """The network is written as ONNX once for all cached views, and not at all where everything is in the cache."""
    pytest.importorskip("onnxruntime")
    recipe = {**RECIPE, "feature_engine": "onnxruntime"}
    task = tasks(few_digits, tmp_path, recipe)[0]
    model, written = build_model(task), []
    identities = tuple(b.identity for b in model.branches)
    plain = caches.extract_features(model, task.pixels, tmp_path, task.device)[0]
    make = caches.make_onnx_branch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(caches, "make_onnx_branch", lambda backbone: written.append(backbone.name) or make(backbone))
        for _ in range(2):
            features = caches.extract_features(model, task.pixels, tmp_path, task.device, engine="onnxruntime")[0]
            views = training_features(task, model, (features,), identities)
            assert written == ["test_resnet"] * 2, "once for the clean images, once for both views, and never again"
    assert features.filename != plain.filename and not np.array_equal(features, plain)
    np.testing.assert_allclose(features, plain, rtol=1e-4, atol=1e-5 * np.abs(plain).max())
    usual = training_features(replace(task, candidate=candidate(RECIPE)), model, (plain,), identities)
    assert len(views) == 2
    for view, of_torch in zip(views, usual, strict=True):
        np.testing.assert_allclose(view[0], of_torch[0], rtol=1e-4, atol=1e-5 * np.abs(plain).max())


def alone(task: TrainingTask) -> TrainedRun:
    training = fit(task)
    while True:
        try:
            next(training)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]


class Live:
    """The plain way: pictures of epoch e mod `count`, augmented and shown to the backbone in every epoch."""

    def __init__(self, tap: PixelLoader, count: int) -> None:
        self.tap, self.count = tap, count

    def batch(self, rows: Any, epoch: int, index: int) -> Batch:
        return self.tap.batch(rows, epoch % self.count, index)


def live(task: TrainingTask, count: int) -> tuple[Classifier, list[dict[str, Any]]]:
    model, recipe = build_model(task), task.candidate.recipe
    tap = PixelLoader(task.dataset, task.pixels, Augmentation(recipe.augment, seed=task.split.seed), task.device)

    def objective(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        logits = model(batch.inputs)
        return torch.nn.functional.cross_entropy(logits, batch.labels), logits

    rows = list(
        train(model, recipe, TrainingSetup(Live(tap, count), make_batch_sampler(task), objective), Checkpoints(None), task.device)
    )
    return model, [row for row in rows if isinstance(row, dict)]


@pytest.mark.parametrize("how", ["together", "alone"])
def test_heads_end_as_if_the_backbone_had_seen_the_same_views_in_every_epoch(few_digits: Any, tmp_path: Path, how: str) -> None:
    more = {} if how == "together" else {"recipe": {**RECIPE, "grad_accum_steps": 2}}
    made = tasks(few_digits, tmp_path, **{"recipe": RECIPE, **more})
    assert can_batch(made[0].candidate) == (how == "together")
    outcomes = fit_batched(made) if how == "together" else [alone(task) for task in made]
    for task, outcome in zip(made, outcomes, strict=True):
        assert isinstance(outcome, TrainedRun)
        model, history = live(task, 2)
        expected, _ = predict_from_pixels(model, task.pixels, task.split.test, task.device)  # of the clean view
        np.testing.assert_allclose(outcome.predict_held_out(task.split.test)[0], expected, rtol=1e-3, atol=1e-4)
        for row, wanted in zip(outcome.history, history, strict=True):
            assert row["train_loss"] == pytest.approx(wanted["train_loss"], rel=1e-4)
    one_view, _ = live(made[0], 1)  # another pool is another answer, so the comparison above can fail
    first = outcomes[0]
    assert isinstance(first, TrainedRun)
    assert not np.allclose(
        predict_from_pixels(one_view, made[0].pixels, made[0].split.test, made[0].device)[0],
        first.predict_held_out(made[0].split.test)[0],
        atol=1e-2,
    )


def test_each_view_is_asked_once_for_all_folds_and_a_larger_pool_asks_only_for_what_is_new(
    few_digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    forward = Classifier.forward_features

    def counted(self: Classifier, pictures: torch.Tensor, only: int | None = None) -> Any:
        asked.append(len(pictures))
        return forward(self, pictures, only)

    monkeypatch.setattr(Classifier, "forward_features", counted)
    count = len(few_digits[0])
    fit_batched(tasks(few_digits, tmp_path, RECIPE))
    assert sum(asked) == count * (1 + 2) * 2  # the clean one and two views, for each of two random backbones
    fit_batched(tasks(few_digits, tmp_path, {**RECIPE, "cached_views": 3}))
    assert sum(asked) == count * (1 + 3) * 2
    fit_batched(tasks(few_digits, tmp_path, {**RECIPE, "cached_views": 99, "epochs": 3}))  # no more views than epochs
    assert sum(asked) == count * (1 + 3) * 2


def test_a_killed_pass_goes_on_and_ends_with_the_same_bytes(
    few_digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caches, "choose_inference_batch", lambda side, device: 16)
    monkeypatch.setattr(array_cache, "CHECKPOINT_BLOCKS", 2)
    task = tasks(few_digits, tmp_path / "whole", RECIPE)[0]
    list(fit(task))
    told: list[int] = []

    def killed(done: int, total: int) -> None:
        told.append(done)
        if total > len(task.dataset) and done > len(task.dataset) + 100:  # within the second view
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(fit(replace(task, cache=tmp_path / "killed", progress=killed)))
    first = max(told)
    told.clear()
    list(fit(replace(task, cache=tmp_path / "killed", progress=lambda done, total: told.append(done))))
    assert first > len(task.dataset) and told[-1] == len(task.dataset) and len(told) < 6  # the rest of the second view alone
    whole, again = (
        {p.parent.name: p.read_bytes() for p in (tmp_path / n / "features").glob("*/features.npy")} for n in ("whole", "killed")
    )
    assert whole == again and len(whole) == 3


def test_the_views_have_no_say_in_what_is_called_alike(few_digits: Any, tmp_path: Path) -> None:
    fit_batched(tasks(few_digits, tmp_path, RECIPE))
    assert len(list((tmp_path / "features").glob("*/about.json"))) == 2  # of the clean passes, which the audit compares


@pytest.mark.parametrize(
    ("recipe", "more", "words"),
    [
        ({"augment": "cutmix"}, {}, "cutmix contradict"),
        ({"augment": ["hflip", "cutout"]}, {}, "cutout contradict"),
        ({}, {}, "belongs to augment"),
        ({"augment": "hflip", "tta": "flip"}, {}, "one unaugmented view"),
        ({"augment": "hflip", "preset": "finetune"}, {"frozen": False}, "frozen: true"),
    ],
)
def test_what_cannot_be_kept_is_said(recipe: dict[str, Any], more: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        candidate({"preset": "probe", "cached_views": 2, **recipe}, **more)
    per_picture = {"augment": ["hflip", {"cutout": {"per_sample": True}}], "cached_views": 2}
    assert parse_recipe(per_picture, PRESETS["probe"]).n_cached_views == 2


def test_what_is_not_asked_for_changes_no_key() -> None:
    plain = candidate({"preset": "probe"})
    assert "cached_views" not in plain.identity()["recipe"]
    assert candidate(RECIPE).identity() != candidate({**RECIPE, "cached_views": 3}).identity()

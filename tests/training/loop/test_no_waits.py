"""A step waits for no number of the device: everywhere no value of a tensor is asked for, on a GPU nothing synchronises."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from killed_runs import finish, task_of
from torch.utils._python_dispatch import TorchDispatchMode

from phoropter.core.spec import validate_as
from phoropter.training import fit as training_fit
from phoropter.training.augmentation.pipeline import Augmentation, apply_batched
from phoropter.training.augmentation.randomness import AugmentationDraws
from phoropter.training.candidates.recipe import Recipe

torch.set_num_threads(1)

ASKING = {
    "aten::_local_scalar_dense",
    "aten::is_nonzero",
    "aten::nonzero",
    "aten::masked_select",
    "aten::equal",
    "aten::unique_dim",
}
RECIPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "everything": {
        "ema": 0.9,
        "grad_clip": 1.0,
        "grad_accum_steps": 2,
        "loss": {"kind": "focal", "class_weights": "auto", "smoothing": 0.1},
        "augment": [{"random-resized-crop": {"size": 32}}, "hflip", "color-jitter", {"rotate": {"degrees": 10}}, "mixup"],
    },
    "boxes, sgd": {"augment": ["hflip", {"cutmix": {"per_sample": True}}], "optimizer": "sgd", "schedule": "one-cycle"},
    "several phases": {"phases": [{"train": "head", "epochs": 1, "lr": 1e-2}, {"epochs": 1, "lr": 1e-3}]},
}


class AskedValues(TorchDispatchMode):
    """Counts operations whose outcome the host must know: on a GPU it would wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().partition(".")[0]
        indices = args[1] if name in ("aten::index", "aten::index_put_") else ()
        if name in ASKING or any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices):
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def count_asked(digits: Any, folder: Path, recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What objective and backward pass of a training ask for."""
    asked, make = AskedValues(), training_fit._make_objective

    def make_watched(*given: Any) -> Any:
        objective = make(*given)

        def compute(batch: Any) -> Any:
            with asked:
                loss, logits = objective(batch)
                (loss * 1).backward(retain_graph=True)
            for parameter in given[1].model.parameters():
                parameter.grad = None
            return loss, logits

        return compute

    monkeypatch.setattr(training_fit, "_make_objective", make_watched)
    finish(task_of(digits, folder, recipe))
    return asked.counts


@pytest.mark.parametrize("name", RECIPES)
def test_no_value_is_asked_for_in_a_step(few_digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    recipe = {"batch_size": 50, **RECIPES[name]} | ({} if "phases" in RECIPES[name] else {"epochs": 1})
    assert not count_asked(few_digits, tmp_path, recipe, monkeypatch)


def test_the_count_counts() -> None:
    x = torch.arange(3.0)
    with AskedValues() as asked:
        x.sum().item()
        x[x > 1]
        bool(x.sum() > 1)
    assert asked.counts["aten::_local_scalar_dense"] + asked.counts["aten::is_nonzero"] == 2 and asked.counts["aten::index"] == 1


def test_no_value_is_asked_for_by_augmentation_of_whole_batches(few_digits: Any) -> None:
    steps: Any = ["hflip", "vflip", {"random-resized-crop": {"size": 24}}, {"rotate": {"degrees": 10}}]
    steps += ["color-jitter", "pca-lighting"]
    augmentation = Augmentation(validate_as(Recipe, {"augment": steps}).augment, 0)
    pictures = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    draws = AugmentationDraws(few_digits[0].hashed_ids[:8], 0, 0, 0)
    with AskedValues() as asked:
        apply_batched(augmentation.steps, pictures, draws)
    assert not asked.counts


@pytest.mark.gpu
@pytest.mark.parametrize("name", RECIPES)
def test_a_gpu_is_waited_for_no_more_often_in_an_epoch_of_more_steps(
    few_digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    monkeypatch.setattr("phoropter.training.loop.training_loop.PROGRESS_INTERVAL_S", 1e9)
    counts: list[int] = []
    for rows in (50, 50, 10):  # the first warms up: caches, resident pictures, kernels
        recipe = {**RECIPES[name], "batch_size": rows} | ({} if "phases" in RECIPES[name] else {"epochs": 1})
        (folder := tmp_path / f"{rows} {len(counts)}").mkdir()
        task = task_of(few_digits, folder, recipe)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                finish(replace(task, device=torch.device("cuda")))
            finally:
                torch.cuda.set_sync_debug_mode("default")
        counts.append(sum("synchronizing CUDA operation" in str(w.message) for w in caught))
    assert counts[2] == counts[1]

"""Trainings with adapters, stochastic depth, layer-wise rates and activations computed again, on tiny networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from phoropter.core.errors import SpecError
from phoropter.data.splits.protocol import make_splits
from phoropter.data.splits.spec import KFold
from phoropter.models.classifier import load_classifier, save_classifier
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.presets import PRESETS, parse_recipe
from phoropter.training.fine_tuning.adapted_network import AdaptedNetwork
from phoropter.training.fit import TrainedRun, TrainingTask, build_model, fit
from phoropter.training.loop.checkpoint import Checkpoints
from phoropter.training.loop.schedule import build_optimizer

torch.set_num_threads(1)
CPU = torch.device("cpu")


def task_of(digits: Any, cache: Path, recipe: dict[str, Any], backbone: str = "test_vit", **entry: Any) -> TrainingTask:
    dataset, pixels = digits
    short = {} if "phases" in recipe else {"epochs": 1, "lr": 1e-2}
    base = parse_recipe({**short, **recipe}, PRESETS["scratch"])
    written = {"backbone": backbone, "weights": "random", "size": 32, **entry}
    (candidate,) = parse_candidates([written], base)
    return TrainingTask(candidate, make_splits(dataset, KFold(3))[0], dataset, pixels, CPU, cache)


def train(task: TrainingTask) -> TrainedRun:
    training = fit(task)
    while True:
        try:
            next(training)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def adapted(few_digits: Any, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    cache = tmp_path_factory.mktemp("adapted")
    return train(task_of(few_digits, cache, {"epochs": 3, "lora": {"rank": 4, "layers": "both"}, "ema": 0.5}))


def test_of_a_network_with_adapters_these_and_the_head_alone_are_trained(adapted: TrainedRun) -> None:
    before, after = build_model(adapted.task).state_dict(), adapted.model.state_dict()
    assert before.keys() == after.keys()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    expected = {f"backbones.0.body.blocks.{i}.{layer}.weight" for i in range(6) for layer in layers}
    assert changed == expected | {"head.head.last.weight", "head.head.last.bias"}
    for name in expected:  # by a matrix of rank 4
        singular = torch.linalg.svdvals((after[name] - before[name]).double())
        assert singular[4] < 1e-4 * singular[0]
    assert adapted.adapter_parameters == 6 * 4 * (64 + 192 + 64 + 64 + 64 + 192 + 192 + 64)


def test_its_bundle_is_that_of_an_ordinary_network(adapted: TrainedRun, tmp_path: Path) -> None:
    save_classifier(adapted.model, tmp_path / "bundle")
    loaded = load_classifier(tmp_path / "bundle")
    pictures = torch.from_numpy(adapted.task.pixels.batch(adapted.task.split.test))
    with torch.no_grad():
        torch.testing.assert_close(loaded(pictures), adapted.model.eval()(pictures), rtol=1e-5, atol=1e-6)


def test_activations_computed_again_give_the_same_bytes(few_digits: Any, tmp_path: Path) -> None:
    recipe = {"epochs": 2, "drop_path": 0.3}
    plain, again = (
        train(task_of(few_digits, tmp_path, {**recipe, "grad_checkpointing": on}, "test_resnet")) for on in (False, True)
    )
    for (name, value), other in zip(plain.model.state_dict().items(), again.model.state_dict().values(), strict=True):
        assert torch.equal(value, other), name
    assert [row["train_loss"] for row in plain.history] == [row["train_loss"] for row in again.history]


def test_stochastic_depth_skips_blocks_in_training_alone(few_digits: Any, tmp_path: Path) -> None:
    task = task_of(few_digits, tmp_path, {"drop_path": 0.4})
    model = build_model(task)
    rates = [block.drop_path1.drop_prob for block in model.branches[0].body.blocks[1:]]
    assert rates == pytest.approx(list(np.linspace(0, 0.4, 6)[1:]))  # rising with depth, as in the paper
    assert model.branches[0].build_record.options == {"drop_path_rate": 0.4}  # the bundle can be built again
    with pytest.raises(SpecError, match=r"vgg11.* takes no such option.*drop_path_rate"):
        build_model(task_of(few_digits, tmp_path, {"drop_path": 0.4}, "vgg11"))


def test_layers_have_their_share_of_the_rate(few_digits: Any, tmp_path: Path) -> None:
    """The head the full rate, the last block 0.5 of it, the stem 0.5⁷."""
    task = task_of(few_digits, tmp_path, {"layer_decay": 0.5})
    model, recipe = build_model(task), task.candidate.recipe
    peaks = {
        id(p): group["peak"] for group in build_optimizer(model, recipe, recipe.phases[0]).param_groups for p in group["params"]
    }
    body = model.branches[0].body
    assert peaks[id(model.head.head.last.weight)] == 1e-2
    assert peaks[id(body.blocks[5].mlp.fc1.weight)] == peaks[id(body.norm.weight)] == pytest.approx(0.5e-2)
    assert peaks[id(body.patch_embed.proj.weight)] == pytest.approx(0.5**7 * 1e-2)


def test_each_key_changes_what_is_trained(few_digits: Any, tmp_path: Path) -> None:
    written: list[dict[str, Any]] = [{}, {"layer_decay": 0.5}, {"drop_path": 0.5}, {"schedule": {"warmup_steps": 9}}]
    written += [{"lora": lora} for lora in ({}, {"rank": 4}, {"alpha": 2.0}, {"layers": "mlp"})]
    losses = [train(task_of(few_digits, tmp_path, recipe)).history[-1]["train_loss"] for recipe in written]
    assert len(set(losses)) == len(written)


def test_a_killed_training_with_adapters_goes_on_bit_for_bit(few_digits: Any, adapted: TrainedRun, tmp_path: Path) -> None:
    """The checkpoint holds the adapters by name; the resumed run ends with the same merged weights."""

    def resumable() -> TrainingTask:
        task = task_of(few_digits, tmp_path, {"epochs": 3, "lora": {"rank": 4, "layers": "both"}, "ema": 0.5})
        return TrainingTask(**{**vars(task), "checkpoints": Checkpoints(tmp_path, every_s=0)})

    training = fit(resumable())
    while not isinstance(next(training), dict):
        pass
    training.close()
    resumed = train(resumable())
    for (name, value), other in zip(adapted.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(value, other), name


def test_without_phases_nothing_is_adapted(few_digits: Any, tmp_path: Path) -> None:
    model = build_model(task_of(few_digits, tmp_path, {}))
    recipe = parse_recipe({"lora": {}, "grad_checkpointing": True}, PRESETS["probe"], swept=True)
    network = AdaptedNetwork(model, recipe, seed=0)
    assert network.adapter_parameters == 0 and not model.branches[0].body.grad_checkpointing

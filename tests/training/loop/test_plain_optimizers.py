"""torch's optimizers without their decorators: the same steps to the last bit, saved and loaded alike, and no compiler."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from typing import Any

import pytest
import torch

from phoropter.training.loop.plain_optimizers import SGD, Adam, AdamW, without_compiler


def train(kind: Any, options: dict[str, Any], halfway: bool) -> torch.Tensor:
    """The weights after six steps of two groups. halfway: saved after three, and loaded by a new optimizer of torch's own."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(5, 3, generator=generator)) for _ in range(2)]
    optimizer = kind([{"params": weights[:1], "weight_decay": 0.1}], lr=0.1, fused=True, **options)
    optimizer.add_param_group({"params": weights[1:], "lr": 0.05})
    for step in range(6):
        if step == 3 and halfway:
            state = optimizer.state_dict()
            optimizer = kind.__mro__[1]([{"params": [w]} for w in weights], lr=1.0, fused=True, **options)
            optimizer.load_state_dict(state)
        optimizer.zero_grad(set_to_none=True)
        sum((w.square() * torch.randn(5, 3, generator=generator)).sum() for w in weights).backward()  # type: ignore[union-attr]
        optimizer.step()
    assert all(w.requires_grad and w.grad is not None and w.is_leaf for w in weights)
    return torch.stack([w.detach() for w in weights])


@pytest.mark.parametrize(
    ("kind", "options"),
    [(torch.optim.AdamW, {}), (torch.optim.Adam, {}), (torch.optim.SGD, {"momentum": 0.9, "nesterov": True})],
)
def test_steps_are_those_of_torch(kind: type[torch.optim.Optimizer], options: dict[str, Any]) -> None:
    ours = without_compiler(kind)
    assert issubclass(ours, kind) and ours.__name__ == kind.__name__
    expected = train(kind, options, False)
    assert torch.equal(train(ours, options, False), expected) and torch.equal(train(ours, options, True), expected)


@pytest.mark.parametrize("kind", [AdamW, Adam, SGD])
@pytest.mark.parametrize("twin", [copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))])  # noqa: S301  its own bytes
def test_an_optimizer_is_copied_and_pickled_with_its_state(kind: Any, twin: Any) -> None:
    """As a script does that keeps one whole, or sends it to a process."""
    weight = torch.nn.Parameter(torch.ones(3))
    made = kind([{"params": [weight], "weight_decay": 0.1}], lr=0.1)
    for _ in range(2):
        weight.grad = torch.arange(3.0)
        made.step()
    again = twin(made)
    assert type(again) is kind and pickle.loads(pickle.dumps(kind)) is kind  # noqa: S301
    (other,) = again.param_groups[0]["params"]
    assert other is not weight and torch.equal(other, weight)
    for optimizer, moved in ((made, weight), (again, other)):
        moved.grad = torch.arange(3.0)
        optimizer.step()
    assert torch.equal(other, weight) and not torch.equal(weight, torch.ones(3))


def test_a_network_is_built_counted_and_trained_without_the_compiler_which_comes_when_asked_for() -> None:
    code = """
import json, sys
import torch
from phoropter.models.classifier import build_classifier
from phoropter.models.spec import BackboneSpec, ClassifierSpec
from phoropter.training.candidates.presets import PRESETS
from phoropter.training.costs.classifier_cost import _count_classifier_macs
from phoropter.training.loop.schedule import build_optimizer

backbone = BackboneSpec(name="test_resnet", weights="random", size=32)
model = build_classifier(ClassifierSpec(backbones=(backbone,), classes=("a", "b"), picture=32), seed=0)
counted = _count_classifier_macs(model, 32)
recipe = PRESETS["finetune"]
optimizer = build_optimizer(model, recipe, recipe.phases[0])
model(torch.zeros(2, 3, 32, 32)).sum().backward()
optimizer.step()
optimizer.zero_grad(set_to_none=True)
without = "torch._dynamo" in sys.modules
compiled = torch.compile(torch.nn.Linear(2, 1), backend="eager")(torch.ones(1, 2)).shape
print(json.dumps([without, list(compiled), counted == _count_classifier_macs(model, 32), counted > 0]))
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout.splitlines()[-1]) == [False, [1, 1], True, True]

"""Digests in a record are those of all tensors, and a frozen backbone's are taken once for all its heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from phoropter.core import files
from phoropter.core.files import digest
from phoropter.data.protocols import KFold, splits
from phoropter.study import record
from phoropter.study.record import digests_of
from phoropter.training.entries import candidates_of
from phoropter.training.fit import Fitted, Task, fit
from phoropter.training.presets import recipe_of
from phoropter.training.teacher import identity_of
from phoropter.training.together import fit_together

torch.set_num_threads(1)


def plainly(fitted: Fitted) -> dict[str, Any]:
    """Every tensor of the whole classifier, one by one."""
    tensors = [files.digest_array(v.detach().cpu().float().numpy()) for v in fitted.model.state_dict().values()]
    after = {"weights_after": digest(tensors), "classifier": identity_of(fitted.model)}
    return {"weights_before": list(fitted.weights_before), **after}


@pytest.mark.parametrize("frozen", [True, False])
def test_digests_are_those_of_every_tensor(
    few_digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frozen: bool
) -> None:
    dataset, pixels = few_digits
    recipe = {"preset": "probe", "epochs": 1} if frozen else {"preset": "scratch", "epochs": 1}
    entry = {"backbone": "test_resnet", "weights": "random", "size": 32, "frozen": frozen, "recipe": recipe}
    (candidate,) = candidates_of([entry], recipe_of("scratch"))
    made = splits(dataset, KFold(2, seeds=[0]))
    tasks = [Task(candidate, split, dataset, pixels, torch.device("cpu"), tmp_path) for split in made]
    fitted = list(fit_together(tasks)) if frozen else [_alone(task) for task in tasks]
    assert all(isinstance(f, Fitted) for f in fitted)
    wanted = [plainly(f) for f in fitted]  # type: ignore[arg-type]
    asked: list[int] = []
    counted = lambda array: (asked.append(array.size), files.digest_array(array))[1]  # noqa: E731
    monkeypatch.setattr(record, "digest_array", counted)
    assert [digests_of(f) for f in fitted] == wanted  # type: ignore[arg-type]
    body = sum(v.numel() for v in fitted[0].model.branches[0].state_dict().values())  # type: ignore[union-attr]
    assert (sum(asked) < 2 * body) == frozen
    assert wanted[0]["weights_after"] != wanted[1]["weights_after"]


def _alone(task: Task) -> Fitted:
    training = fit(task)
    while True:
        try:
            next(training)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]

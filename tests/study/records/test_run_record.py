"""Weight digests cover all tensors, and those of a frozen backbone are computed once for all its heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from phoropter.core import files
from phoropter.core.files import digest
from phoropter.data.splits.protocol import make_splits
from phoropter.data.splits.spec import KFold
from phoropter.study.records import run_record
from phoropter.study.records.run_record import compute_weight_digests
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.presets import parse_recipe
from phoropter.training.distillation import digest_classifier
from phoropter.training.fit import TrainedRun, TrainingTask, fit
from phoropter.training.frozen.batched_fit import fit_batched

torch.set_num_threads(1)


def plainly(fitted: TrainedRun) -> dict[str, Any]:
    """Digests over every tensor of the classifier, one by one."""
    tensors = [files.digest_array(v.detach().cpu().float().numpy()) for v in fitted.model.state_dict().values()]
    after = {"weights_after": digest(tensors), "classifier": digest_classifier(fitted.model)}
    return {"weights_before": list(fitted.initial_weight_digests), **after}


@pytest.mark.parametrize("frozen", [True, False])
def test_digests_cover_every_tensor(few_digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frozen: bool) -> None:
    dataset, pixels = few_digits
    recipe = {"preset": "probe", "epochs": 1} if frozen else {"preset": "scratch", "epochs": 1}
    entry = {"backbone": "test_resnet", "weights": "random", "size": 32, "frozen": frozen, "recipe": recipe}
    (candidate,) = parse_candidates([entry], parse_recipe("scratch"))
    made = make_splits(dataset, KFold(2, seeds=[0]))
    tasks = [TrainingTask(candidate, split, dataset, pixels, torch.device("cpu"), tmp_path) for split in made]
    fitted = list(fit_batched(tasks)) if frozen else [_alone(task) for task in tasks]
    assert all(isinstance(f, TrainedRun) for f in fitted)
    wanted = [plainly(f) for f in fitted]  # type: ignore[arg-type]
    asked: list[int] = []
    counted = lambda array: (asked.append(array.size), files.digest_array(array))[1]  # noqa: E731
    monkeypatch.setattr(run_record, "digest_array", counted)
    assert [compute_weight_digests(f) for f in fitted] == wanted  # type: ignore[arg-type]
    body = sum(v.numel() for v in fitted[0].model.branches[0].state_dict().values())  # type: ignore[union-attr]
    assert (sum(asked) < 2 * body) == frozen
    assert wanted[0]["weights_after"] != wanted[1]["weights_after"]


def _alone(task: TrainingTask) -> TrainedRun:
    training = fit(task)
    while True:
        try:
            next(training)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]

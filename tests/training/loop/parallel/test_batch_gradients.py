"""Where memory is short a batch is computed in parts, with the same gradients."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import together
import torch

from phoropter.core.errors import RunError
from phoropter.training.loop.fatal_errors import is_out_of_memory
from phoropter.training.loop.parallel.batch_gradients import seed_step

torch.set_num_threads(1)

RECIPES: dict[str, dict[str, Any]] = {
    "plain": {"batch_size": 32},
    "accumulated": {"batch_size": 32, "grad_accum_steps": 3},
    "mixed, with weights of classes": {"augment": ["mixup"], "loss": {"class_weights": "auto"}},
}


def figures(run: Any) -> list[float]:
    return [float(x) for row in run.history for x in (row["train_loss"], row["train_accuracy"])]


@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize("name", RECIPES)
def test_short_memory_changes_no_gradient(few_digits: Any, tmp_path: Path, caplog: Any, name: str, after: int) -> None:
    """Also where memory runs short in the middle of an optimizer step: what was accumulated before counts once."""
    caplog.set_level(logging.WARNING)
    plain = together.train_to_end(together.make_task(few_digits, tmp_path / "plain", together.VIT, RECIPES[name]))
    with together.short_memory(10, after):
        cut = together.train_to_end(together.make_task(few_digits, tmp_path / "cut", together.VIT, RECIPES[name]))
    rows = plain.task.split.test
    np.testing.assert_allclose(cut.predict_held_out(rows)[0], plain.predict_held_out(rows)[0], rtol=0, atol=1e-6)
    assert figures(cut) == pytest.approx(figures(plain), abs=1e-6)
    assert (plain.micro_batch, cut.micro_batch) == (0, 8)
    said = [record.getMessage() for record in caplog.records]
    assert [words.split(": ")[0] for words in said] == [
        "the memory does not suffice to train on 32 rows at once",
        "the memory does not suffice to train on 16 rows at once",
    ]
    assert said[-1].endswith("batches are computed in parts of 8 rows, with the same gradients")


def test_a_resumed_run_remembers_what_the_memory_sufficed_for(few_digits: Any, tmp_path: Path, caplog: Any) -> None:
    task = together.make_task(few_digits, tmp_path, together.VIT, {"epochs": 2}, every_s=0)
    with together.short_memory(16):
        training = together.train_candidate(task)
        while not isinstance(next(training), dict):
            pass
        training.close()
        assert task.checkpoints.load().micro_batch == 16
        caplog.clear()
        resumed = together.train_to_end(together.make_task(few_digits, tmp_path, together.VIT, {"epochs": 2}, every_s=0))
    assert resumed.micro_batch == 16 and not caplog.records
    plain = together.train_to_end(together.make_task(few_digits, tmp_path / "plain", together.VIT, {"epochs": 2}))
    rows = plain.task.split.test
    np.testing.assert_allclose(resumed.predict_held_out(rows)[0], plain.predict_held_out(rows)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("entry", "most", "words"),
    [
        (
            together.CNN,
            16,
            "train on 32 rows at once, and its batch norm needs the statistics of all of them: say grad_checkpointing: true",
        ),
        (
            together.VIT,
            0,
            "train on 1 rows at once, and no batch can be smaller: say grad_checkpointing: true in the recipe",
        ),
    ],
)
def test_a_batch_that_cannot_be_cut_is_a_shortage_in_one_sentence(
    few_digits: Any, tmp_path: Path, entry: Any, most: int, words: str
) -> None:
    with together.short_memory(most), pytest.raises(RunError, match=words) as caught:
        together.train_to_end(together.make_task(few_digits, tmp_path, entry, {}))
    assert is_out_of_memory(caught.value)  # so that a study counts it as one


def test_the_batch_norm_of_a_frozen_backbone_is_no_hindrance(few_digits: Any, tmp_path: Path) -> None:
    recipe = {"phases": [{"train": "head", "epochs": 1, "lr": 1e-2}]}
    plain = together.train_to_end(together.make_task(few_digits, tmp_path / "plain", together.CNN, recipe))
    with together.short_memory(16):
        cut = together.train_to_end(together.make_task(few_digits, tmp_path / "cut", together.CNN, recipe))
    rows = plain.task.split.test
    assert cut.micro_batch == 16
    np.testing.assert_allclose(cut.predict_held_out(rows)[0], plain.predict_held_out(rows)[0], rtol=0, atol=1e-6)


def test_errors_of_other_kinds_are_not_taken_for_a_shortage(few_digits: Any, tmp_path: Path) -> None:
    with together.plant_error(True), pytest.raises(ValueError, match="planted"):
        together.train_to_end(together.make_task(few_digits, tmp_path, together.VIT, {}))


def test_each_part_of_a_batch_has_draws_of_its_own() -> None:
    def draw(*where: int) -> float:
        seed_step(0, *where)
        return float(torch.rand(()))

    assert draw(1, 2) == draw(1, 2, 0) != draw(1, 2, 16)
    assert len({draw(1, 2, first) for first in range(8)} | {draw(1, 3), draw(2, 2)}) == 10

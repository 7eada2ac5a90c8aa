"""Words of a recipe that stand in more than one place: the key's type, the list without torch, and the table of what they do."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

import pytest

from phoropter.models.fusion import FUSION_MODES
from phoropter.models.spec import FusionSpec
from phoropter.training.candidates.candidate import DistillationSpec
from phoropter.training.candidates.candidate_entry import CandidateEntry
from phoropter.training.candidates.custom_loss import BUILTIN_LOSSES
from phoropter.training.candidates.custom_optimizer import BUILTIN_OPTIMIZERS, BUILTIN_SCHEDULES
from phoropter.training.candidates.recipe import LossSpec, OptimizerSpec, ScheduleSpec
from phoropter.training.loop import losses
from phoropter.training.loop.schedule import OPTIMIZERS, SCHEDULES


def words_of(annotation: Any) -> set[str]:
    """The words of every Literal in a type."""
    if get_origin(annotation) is Literal:
        return set(get_args(annotation))
    return {word for part in get_args(annotation) for word in words_of(part)}


def key_words(spec: Any, key: str = "kind") -> set[str]:
    return words_of(spec.model_fields[key].annotation)


@pytest.mark.parametrize(
    ("words", "builtin", "table"),
    [
        (key_words(LossSpec), BUILTIN_LOSSES, losses.LOSSES),
        (key_words(OptimizerSpec), BUILTIN_OPTIMIZERS, OPTIMIZERS),
        (key_words(ScheduleSpec), BUILTIN_SCHEDULES, SCHEDULES),
        (key_words(DistillationSpec, "loss"), tuple(key_words(CandidateEntry, "loss")), losses._TEACHER_LOSSES),
        # A selection averages finished classifiers and is no network.
        (key_words(FusionSpec, "mode"), tuple(key_words(CandidateEntry, "mode")), FUSION_MODES | {"select": None}),
    ],
    ids=["loss", "optimizer", "schedule", "teacher loss", "fusion mode"],
)
def test_a_word_stands_in_all_its_lists(words: set[str], builtin: tuple[str, ...], table: dict[str, Any]) -> None:
    assert words == set(builtin) == set(table) and len(builtin) == len(set(builtin))


def test_a_loss_stands_under_its_own_name() -> None:
    assert all(record.name == name for name, record in losses.LOSSES.items())

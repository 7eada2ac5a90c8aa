"""Phases: what they train, in words and in numbers, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from phoropter.core.errors import SpecError
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.fine_tuning.phase import Phase
from phoropter.training.candidates.presets import parse_recipe


def parse(recipe: Any, **entry: Any) -> Candidate:
    (candidate,) = parse_candidates([{"backbone": "test_vit", "recipe": recipe, **entry}], parse_recipe(None))
    return candidate


def test_a_phase_says_what_it_trains() -> None:
    words = {part: Phase(train=part, epochs=1, lr=1e-3).part_words for part in ("head", "all", "last-1", "last-12")}
    assert words == {"head": "the head", "all": "everything", "last-1": "the last block", "last-12": "the last 12 blocks"}
    candidate = parse({"phases": [{"train": "head", "epochs": 1, "lr": 1e-3}, {"train": "last-2", "epochs": 3, "lr": 1e-4}]})
    assert candidate.how == "trained the head for 1 epoch, then the last 2 blocks for 3 epochs; pretrained"


@pytest.mark.parametrize("part", ["tail", "last", "last-0", "last-", "last-two", "last--1"])
def test_another_part_is_refused(part: str) -> None:
    with pytest.raises(SpecError, match=f"{part}.*expected head, all, or last-N"):
        parse({"phases": [{"train": part, "epochs": 1, "lr": 1e-3}]})


def test_what_is_frozen_throughout_lies_before_the_most_blocks_of_any_phase() -> None:
    def kept(*parts: str) -> int | None:
        return parse_recipe({"phases": [{"train": part, "epochs": 1, "lr": 1e-3} for part in parts]}).kept_blocks

    assert kept("head", "last-2", "last-4", "last-1") == 4
    assert kept("last-2", "all") is kept("head") is kept("all") is None


def test_cached_views_are_for_what_is_frozen_throughout() -> None:
    views = {"augment": "hflip", "cached_views": 2}
    last = {"phases": [{"train": "last-1", "epochs": 2, "lr": 1e-3}], **views}
    assert parse(last).recipe.n_cached_views == 2
    with pytest.raises(SpecError, match="cached_views is for what is frozen in every phase"):
        parse({"preset": "finetune", **views})
    with pytest.raises(SpecError, match="compile and cached_views contradict each other"):
        parse({**last, "compile": True})

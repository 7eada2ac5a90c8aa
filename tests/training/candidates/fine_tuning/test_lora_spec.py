"""The keys of fine-tuning in a recipe: where they act, where they are refused, and which of them enter run keys."""

from __future__ import annotations

from typing import Any

import pytest

from phoropter.core.errors import SpecError
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.fine_tuning.lora_spec import LoraSpec
from phoropter.training.candidates.presets import parse_recipe
from phoropter.training.candidates.recipe import FINE_TUNING_FIELDS

GIVEN: dict[str, Any] = {"layer_decay": 0.7, "drop_path": 0.1, "lora": {"rank": 4}, "grad_checkpointing": True}


def parse(recipe: Any, **entry: Any) -> Candidate:
    (candidate,) = parse_candidates([{"backbone": "test_vit", "recipe": recipe, **entry}], parse_recipe(None))
    return candidate


def test_every_key_of_fine_tuning_is_tried_here() -> None:
    assert set(GIVEN) == set(FINE_TUNING_FIELDS)


@pytest.mark.parametrize("name", GIVEN)
def test_a_key_without_effect_is_refused(name: str) -> None:
    given = {name: GIVEN[name]}
    with pytest.raises(SpecError, match=f"a recipe that trains the head alone never reads {name}"):
        parse({"preset": "probe", **given})
    with pytest.raises(SpecError, match=f"never reads {name}"):
        parse({"preset": "as-is", **given})
    with pytest.raises(SpecError, match=f"never reads {name}"):
        parse({"preset": "logistic", **given}, frozen=True)
    with pytest.raises(SpecError, match=f"{name} is for backbones that are trained; leave frozen or {name} out"):
        parse({"preset": "finetune", **given}, frozen=True)


def test_run_keys_hold_what_changes_numbers_alone() -> None:
    """Studies without these keys keep the run keys they had; activations computed again give the same numbers."""
    plain = parse("finetune").identity()
    assert not set(FINE_TUNING_FIELDS) & set(plain["recipe"])
    for name, value in GIVEN.items():
        changed = parse({"preset": "finetune", name: value}).identity()
        assert (changed == plain) == (name == "grad_checkpointing"), name


def test_a_sweep_does_not_multiply_heads_that_never_read_the_key() -> None:
    heads = parse("probe", frozen=True)
    swept = parse_recipe({"layer_decay": 0.7}, heads.recipe, swept=True)
    assert heads.model_copy(update={"recipe": swept}).identity() == heads.identity()


def test_adapters_are_written_as_a_mapping_and_changed_key_by_key() -> None:
    base = parse_recipe({"preset": "finetune", "lora": {}})
    assert base.lora == LoraSpec(rank=8, alpha=16.0, layers="attention")
    assert parse_recipe({"lora": {"rank": 2}}, parse_recipe({"lora": {"layers": "both"}}, base)).lora == LoraSpec(
        rank=2, layers="both"
    )
    assert "of the backbone only low-rank adapters (attention, rank 8)" in parse({"preset": "finetune", "lora": {}}).how
    with pytest.raises(SpecError, match="lora and train: last-N contradict each other"):
        parse({"phases": [{"train": "last-2", "epochs": 1, "lr": 1e-3}], "lora": {}})


def test_a_compiled_network_keeps_what_it_plans() -> None:
    with pytest.raises(SpecError, match="compile and grad_checkpointing contradict each other"):
        parse({"preset": "finetune", "grad_checkpointing": True, "compile": True})


def test_one_rate_of_stochastic_depth() -> None:
    with pytest.raises(SpecError, match="drop_path and the option drop_path_rate of a backbone are one thing"):
        parse({"preset": "finetune", "drop_path": 0.1}, options={"drop_path_rate": 0.2})


def test_a_warm_up_has_one_unit() -> None:
    schedule = parse_recipe({"preset": "finetune", "schedule": {"warmup_steps": 500}}).schedule
    assert (schedule.warmup, schedule.warmup_steps) == (0.0, 500)  # the preset's own share makes way
    with pytest.raises(SpecError, match="warmup and warmup_steps contradict each other"):
        parse_recipe({"schedule": {"warmup": 0.1, "warmup_steps": 500}})
    with pytest.raises(SpecError, match="warmup_steps belongs to schedule constant or cosine or step"):
        parse_recipe({"schedule": {"kind": "one-cycle", "warmup_steps": 500}})

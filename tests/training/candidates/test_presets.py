"""Presets, and the short forms in which a study changes one."""

from __future__ import annotations

import pytest

from phoropter.core.errors import SpecError
from phoropter.training.candidates.presets import PRESETS, parse_recipe
from phoropter.training.candidates.recipe import Recipe


def test_a_preset_by_name_and_by_mapping_are_the_same() -> None:
    assert parse_recipe("finetune") == parse_recipe({"preset": "finetune"}) == PRESETS["finetune"]


def test_no_recipe_is_the_base_and_a_mapping_changes_it() -> None:
    base = PRESETS["head-then-all"]
    assert parse_recipe(None, base) == base
    assert parse_recipe({"batch_size": 7}, base).phases == base.phases and parse_recipe({"batch_size": 7}, base).batch_size == 7


def test_a_recipe_of_a_preset_s_name_alone_is_refused() -> None:
    with pytest.raises(SpecError, match="trains nothing; write the name alone, recipe='finetune', or a mapping"):
        parse_recipe(Recipe(preset="finetune"))
    assert parse_recipe(Recipe(preset="as-is")) == Recipe(preset="as-is"), "which trains nothing on purpose"
    assert parse_recipe(PRESETS["finetune"]) is PRESETS["finetune"]


def test_epochs_is_the_total_and_phases_keep_their_proportions() -> None:
    assert [p.epochs for p in parse_recipe({"preset": "head-then-all", "epochs": 20}).phases] == [6, 14]
    assert parse_recipe({"preset": "head-then-all", "epochs": 2}).total_epochs == 2


def test_lr_is_the_last_phase_s_and_the_others_keep_their_ratio() -> None:
    first, last = parse_recipe({"preset": "head-then-all", "lr": 1e-3}).phases
    assert last.lr == pytest.approx(1e-3) and first.lr == pytest.approx(1e-2)


def test_a_nested_mapping_changes_only_what_it_names() -> None:
    changed = parse_recipe({"preset": "finetune", "optimizer": {"weight_decay": 0.3}, "schedule": "constant"})
    assert changed.optimizer.kind == "adamw" and changed.optimizer.weight_decay == 0.3
    assert changed.schedule.kind == "constant" and changed.schedule.warmup == 0


def test_another_optimizer_starts_from_its_own_defaults() -> None:
    assert parse_recipe({"preset": "finetune", "optimizer": {"kind": "sgd"}}).optimizer.weight_decay == 0.01


def test_a_rate_that_yaml_reads_as_text_is_a_number() -> None:
    assert parse_recipe({"phases": [{"epochs": 1, "lr": "1e-4"}]}).phases[0].lr == 1e-4
    assert parse_recipe({"lr": "1e-4"}).phases[0].lr == pytest.approx(1e-4)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_a_round_trip(name: str) -> None:
    assert Recipe.model_validate(PRESETS[name].plain()) == PRESETS[name]
    assert parse_recipe(PRESETS[name].plain_changes(), PRESETS["as-is"], swept=True) == PRESETS[name]

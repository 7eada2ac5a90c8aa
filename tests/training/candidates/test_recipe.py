"""Recipes: presets, short forms, and one-line refusals."""

from __future__ import annotations

import pytest

from phoropter.core.errors import SpecError
from phoropter.core.spec import SourceMap
from phoropter.training.candidates.presets import PRESETS, parse_recipe
from phoropter.training.candidates.recipe import Recipe


def test_a_preset_by_name_and_by_mapping_are_the_same() -> None:
    assert parse_recipe("finetune") == parse_recipe({"preset": "finetune"}) == PRESETS["finetune"]


def test_nothing_means_the_base_and_a_mapping_changes_it() -> None:
    base = PRESETS["head-then-all"]
    assert parse_recipe(None, base) == base
    assert parse_recipe({"batch_size": 7}, base).phases == base.phases and parse_recipe({"batch_size": 7}, base).batch_size == 7


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


def test_another_optimiser_begins_from_its_own_defaults() -> None:
    assert parse_recipe({"preset": "finetune", "optimizer": {"kind": "sgd"}}).optimizer.weight_decay == 0.01


def test_yaml_s_text_for_a_number_is_a_number() -> None:
    assert parse_recipe({"phases": [{"epochs": 1, "lr": "1e-4"}]}).phases[0].lr == 1e-4
    assert parse_recipe({"lr": "1e-4"}).phases[0].lr == pytest.approx(1e-4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("finetun", r"line 4: unknown recipe 'finetun'; did you mean 'finetune'\?"),
        ({"preset": "nope"}, "unknown recipe 'nope'"),
        ({"batchsize": 3}, "unknown key 'batchsize' in recipe"),
        ({"epochs": 3, "phases": [{"epochs": 1, "lr": 1}]}, "epochs and phases contradict each other"),
        ({"preset": "as-is", "epochs": 3}, "trains nothing"),
        ({"preset": "head-then-all", "epochs": 1}, "at least 2"),
        ({"lr": float("nan")}, "lr is nan, expected a positive number"),
        ({"lr": -1}, "expected a positive number"),
        ({"tta": "ten-crop"}, "ten-crop needs crop"),
        ({"schedule": {"kind": "one-cycle", "warmup": 0.1}}, "has a warm-up of its own"),
        ({"imbalance": {"n_bags": 3}}, "belong to undersample"),
        ({"imbalance": {"n_bags": 3, "undersample": 2, "resample_each_epoch": True}}, "contradict each other"),
        ({"augment": "cutmux"}, "cutmix"),
        (7, "a preset's name or a mapping"),
    ],
)
def test_a_mistake_is_one_sentence(given: object, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        parse_recipe(given, None, SourceMap("study.yaml", {(): 1, ("recipe",): 4}), ("recipe",))
    assert "\n" not in str(caught.value) and "study.yaml, line 4" in str(caught.value)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_a_round_trip(name: str) -> None:
    assert Recipe.model_validate(PRESETS[name].plain()) == PRESETS[name]

"""Defaults of fusions, the members of ensembles and warm starts, and what of them is refused."""

from __future__ import annotations

from typing import Any

import pytest

from phoropter.core.errors import SpecError
from phoropter.models.spec import FusionSpec, HeadSpec
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.presets import PRESETS

STUDY = PRESETS["finetune"]


def test_a_fusion_has_no_bottleneck_and_begins_at_the_average_unless_it_says_otherwise() -> None:
    (made,) = parse_candidates([{"fuse": ["a1", "b2"]}], STUDY)
    assert made.fusion == FusionSpec(mode="logits", start="average", hidden=None, dropout=0.0, aux_loss_weight=0.0)
    assert made.head == HeadSpec(kind="linear")
    sonic = {"head": {"kind": "dense", "dropout": 0.5}, "start": "random", "hidden": 12, "dropout": 0.5, "aux_loss_weight": 0}
    (paper,) = parse_candidates([{"fuse": ["a1", "b2"], **sonic}], STUDY)
    assert paper.fusion == FusionSpec(start="random", hidden=12, dropout=0.5) and paper.head.hidden == 128


@pytest.mark.parametrize("mode", ["logits", "concat"])
def test_a_frozen_fusion_is_solved_where_it_is_linear_and_probed_where_it_is_not(mode: str) -> None:
    entry = {"fuse": ["a1", "b2"], "frozen": True, "mode": mode}
    (made,) = parse_candidates([entry], STUDY)
    assert made.recipe == PRESETS["logistic"] and made.fusion is not None and not made.fusion.aux_loss_weight
    for change in ({"hidden": 9}, {"dropout": 0.5}, {"aux_loss_weight": 1}):
        for study in (STUDY, PRESETS["logistic"]):
            (other,) = parse_candidates([{**entry, **change}], study)
            assert other.recipe == PRESETS["probe"]
        with pytest.raises(SpecError, match="l2_penalties are for what is linear on frozen features"):
            parse_candidates([{**entry, **change, "recipe": "logistic"}], STUDY)


def test_members_of_a_frozen_ensemble_follow_the_study_as_probes_do() -> None:
    ensemble = {"name": "m", "fuse": ["a1", "b2"], "mode": "ensemble", "frozen": True}
    for study, taken in ((STUDY, "probe"), (PRESETS["logistic"], "logistic")):
        made = {c.name: c for c in parse_candidates([ensemble, {"backbone": "a1", "frozen": True}], study)}
        assert made["m"].members == ("a1 frozen", "b2 frozen") and made["b2 frozen"].recipe == PRESETS[taken]


def test_a_warm_started_fusion_takes_over_the_head_that_its_members_share() -> None:
    dense = {"kind": "dense", "hidden": 64, "dropout": 0.5}
    members = [{"name": "x", "backbone": "a1", "head": dense}, {"name": "y", "backbone": "b2", "head": dense}]
    warm = {"name": "w", "fuse": ["x", "y"], "warm_start": True}
    made = {c.name: c for c in parse_candidates([*members, warm], STUDY)}
    assert made["w"].head == HeadSpec(**dense)
    with pytest.raises(SpecError, match=r"warm_start takes over the heads.* 'y' is linear where dense of 64 units is expected"):
        parse_candidates([members[0], {"name": "y", "backbone": "b2"}, warm], STUDY)
    with pytest.raises(SpecError, match="'x' is dense of 64 units where linear is expected"):
        parse_candidates([*members, {**warm, "head": "linear"}], STUDY)
    named = {c.name: c for c in parse_candidates([*members, {**warm, "mode": "concat", "aux_loss_weight": 0}], STUDY)}
    assert named["w"].head == HeadSpec()  # no branch of it has a head


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"head": "dense"}, "'m': its member 'a1' has another head, which an ensemble does not change"),
        ({"recipe": {"epochs": 3}}, "its member 'a1' has another recipe"),
        ({"frozen": True}, "its member 'a1' has another frozen"),
    ],
)
def test_an_option_that_members_have_otherwise_is_refused(option: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_candidates(["a1", "b2", {"name": "m", "fuse": ["a1", "b2"], "mode": "ensemble", **option}], STUDY)


SELECTABLE: list[Any] = ["a1", {"name": "x", "backbone": "b2", "frozen": True}, {"name": "f", "fuse": ["a1", "b2"]}]


def test_a_selection_takes_candidates_of_any_kind_that_is_trained_by_itself() -> None:
    made = {
        c.name: c for c in parse_candidates([*SELECTABLE, {"name": "s", "fuse": ["a1", "x", "f", "c3"], "mode": "select"}], STUDY)
    }
    chosen = made["s"]
    assert chosen.members == ("a1", "x", "f", "c3") and chosen.selects and chosen.is_ensemble and not chosen.recipe.phases
    assert [b.name for b in chosen.backbones] == ["a1", "b2", "a1", "b2", "c3"]
    assert "chosen and weighted on inner folds" in chosen.description


def test_all_are_those_that_can_be_chosen_wherever_the_entry_stands() -> None:
    others: list[Any] = [
        {"name": "mean", "fuse": ["a1", "x"], "mode": "ensemble"},
        {"name": "w", "fuse": ["a1", "c3"], "warm_start": True},
        {"name": "t", "student": "c3", "teacher": "a1"},
        {"baseline": "mean-image"},
    ]
    everything = {"fuse": "all", "mode": "select"}
    for entries in ([*SELECTABLE, *others, everything], [everything, *SELECTABLE, *others]):
        made = {c.name: c for c in parse_candidates(entries, STUDY)}
        assert made["all (select)"].members == ("a1", "x", "f")
    with pytest.raises(
        SpecError, match="fuse: all needs at least two candidates that are networks or fusions of their own, and 1"
    ):
        parse_candidates(["a1", everything], STUDY)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"fuse": "all"}], "fuse: all belongs to mode: select; name the networks"),
        ([{"fuse": "all", "mode": "select", "of": ["a1", "b2"]}], "of belongs to fuse: all-pairs or all-triples"),
        (
            [{"fuse": ["a1", "b2"], "mode": "select", "hidden": 9}],
            "hidden belongs to mode logits or concat and has no effect here",
        ),
        ([{"fuse": ["a1", "b2"], "mode": "select", "warm_start": True}], "warm_start and mode: select contradict each other"),
        (
            [{"name": "m", "fuse": ["a1", "x"], "mode": "ensemble"}, {"fuse": ["a1", "m"], "mode": "select"}],
            "its member 'm' is an average itself; name its members; leave it out of mode: select",
        ),
        (
            [{"name": "t", "student": "b2", "teacher": "a1"}, {"fuse": ["a1", "t"], "mode": "select"}],
            "its member 't' begins with or learns from 'a1', which would have to be trained on inner folds too",
        ),
        ([{"name": "h", "baseline": "mean-image"}, {"fuse": ["a1", "h"], "mode": "select"}], "'h' has no network"),
        ([{"fuse": ["a1", "b2"], "mode": "select", "head": "dense"}], "its member 'a1' has another head"),
    ],
)
def test_a_selection_that_cannot_be_is_refused(entries: list[Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_candidates([*SELECTABLE, *entries], STUDY)

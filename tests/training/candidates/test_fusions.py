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

"""Candidates without a network as a study writes them, what is refused, and what their identity depends on."""

from __future__ import annotations

import pytest

import phoropter as ph
from phoropter.core.errors import SpecError
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.presets import PRESETS
from phoropter.training.candidates.recipe import Recipe
from phoropter.training.candidates.table_spec import TableSpec


def parse(*entries: object) -> list[Candidate]:
    return parse_candidates(list(entries), Recipe())


def test_each_kind_is_parsed_named_and_described() -> None:
    found = parse(
        {"baseline": "hrv"},
        ph.baseline("hrv", classifier="gradient-boosting"),
        {"features": "data/rad.parquet", "classifier": "gradient-boosting"},
        {"predictions": "theirs.csv", "columns": {"id": "file"}},
    )
    assert [c.name for c in found] == ["hrv", "hrv, gradient-boosting", "rad, gradient-boosting", "imported theirs"]
    assert [c.table.kind_word for c in found if c.table] == ["baseline", "baseline", "features", "imported"]
    assert [c.backbones for c in found] == [()] * 4
    assert found[0].description == "baseline: hrv under a logistic regression" and "imported" in found[3].description
    assert all(each.how for each in found)  # what `plan` shows


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"baseline": "hrv", "features": "a.csv"}, "exactly one"),
        ({"baseline": "hrv", "frozen": True}, "frozen belongs to a network"),
        ({"baseline": "hrv", "recipe": "probe"}, "recipe belongs to a network"),
        ({"baseline": "hrv", "columns": {"id": "x"}}, "columns belongs to a file"),
        ({"predictions": "a.csv", "classifier": "logistic"}, "classifier has no effect"),
        ({"backbone": "resnet18", "classifier": "logistic"}, "classifier belongs to"),
        ({"baseline": "hvr"}, "hrv"),
        ({"baseline": "signal-1d", "classifier": "logistic"}, "signal-1d is a network of its own"),
        ({"baseline": "signal-1d", "frozen": True}, "frozen belongs to a network"),
        ({"baseline": "signal-1d", "recipe": {"augment": "hflip"}}, "augment of a recipe has no effect on signal-1d"),
        ({"baseline": "signal-1d", "recipe": "probe"}, "trained as a whole"),
        ({"baseline": "signal-1d", "recipe": "logistic"}, "l2_penalties of a recipe has no effect"),
        ({"baseline": "signal-1d", "recipe": {"imbalance": {"undersample": 1, "n_bags": 2}}}, "n_bags"),
    ],
)
def test_what_would_have_no_effect_is_refused(entry: dict[str, object], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        parse(entry)


def test_a_candidate_has_backbones_or_a_table() -> None:
    with pytest.raises(ValueError, match="exactly one of them"):
        Candidate(name="nothing", recipe=Recipe())


def test_identity_is_contents_and_classifier_and_not_the_place() -> None:
    def identity(**fields: object) -> object:
        return Candidate(name="a", table=TableSpec(**fields), recipe=Recipe()).identity()  # type: ignore[arg-type]

    assert identity(features="a.csv", digest="1") == identity(features="b.csv", digest="1")
    assert identity(features="a.csv", digest="1") != identity(features="a.csv", digest="2")
    assert identity(features="a.csv", digest="1") != identity(predictions="a.csv", digest="1")
    assert identity(baseline="hrv") != identity(baseline="hrv", classifier="gradient-boosting")
    assert identity(baseline="hrv") != identity(baseline="ctg-features")


def test_the_network_on_samples_has_a_recipe_of_its_own_and_not_the_studys() -> None:
    (plain,) = parse_candidates([{"baseline": "signal-1d"}], PRESETS["probe"])
    (longer,) = parse_candidates([ph.baseline("signal-1d", recipe={"epochs": 7, "loss": {"class_weights": "auto"}})], Recipe())
    assert plain.recipe == PRESETS["signal-1d"] and plain.table is not None and plain.table.is_signal_network
    assert longer.recipe.total_epochs == 7 and longer.recipe.optimizer == plain.recipe.optimizer
    assert plain.identity() != longer.identity()
    renamed = plain.model_copy(update={"name": "other", "recipe": plain.recipe.with_changes(preset="mine")})
    assert renamed.identity() == plain.identity()


def test_metadata_stand_alone_or_beside_features_under_a_classifier() -> None:
    found = parse(
        {"metadata": ["age", "sex"]},
        {"metadata": ["age"], "classifier": "gradient-boosting"},
        {"baseline": "hrv", "metadata": ["age"]},
        {"features": "rad.csv", "metadata": ["age"]},
    )
    assert [c.name for c in found] == ["metadata", "metadata, gradient-boosting", "hrv + metadata", "rad + metadata"]
    assert [c.table.kind_word for c in found if c.table] == ["metadata", "metadata", "baseline", "features"]
    assert found[0].description == "metadata: age, sex, under a logistic regression"
    assert found[2].description == "baseline: hrv, joined with the metadata age, under a logistic regression"
    assert found[3].description == "features: read from a file, joined with the metadata age, under a logistic regression"
    keys = [c.identity()["table"] for c in parse({"baseline": "hrv"}, {"baseline": "hrv", "metadata": ["age"]})]
    assert "metadata" not in keys[0] and keys[1] == {**keys[0], "metadata": {"columns": ("age",), "digest": None}}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"metadata": []}, "metadata"),
        ({"metadata": ["age", "age"]}, "a column twice"),
        ({"metadata": ["age"], "columns": {"id": "x"}}, "columns belongs to a file"),
        ({"metadata": ["age"], "predictions": "a.csv"}, "predictions are finished"),
        ({"metadata": ["age"], "baseline": "signal-1d"}, "reads samples alone"),
        ({"metadata": ["age"], "backbone": "resnet18"}, "metadata belongs to"),
        ({"metadata": ["age"], "frozen": True}, "frozen belongs to a network"),
    ],
)
def test_metadata_that_would_have_no_effect_are_refused(entry: dict[str, object], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        parse(entry)


def test_an_average_needs_a_network_among_its_members() -> None:
    members: list[object] = [{"metadata": ["age"]}, {"baseline": "hrv"}]
    with pytest.raises(SpecError, match="none of its members has a network"):
        parse(*members, {"fuse": ["metadata", "hrv"], "mode": "ensemble"})
    network = {"backbone": "test_vit", "weights": "random", "name": "net"}
    average = parse(*members, network, {"fuse": ["metadata", "net"], "mode": "ensemble"})[-1]
    assert average.members == ("metadata", "net") and len(average.backbones) == 1

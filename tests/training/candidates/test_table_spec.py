"""Candidates without a network as a study writes them, what is refused, and what their identity depends on."""

from __future__ import annotations

import pytest

import phoropter as ph
from phoropter.core.errors import SpecError
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.candidates.candidate_entry import parse_candidates
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

"""Nouns in both numbers."""

from __future__ import annotations

import pytest

from phoropter.core.language.unit_words import UnitWord, parse_unit_word


@pytest.mark.parametrize(
    ("given", "singular", "plural"),
    [
        *(("people", "person", "people"), ("person", "person", "people"), ("births", "birth", "births")),
        ("birth", "birth", "births"),
        *(("hospital", "hospital", "hospitals"), ("biopsies", "biopsy", "biopsies"), ("batch", "batch", "batches")),
        *(("boxes", "box", "boxes"), ("day", "day", "days"), ("days", "day", "days"), ("glass", "glass", "glasses")),
        *(("mouse", "mouse", "mice"), ("young people", "young person", "young people"), ("lens/lenses", "lens", "lenses")),
        *(("ox / oxen", "ox", "oxen"), ("Ärztin/Ärztinnen", "Ärztin", "Ärztinnen")),
    ],
)  # fmt: skip
def test_a_noun_is_read_in_either_number(given: str, singular: str, plural: str) -> None:
    assert parse_unit_word(given) == UnitWord(singular, plural)
    assert parse_unit_word(parse_unit_word(given).written) == UnitWord(singular, plural)


def test_one_is_singular_and_every_other_number_plural() -> None:
    person = parse_unit_word("people")
    assert [person.count(n) for n in (0, 1, 2, 1200)] == ["0 people", "1 person", "2 people", "1,200 people"]


@pytest.mark.parametrize("given", ["", "a/b/c", "people/", "12", "<b>"])
def test_what_is_no_noun_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="is no noun"):
        parse_unit_word(given)

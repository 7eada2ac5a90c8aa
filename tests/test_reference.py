"""The reference of a study file's keys: written from the docstrings, complete and up to date."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

ROOT = Path(__file__).parents[1]
REFERENCE = runpy.run_path(str(ROOT / "scripts" / "reference.py"))


def test_every_key_has_a_description() -> None:
    assert REFERENCE["undocumented_fields"]() == [], "write `key: text` in the docstring of the class"


def test_no_two_keys_of_a_spec_share_a_description() -> None:
    assert REFERENCE["shared_descriptions"]() == [], "write a line for each key in the docstring of the class"


def test_keys_are_snake_case_and_words_in_values_are_kebab_case() -> None:
    roots = [root for _, root in REFERENCE["PAGES"].values()]
    fields = {
        (spec.__name__, name): field.annotation
        for root in roots
        for spec in [root, *REFERENCE["nested_specs"](root)]
        for name, field in spec.model_fields.items()
    }
    assert len(fields) > 150 and not [key for key in fields if "-" in key[1]]
    assert not [(*key, word) for key, kind in fields.items() for word in _words_of(kind) if "_" in word]


def _words_of(annotation: Any) -> list[str]:
    """Every word that the Literals within an annotation allow."""
    if get_origin(annotation) is Literal:
        return [word for word in get_args(annotation) if isinstance(word, str)]
    return [word for inner in get_args(annotation) for word in _words_of(inner)]


def test_an_extension_has_the_right_article() -> None:
    from phoropter.training.candidates.custom_loss import Loss
    from phoropter.training.candidates.custom_optimizer import Optimizer

    assert REFERENCE["type_text"](Optimizer) == "`module:NAME` of an Optimizer"
    assert REFERENCE["type_text"](Loss) == "`module:NAME` of a Loss"


def test_a_description_is_found_in_a_docstring_or_on_the_field() -> None:
    from phoropter.training.augmentation.spec import CutOut

    described: dict[str, Any] = REFERENCE["describe_fields"](CutOut)
    assert described["fill"] == "grey level of the box"
    assert described["box_size"].startswith("a square of this side in pixels")


def test_the_schemas_of_json_documents_are_up_to_date() -> None:
    """`python scripts/reference.py --write` brings them up to date."""
    folder = ROOT / "docs" / "reference" / "json"
    assert {p.name: p.read_text(encoding="utf-8") for p in folder.iterdir()} == REFERENCE["all_json_schemas"]()


@pytest.mark.parametrize("name", REFERENCE["PAGES"])
def test_a_page_is_up_to_date(name: str) -> None:
    """`python scripts/reference.py --write` brings them up to date."""
    page = (ROOT / "docs" / "reference" / f"{name}.md").read_text(encoding="utf-8")
    assert page == REFERENCE["all_pages"]()[f"{name}.md"]

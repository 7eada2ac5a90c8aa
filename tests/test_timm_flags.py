"""The tables of timm's flags in docs/study-files.md: what they say to write is read, and says what it seems to say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from phoropter.core.extensions import Extension
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.presets import parse_recipe

PAGE = (Path(__file__).parents[1] / "docs" / "study-files.md").read_text(encoding="utf-8")


def list_rows(heading: str) -> list[tuple[str, str]]:
    """(flags, what to write) of each row of the table with this heading that has something to write."""
    table = PAGE.partition(f"| timm's train.py | {heading} |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`--[^|]*) \| ([^|]*) \| [^|]*\|$", table, re.M)
    return [(flags, written.strip("`")) for flags, written in rows if written != "–"]


RECIPE_ROWS, CANDIDATE_ROWS = list_rows("`recipe:`"), list_rows("candidate")


def holds(value: Any, written: Any) -> bool:
    """Whether a spec, or a list of steps, says what was written."""
    if isinstance(written, dict):
        return all(holds(getattr(value, key), inside) for key, inside in written.items())
    return bool(value == (tuple(written) if isinstance(written, list) else written))


def test_the_tables_are_found() -> None:
    assert len(RECIPE_ROWS) > 25 and len(CANDIDATE_ROWS) > 7
    assert {"--layer-decay 0.75", "--reprob 0.25"} < {flags.strip("`") for flags, _ in RECIPE_ROWS}


@pytest.mark.parametrize(("flags", "written"), RECIPE_ROWS)
def test_a_recipe_says_what_the_table_writes_for_a_flag(flags: str, written: str) -> None:
    fragment = yaml.safe_load(f"{{{written}}}")
    recipe = parse_recipe({"preset": "finetune", **fragment})
    (name, value), *more = fragment.items()
    assert not more
    if name in ("epochs", "lr"):
        assert getattr(recipe.phases[-1], name) == pytest.approx(float(value))
    elif name == "augment":
        (step, options), *_ = [(value, {})] if isinstance(value, str) else value.items()
        kinds = [s.kind for s in recipe.augment if not isinstance(s, Extension)]
        assert kinds == ([] if step == "none" else [step])
        assert all(holds(recipe.augment[0], {key: inside}) for key, inside in options.items())
    elif name in ("optimizer", "schedule", "loss") and isinstance(value, str):
        assert getattr(recipe, name).kind == value
    else:
        assert holds(getattr(recipe, name), value)


@pytest.mark.parametrize(("flags", "written"), CANDIDATE_ROWS)
def test_a_candidate_says_what_the_table_writes_for_a_flag(flags: str, written: str) -> None:
    fragment = yaml.safe_load(f"{{{written}}}")
    (name, value), *more = fragment.items()
    assert not more
    kind = "student" if name == "teacher" else "backbone"
    candidate = parse_candidates([{kind: "test_vit", **fragment}], parse_recipe(None))[0]
    if name == "teacher":
        assert candidate.distillation is not None and candidate.distillation.teacher == value
    elif name == "head":
        assert holds(candidate.head, value)
    elif name == "options":
        assert candidate.backbones[0].options == value
    else:
        assert holds(getattr(candidate.backbones[0], name), value)

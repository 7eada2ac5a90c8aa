"""The walks of docs/architecture.md name functions that exist, and visit no module twice."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
WALKS = {
    title: re.findall(r"^\d+\. `(phoropter\.[\w.]+)` — \S", body, re.M)
    for title, body in re.findall(r"^### (One .*?)\n(.*?)(?=^##)", PAGE, re.S | re.M)
}


def find_object(name: str) -> tuple[str, object]:
    """`package.module.Class.method` → its module and the object itself."""
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            found: object = import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        return ".".join(parts[:end]), found
    raise AssertionError(f"no module of {name} can be imported")


def test_the_five_walks_are_there() -> None:
    assert [title.split(",")[0] for title in WALKS] == ["One image", "One recording", "One study", "One bundle", "One upload"]
    assert all(len(steps) >= 5 for steps in WALKS.values())


@pytest.mark.parametrize("title", WALKS)
def test_a_walk_names_functions_that_exist_and_no_module_twice(title: str) -> None:
    modules = []
    for name in WALKS[title]:
        module, found = find_object(name)
        assert callable(found), name
        modules.append(module)
    assert len(modules) == len(set(modules))

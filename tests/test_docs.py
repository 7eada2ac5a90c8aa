"""Documentation is true: the tree of rooms, the examples, the links (test_docs_pages.py runs the blocks)."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

import phoropter
from warm_python import WarmPython

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_tree_of_the_architecture_is_the_tree() -> None:
    """`python scripts/tree.py --write` brings it up to date."""
    drawn = runpy.run_path(str(ROOT / "scripts" / "tree.py"))["draw_tree"]()
    assert f"```text\n{drawn}\n```" in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_no_placeholder_is_left() -> None:
    for page in PAGES:
        assert not re.search(r"@[A-Z]+@|TODO|FIXME", page.read_text(encoding="utf-8")), page


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_an_example_runs(script: Path, tmp_path: Path, warm: WarmPython) -> None:
    code = f"import runpy, sys\nsys.argv = ['example', 'out']\nrunpy.run_path({str(script)!r}, run_name='__main__')"
    done = warm.run_code(code, tmp_path)
    assert done.wait(240) == 0, done.read_log()
    assert "accuracy" in done.read_log() or "mean" in done.read_log()


def test_the_python_interface_page_names_every_public_name() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\.\. auto(?:class|function):: phoropter\.(\w+)$", page, re.M)
    assert sorted(shown) == sorted(set(dir(phoropter)) - {"__version__"})


def test_every_page_is_in_the_table_of_contents() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = {p.relative_to(ROOT / "docs").with_suffix("").as_posix() for p in (ROOT / "docs").rglob("*.md")}
    listed = re.findall(r"^([a-z][\w/-]*)$", index, re.M)
    assert sorted(listed) == sorted(pages - {"index"})


def test_every_line_of_slow_txt_names_a_test_file_or_a_test() -> None:
    for line in (ROOT / "tests" / "slow.txt").read_text(encoding="utf-8").split():
        file, _, name = line.partition("::")
        assert (ROOT / file).exists(), line
        assert not name or re.search(rf"^def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.M), line

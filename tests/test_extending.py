"""docs/extending.md: every example runs as it stands; every line for a study file is read, where code is trusted."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

import phoropter
from phoropter.core.errors import PhoropterError
from phoropter.core.extensions import trust_code
from phoropter.study.spec import read_study

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
EXAMPLES = {re.match(r"# (\w+\.py)", block)[1]: block for block in re.findall(r"```python\n(.*?)```", PAGE, re.S)}  # type: ignore[index]
YAML_LINES = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
BASE = {"name": "mine", "data": {"digits": True, "size": 32, "max_samples": 60}, "candidates": ["resnet50"]}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with every example in it; modules imported from it are forgotten afterwards."""
    for name, block in EXAMPLES.items():
        (tmp_path / name).write_text(block, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in EXAMPLES:
        sys.modules.pop(name.removesuffix(".py"), None)


def test_every_kind_has_an_example() -> None:
    pages = ["pictures", "table", "torch_data", "hub_data", "recordings", "database", "protocol", "net"]
    pages += ["loss", "metric", "recipe", "section", "callback"]
    assert list(EXAMPLES) == [f"my_{page}.py" for page in pages]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_short_and_runs(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    block = EXAMPLES[name]
    assert len([line for line in block.splitlines() if line.strip()]) <= 25
    needed = re.match(r"# \w+\.py, needs: (\w+)", block)
    if needed and find_spec(needed[1]) is None:
        pytest.skip(f"{needed[1]} is not installed")
    runpy.run_path(str(folder / name), run_name="__main__")
    assert "accuracy" in capsys.readouterr().out


@pytest.mark.parametrize("line", YAML_LINES, ids=[line.split(":")[0] for line in YAML_LINES])
def test_a_line_for_a_study_file_is_read_where_code_is_trusted(line: str, folder: Path) -> None:
    study = folder / "study.yaml"
    study.write_text(yaml.safe_dump({**BASE, **yaml.safe_load(line)}), encoding="utf-8")
    if "my_" in line:
        with pytest.raises(PhoropterError, match="--trust-code"):
            read_study(study)
    with trust_code(folder):
        (spec,) = read_study(study)
        assert spec.parsed_candidates


def test_the_files_and_tables_to_add_to_exist() -> None:
    source = Path(phoropter.__file__).parent
    table = PAGE[PAGE.index("| kind | write |") :]
    for file in re.findall(r"`((?:data|signals|models|training|results|report|study)/[\w/]+\.py)`", table.replace("NAME", "")):
        assert (source / file).exists() or file.endswith("/.py"), file
    text = "\n".join(path.read_text(encoding="utf-8") for path in source.rglob("*.py"))
    for name in re.findall(r"`([A-Z_]{4,}|[a-z]+_[a-z]+|[A-Z]\w+)`", table):
        assert name == "NAME" or re.search(rf"^(?:def |class )?{name}\b", text, re.M), name

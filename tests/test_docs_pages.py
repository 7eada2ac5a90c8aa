"""Every command and snippet of the documentation runs: page by page, offline, on small pictures and the smallest networks."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import Image

from docs_pages import RUN_LANGUAGES, SHOWN_LANGUAGES, SMALL, Block, make_small, read_blocks, split_commands
from phoropter.study.spec import read_study
from small_pictures import draw_dark_and_light
from warm_python import WarmPython

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
EXTENDING = ROOT / "docs" / "extending.md"  # its blocks are files of their own, which test_extending.py runs
BLOCKS = {page: read_blocks(page.read_text(encoding="utf-8")) for page in PAGES if page != EXTENDING}
RUN = [p for p, blocks in BLOCKS.items() if any(b.language in ("sh", "python") and b.not_run is None for b in blocks)]
YAML = [(page, b) for page, blocks in BLOCKS.items() for b in blocks if b.language == "yaml"]
NETWORKS = ("test_resnet.r160_in1k", "test_efficientnet.r160_in1k", "test_vit.r160_in1k")
# How many blocks do not run: each needs a network, a service or a machine that a test has not. A new one must be worth its place.
MOST_NOT_RUN = 10
NOT_RUN = {"demo": "takes a minute; it runs the shipped study `digits`", "submit": "needs the scheduler of a cluster"}
WAIT_S = 600  # for a page, on a machine that does much else
pytestmark = pytest.mark.timeout(2 * WAIT_S)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights as `phoropter weights get` fills it, of random numbers, under the names of timm's test networks."""
    from safetensors.torch import save_file

    from phoropter.models.timm_compat import import_timm
    from phoropter.models.weights.weights_folder import ManifestEntry, add_to_manifest, digest_weights

    folder = tmp_path_factory.mktemp("weights")
    for name in NETWORKS:
        file = folder / f"{name}.safetensors"
        save_file(dict(import_timm().create_model(name).state_dict()), file)
        entry = {"file": file.name, "bytes": file.stat().st_size, "sha256": digest_weights(file)}
        origin = {"repo": None, "url": "https://example.org/", "licence": None, "pretraining": "none"}
        add_to_manifest(folder, name, ManifestEntry(**entry, **origin))
    return folder


@pytest.fixture(scope="session")
def home(weights: Path, warm: WarmPython, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a reader who has done the tutorial: pictures, a finished study `runs/scenes`, and its bundle."""
    folder = tmp_path_factory.mktemp("reader")
    draw_dark_and_light(folder / "pictures" / "intel", 12)
    (folder / "new").mkdir()
    for i in range(3):
        Image.open(folder / "pictures" / "intel" / "dark" / f"{i}.png").save(folder / "new" / f"{i}.png")
    (folder / "more").mkdir()
    Image.open(folder / "new" / "0.png").convert("RGB").save(folder / "more" / "a.jpg")
    (folder / "path" / "to").mkdir(parents=True)
    shutil.copy(weights / "test_vit.r160_in1k.safetensors", folder / "path" / "to" / "file.safetensors")
    text = next(b.text for b in BLOCKS[ROOT / "README.md"] if b.language == "yaml")
    (folder / "scenes.yaml").write_text(make_small(text), encoding="utf-8")
    steps = "```sh\nphoropter run scenes.yaml\nphoropter refit runs/scenes -o scenes-bundle --examples 2\n```\n"
    (folder / "steps.md").write_text(steps, encoding="utf-8")
    run_blocks(folder / "steps.md", folder, weights, warm)
    return folder


def run_blocks(page: Path, folder: Path, weights: Path, warm: WarmPython) -> str:
    """What the blocks of a page write, run in `folder` as the home of the reader. Fails where one fails."""
    code = f"from docs_pages import run_page\nfrom pathlib import Path\nrun_page(Path({str(page)!r}))"
    environment = {
        "HOME": str(folder),
        "PHOROPTER_WEIGHTS": str(weights),
        "COLUMNS": "200",
        "PYTHONPATH": str(Path(__file__).parent),
    }
    done = warm.run_code(f"import sys\nsys.path.append({str(Path(__file__).parent)!r})\n{code}", folder, environment)
    assert done.wait(WAIT_S) == 0, done.read_log()
    return done.read_log()


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda p: p.name)
def test_a_page_runs(page: Path, home: Path, weights: Path, warm: WarmPython, tmp_path: Path) -> None:
    folder = tmp_path / "home"
    shutil.copytree(home, folder)
    log = run_blocks(page, folder, weights, warm)
    assert log.count("\n$ phoropter") == count_phoropter(page), log


def count_phoropter(page: Path) -> int:
    commands = [c for b in BLOCKS[page] if b.language == "sh" and b.not_run is None for c in split_commands(b.text)]
    return sum(c.startswith("phoropter") for c in commands)


@pytest.mark.parametrize(("page", "block"), YAML, ids=[f"{p.name} {b.line}" for p, b in YAML])
def test_a_study_or_a_part_of_one_is_read(page: Path, block: Block, tmp_path: Path) -> None:
    for i, line in enumerate(split_alternatives(block.text)):
        value = yaml.safe_load(line)
        base = {"name": "mine", "data": {"folder": "pictures"}, "candidates": ["resnet50", "vit_small_patch16_224"]}
        study = tmp_path / f"{i}.yaml"
        study.write_text(line if {"name", "candidates"} <= set(value) else yaml.safe_dump({**base, **value}), encoding="utf-8")
        assert all(part.parsed_candidates for part in read_study(study))


def split_alternatives(text: str) -> list[str]:
    """A block of lines that all begin with one key shows alternatives."""
    keys = re.findall(r"^([a-z_]+):", text, re.M)
    return text.splitlines() if len(keys) > 1 and len(set(keys)) == 1 else [text]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_block_says_what_it_is(page: Path) -> None:
    for block in read_blocks(page.read_text(encoding="utf-8")):
        assert block.language in RUN_LANGUAGES + SHOWN_LANGUAGES, f"{page.name}, line {block.line}: '{block.language}'"


def test_few_blocks_do_not_run_and_each_says_why() -> None:
    left_out = [f"{page.name}, line {b.line}: {b.not_run}" for page, blocks in BLOCKS.items() for b in blocks if b.not_run]
    assert len(left_out) <= MOST_NOT_RUN, left_out
    assert all(len(line.split()) > 6 for line in left_out)


def test_every_command_is_in_a_page_that_runs() -> None:
    from phoropter.cli import main

    shown = {
        words[1] for page in RUN for b in BLOCKS[page] for c in split_commands(b.text) if (words := c.split())[0] == "phoropter"
    }
    assert set(main.commands) - shown <= set(NOT_RUN) and not shown & set(NOT_RUN)


def test_blocks_are_read_as_they_stand() -> None:
    page = (
        "a\n\n```sh\nphoropter a \\\n  b   # c\n# d\n```\n\n<!-- not run: e f -->\n```python\ng\n```\n<!-- given in sh:\nh\n-->\n"
    )
    first, second, third = read_blocks(page)
    assert (first.line, first.language, split_commands(first.text)) == (3, "sh", ["phoropter a    b   # c"])
    assert (second.language, second.text, second.not_run) == ("python", "g\n", "not run: e f")
    assert (third.language, third.text, third.not_run) == ("sh", "h\n", None)


def test_what_is_made_small_is_said_somewhere() -> None:
    text = "".join(b.text for blocks in BLOCKS.values() for b in blocks if b.language in RUN_LANGUAGES)
    assert [pattern for pattern, _ in SMALL if not re.search(pattern, text)] == []
    assert make_small("{folder: a, size: 224}, seeds: [0, 1]") == "{folder: a, size: 32}, seeds: [0]"


@pytest.fixture
def run_text(tmp_path: Path, weights: Path, warm: WarmPython) -> Callable[[str], str]:
    def run(text: str) -> str:
        (tmp_path / "page.md").write_text(text, encoding="utf-8")
        return run_blocks(tmp_path / "page.md", tmp_path, weights, warm)

    return run


@pytest.mark.slow
def test_a_block_that_fails_fails_the_page(run_text: Callable[[str], str]) -> None:
    assert "1.0\n" in run_text("```python\nx = 1.0\n```\n```sh\nphoropter studies | head -n 1\n```\n```python\nprint(x)\n```\n")
    for block in ("```sh\nphoropter plan nothing.yaml\n```\n", "```python\n1 / 0\n```\n", "```sh\nfalse\n```\n"):
        with pytest.raises(AssertionError, match=r"page\.md, line 1"):
            run_text(block)

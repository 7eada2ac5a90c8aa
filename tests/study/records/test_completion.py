"""A study that is done is known to be done, and anything that is missing or asked otherwise is not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from phoropter.core.files import cache_dir
from phoropter.results.store import Store
from phoropter.study.records.completion import COMPLETE_FILE, is_complete
from phoropter.study.spec import StudySpec
from tiny_study import run_tiny_study, write_tiny_study


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_tiny_study(tmp_path_factory.mktemp("done")).folder.parent


def is_told_complete(folder: Path, study: StudySpec) -> bool:
    return is_complete(study, Store(folder / "out"), cache_dir(folder / "out"))


def test_a_finished_study_is_complete(done: Path) -> None:
    assert is_told_complete(done, write_tiny_study(done))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seeds: [0]", "seeds: [0, 1]"),
        ("seeds: [0]", "seeds: [1]"),
        ("max_samples: 60", "max_samples: 50"),
        ("candidates:", "metrics: [macro_f1]\ncandidates:"),
        ("name: tiny", "name: tiny\nleakage: warn"),
        ("name: tiny", "# a word of the author's\nname: tiny"),  # which study.json and the page repeat
        ("candidates:", "controls: [labels-permuted]\ncandidates:"),
    ],
)
def test_another_question_is_not(done: Path, old: str, new: str) -> None:
    assert not is_told_complete(done, write_tiny_study(done, (old, new)))


def _damage_prediction(out: Path) -> None:
    path = next((out / "runs").glob("*/predictions.npz"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a run is gone": lambda out: shutil.rmtree(next((out / "runs").iterdir())),
    "a run is damaged": _damage_prediction,
    "treatments are gone": lambda out: shutil.rmtree(out / "treatments"),
    "study.json is gone": lambda out: (out / "study.json").unlink(),
    "study.json is damaged": lambda out: (out / "study.json").write_text("{"),
    "the note is gone": lambda out: (out / COMPLETE_FILE).unlink(),
    "the note is of another study": lambda out: (out / COMPLETE_FILE).write_text('{"asked": "0", "format": 1}'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_folder_that_lacks_something_is_not(done: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(done, tmp_path / "copy")
    DAMAGES[damage](tmp_path / "copy" / "out")
    assert not is_told_complete(tmp_path / "copy", write_tiny_study(tmp_path / "copy"))


def test_run_and_plan_of_a_finished_study_load_nothing_heavy(done: Path) -> None:
    """The second `run` also takes the report as it is."""
    program = (
        "import sys\nfrom phoropter.cli import main\n"
        "main([*sys.argv[1:]], standalone_mode=False)\n"
        "print('loaded:', *sorted({'torch', 'sklearn', 'scipy', 'pandas', 'matplotlib', 'timm'} & set(sys.modules)))"
    )
    write_tiny_study(done)
    said = []
    for command in (["run", "study.yaml", "-o", "out"], ["run", "study.yaml", "-o", "out"], ["plan", "study.yaml"]):
        ended = subprocess.run([sys.executable, "-c", program, *command], cwd=done, capture_output=True, text=True, check=True)
        said.append(ended.stdout)
    assert said[1].endswith("loaded:\n") and said[2].splitlines()[-1] in ("loaded:", "loaded: scipy")
    assert said[1].removesuffix("loaded:\n") == said[0][: said[0].rindex("loaded:")]

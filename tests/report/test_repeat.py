"""The commands under `How to reproduce it` are run: in a shell, where the study was started, and they give the same page."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from phoropter.report.sections.study.provenance import reproduce_commands

STUDY = """\
name: tiny
data: {digits: true, size: 32, max_samples: 80}
protocol: {split: stratified-k-fold, folds: 2}
recipe: {preset: probe, epochs: 1}
candidates:
  - {name: cnn, backbone: test_resnet, weights: random, frozen: true}
"""


def run_in_shell(commands: str, folder: Path) -> str:
    """Runs lines for a shell with this installation's `phoropter` first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-e", "-c", commands],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_commands_of_the_page_work_and_give_the_page_again(tmp_path: Path) -> None:
    (tmp_path / "my study.yaml").write_text(STUDY)
    run_in_shell("phoropter run 'my study.yaml' -o 'my results' --device cpu", tmp_path)
    page = tmp_path / "my results" / "report" / "index.html"
    before = page.read_bytes()
    found = re.search(r"<h3>How to reproduce it</h3>\s*<pre[^>]*>(.*?)</pre>", before.decode(), re.S)
    assert found is not None
    page.unlink()
    said = run_in_shell(html.unescape(found.group(1)), tmp_path)
    assert said.count("report: my results/report/index.html") == 2, "`run` finds all runs done, and `report` writes it once more"
    assert page.read_bytes() == before


@pytest.mark.parametrize(
    ("command", "folder", "lines"),
    [
        ("phoropter run a.yaml", "runs/made", ["phoropter run a.yaml", "phoropter report runs/made"]),
        ("phoropter run a.yaml", "runs/a/part", ["phoropter run a.yaml", "phoropter report runs/a/part"]),
        ("phoropter run a.yaml -o out", "out/part", ["phoropter run a.yaml -o out", "phoropter report out/part"]),
        ("__main__.py run a.yaml", "runs/made", ["phoropter run a.yaml", "phoropter report runs/made"]),
        ("study.py 3", "runs/made", ["python study.py 3", "phoropter report runs/made"]),
        ("ipykernel_launcher.py -f kernel.json", "runs/made", ["phoropter run made.yaml", "phoropter report runs/made"]),
        ("-c", "elsewhere/made", ["phoropter run made.yaml", "phoropter report runs/made"]),
    ],
)
def test_a_command_is_one_that_a_shell_runs(command: str, folder: str, lines: list[str], tmp_path: Path) -> None:
    study = {"command": command, "name": "made", "versions": {"phoropter": "0.1.0"}}
    summary: Any = SimpleNamespace(study=study, folder=tmp_path / folder)
    comment, *rest = reproduce_commands(summary)
    assert comment.startswith("# phoropter 0.1.0; ") and rest == lines
    assert ("saved as made.yaml" in comment) == ("made.yaml" in rest[0])

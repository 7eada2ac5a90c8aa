"""`phoropter weights list` shows all that a folder holds, whoever put it there."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from phoropter.cli import main


def test_files_put_into_the_folder_by_hand_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "resnet50.from_a_colleague.safetensors"
    file.touch()
    monkeypatch.setenv("PHOROPTER_WEIGHTS", str(tmp_path))
    listed = CliRunner().invoke(main, ["weights", "list"], catch_exceptions=False)
    assert listed.stdout.count(f"{file.name}  folder  not stated") == 1
    assert f"by its path, as in weights: {file}" in listed.output
    by_name = CliRunner().invoke(main, ["weights", "list", "test_resnet"], catch_exceptions=False)
    assert file.name not in by_name.output, "who names a network is told of that alone"

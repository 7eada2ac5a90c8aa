"""`python -m phoropter` is the command line."""

from __future__ import annotations

import runpy
import sys

import pytest

from phoropter.cli import main


def test_the_package_runs_as_the_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["phoropter", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("phoropter", run_name="__main__")
    shown = capsys.readouterr().out
    assert ended.value.code == 0 and all(f"  {name} " in shown for name in main.commands)

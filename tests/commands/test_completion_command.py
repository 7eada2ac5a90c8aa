"""Completion in a real bash, installed by one command; scripts for zsh and fish."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from phoropter.cli import main

BASH = shutil.which("bash")


def complete(home: Path, *words: str) -> list[str]:
    """What an interactive bash, which reads ~/.bashrc, completes after these words."""
    quoted = " ".join(f"'{word}'" for word in words)
    call = f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _phoropter_completion phoropter"
    line = call + "; printf '%s\\n' \"${COMPREPLY[@]}\""
    place = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [str(BASH), "-ic", line], env={**os.environ, "HOME": str(home), "PATH": place}, capture_output=True, text=True, timeout=60
    )
    return done.stdout.split()


@pytest.mark.skipif(BASH is None, reason="there is no bash here")
def test_bash_completes_commands_options_studies_and_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    (tmp_path / ".bashrc").write_text("export MINE=1")
    for _ in range(2):  # the second time changes nothing
        done = CliRunner().invoke(main, ["completion", "bash", "--install"], catch_exceptions=False)
        assert done.exit_code == 0 and "completion.bash" in done.output
    start = (tmp_path / ".bashrc").read_text()
    assert start.startswith("export MINE=1\n") and start.count("# completion of phoropter") == 1
    assert complete(tmp_path, "phoropter", "back") == ["backbones"]
    assert "--smoke" in complete(tmp_path, "phoropter", "plan", "--s")
    assert "digits" in complete(tmp_path, "phoropter", "run", "dig")
    assert "mobilenetv1_100" in complete(tmp_path, "phoropter", "backbones", "mobilenetv1")


@pytest.mark.parametrize(("shell", "words"), [("zsh", "#compdef phoropter"), ("fish", "complete --no-files --command phoropter")])
def test_other_shells_have_a_script(shell: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    assert words in CliRunner().invoke(main, ["completion", shell]).output
    done = CliRunner().invoke(main, ["completion", shell, "--install"], catch_exceptions=False)
    assert done.exit_code == 0
    installed = Path(done.output.splitlines()[0].removeprefix("written: "))
    assert installed.is_relative_to(tmp_path) and words in installed.read_text()
    assert (tmp_path / ".zshrc").exists() == (shell == "zsh")

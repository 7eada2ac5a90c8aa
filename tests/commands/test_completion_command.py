"""Completion in a real bash, installed by one command; scripts for zsh and fish."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
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


def press_tab(shell: str, home: Path, typed: str, wanted: str) -> str:
    """What a terminal shows of a shell that has read its start file, after these letters and the Tab key."""
    environment = {"HOME": str(home), "TERM": "xterm", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    terminal, inside = pty.openpty()
    ends = dict.fromkeys(("stdin", "stdout", "stderr"), inside)
    process = subprocess.Popen([str(shutil.which(shell)), "-i"], env=environment, start_new_session=True, **ends)
    os.close(inside)
    shown = ""
    try:
        for letters, awaited in (("", "READY> "), (f"{typed}\t", wanted)):
            os.write(terminal, letters.encode())
            until = time.monotonic() + 120
            while awaited not in shown and select.select([terminal], [], [], max(0.0, until - time.monotonic()))[0]:
                shown += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\x07]", "", os.read(terminal, 1024).decode(errors="replace"))
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    return shown


@pytest.mark.parametrize(("shell", "prompt"), [("bash", "PS1"), ("zsh", "PROMPT")])
def test_the_tab_key_completes_in_a_terminal(shell: str, prompt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a start file that does not begin the shell's completion by itself."""
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_DATA_HOME", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / f".{shell}rc").write_text(f"{prompt}='READY> '\n")
    CliRunner().invoke(main, ["completion", shell, "--install"], catch_exceptions=False)
    shown = press_tab(shell, tmp_path, "phoropter backbones mobilenetv1_10", "mobilenetv1_100")
    assert "mobilenetv1_100" in shown, shown
    assert "not found" not in shown, shown


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

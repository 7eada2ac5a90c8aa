"""`phoropter completion`: what makes a shell complete commands, options, studies and networks; `--install` makes it permanent."""

from __future__ import annotations

import os
from pathlib import Path

import click

_NAME, _VARIABLE = "phoropter", "_PHOROPTER_COMPLETE"
# A zsh whose start file does not begin its completion has no compdef, which the script calls.
_BEGIN_ZSH = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }\n"


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.option("--install", is_flag=True, help="Write it where the shell finds it at its next start.")
@click.pass_context
def completion_command(ctx: click.Context, shell: str, install: bool) -> None:
    """Print the script by which SHELL completes phoropter's commands, or install it for yourself."""
    from click.shell_completion import get_completion_class

    writer = get_completion_class(shell)
    assert writer is not None
    script = writer(ctx.find_root().command, {}, _NAME, _VARIABLE).source()
    if not install:
        click.echo(script, nl=False)
        return
    for file in install_script(shell, script):
        click.echo(f"written: {file}")
    click.echo(f"begin a new {shell} to use it")


def install_script(shell: str, script: str) -> list[Path]:
    """Writes the script for one user and, where the shell needs it, one line into its start file, once; the files written."""
    from phoropter.core.files import make_folder, write_text

    home = Path.home()
    if shell == "fish":
        file = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "fish" / "completions" / f"{_NAME}.fish"
    else:
        file = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share") / _NAME / f"completion.{shell}"
    make_folder(file.parent)
    write_text(file, (_BEGIN_ZSH if shell == "zsh" else "") + script)
    if shell == "fish":
        return [file]
    start = (Path(os.environ.get("ZDOTDIR") or home) / ".zshrc") if shell == "zsh" else home / ".bashrc"
    line = f'[ -r "{file}" ] && . "{file}"  # completion of {_NAME}\n'
    text = start.read_text(encoding="utf-8") if start.exists() else ""
    if line in text:
        return [file]
    write_text(start, text + ("" if not text or text.endswith("\n") else "\n") + line)
    return [file, start]

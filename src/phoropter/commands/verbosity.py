"""`-q` and `-v` of every command: what was asked for, warnings and errors alone, or also logs and the traceback of a mistake.

What was asked for is a plan, a status, a listing, a document (`--json`), a table on standard output. Of commands that write files
(run, report, refit, predict -o, explain, export, compare) nothing is left on standard output.
"""

from __future__ import annotations

from typing import Any

import click

from phoropter.console import set_verbosity


def add_verbosity_options(command: click.Command) -> None:
    """Gives a command, or every command of a group, the options -q and -v."""
    if isinstance(command, click.Group):
        for each in command.commands.values():
            add_verbosity_options(each)
        return
    quiet = "Print answers, warnings and errors alone: no progress, no notes, no paths."
    words = (("-q", "--quiet", -1, quiet), ("-v", "--verbose", 1, "Also logs and tracebacks."))
    for short, long, level, help_text in words:
        command.params.append(
            click.Option([short, long], is_flag=True, expose_value=False, help=help_text, callback=_make_setter(level))
        )


def _make_setter(level: int) -> Any:
    def set_level(ctx: click.Context, param: click.Parameter, is_given: bool) -> None:
        if not is_given:
            return
        if ctx.meta.get("verbosity", level) != level:
            raise click.UsageError("-q and -v contradict each other: keep one")
        ctx.meta["verbosity"] = level
        set_verbosity(level)
        ctx.find_root().call_on_close(lambda: set_verbosity(0))  # a program may call several commands
        if level > 0:
            import logging

            logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")

    return set_level

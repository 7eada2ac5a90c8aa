"""Where the progress of `Study.run` is shown: live bars in a terminal and in a notebook that can draw them, lines elsewhere."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def make_progress_console(quiet: bool = False) -> Console:
    """The console for progress. A notebook needs ipywidgets for bars that move; without it, a line is printed for each run."""
    from rich.console import Console

    console = Console(quiet=quiet, stderr=True)
    if not console.is_jupyter:
        return console
    if find_spec("ipywidgets") is not None:
        return Console(quiet=quiet, stderr=True, force_terminal=True)  # rich takes a notebook for no terminal
    return Console(quiet=quiet, stderr=True, force_jupyter=False, force_terminal=False)

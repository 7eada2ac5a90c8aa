"""Bars move in a terminal and in a notebook that can draw them; elsewhere progress is lines."""

from __future__ import annotations

from importlib.machinery import ModuleSpec

import pytest
import rich.console

from phoropter.interface import progress_console
from phoropter.interface.progress_console import make_progress_console


def test_a_notebook_gets_bars_only_where_it_can_draw_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not make_progress_console().is_jupyter and make_progress_console(quiet=True).quiet
    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)
    monkeypatch.setattr(progress_console, "find_spec", lambda name: None)
    lines = make_progress_console()
    assert not lines.is_terminal and not lines.is_jupyter
    monkeypatch.setattr(progress_console, "find_spec", lambda name: ModuleSpec(name, None))
    bars = make_progress_console()
    assert bars.is_terminal and bars.is_jupyter

from __future__ import annotations

import pytest

from phoropter.data.stores.copy_progress import FIRST_S, CopyProgress


def test_a_line_says_how_much_is_copied_and_what_is_left(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    progress = CopyProgress(400 * 2**20, clock=lambda: now[0])
    now[0] = FIRST_S - 0.1
    progress.add_bytes(50 * 2**20)
    assert not caplog.messages
    now[0] = FIRST_S
    progress.add_bytes(50 * 2**20)
    assert caplog.messages == ["copied 100.0 MiB of 400.0 MiB (25 %), about 30 s left"], "a quarter in 10 s"
    progress.add_bytes(1)
    assert len(caplog.messages) == 1
    now[0] = 1000.0
    progress.add_bytes(1)
    now[0] = 1099.0
    progress.add_bytes(1)
    assert len(caplog.messages) == 2, "after 1,000 s a line every 100 s"
    now[0] = 1200.0
    progress.add_bytes(300 * 2**20 - 3)
    assert len(caplog.messages) == 2 and progress.done == progress.total, "that it is done needs no line"

"""Warnings and logs of decoding packages go nowhere while any thread decodes, and come back afterwards."""

from __future__ import annotations

import logging
import threading
import warnings

import pytest

from phoropter.data.images.quiet import QuietPackages


def test_warnings_and_logs_come_back_when_the_last_thread_leaves(caplog: pytest.LogCaptureFixture) -> None:
    quiet = QuietPackages(__name__, "some_package")
    logger = logging.getLogger("some_package")
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with quiet:
            inside.set()
            leave.wait()

    thread = threading.Thread(target=stay)
    thread.start()
    inside.wait()
    with quiet:
        warnings.warn("hidden", stacklevel=1)
    warnings.warn("hidden too: the other thread is inside", stacklevel=1)
    logger.warning("hidden")
    leave.set()
    thread.join()
    with pytest.warns(UserWarning, match="seen"):
        warnings.warn("seen", stacklevel=1)
    logger.warning("heard")
    assert [record.message for record in caplog.records] == ["heard"]


def test_warnings_of_other_modules_are_not_hidden() -> None:
    with pytest.warns(UserWarning, match="seen"), QuietPackages(r"PIL\.", "PIL"):
        warnings.warn("seen", stacklevel=1)

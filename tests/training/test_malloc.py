"""The allocator is tuned once, and not against the wishes of the user."""

from __future__ import annotations

import pytest

from phoropter.training.malloc import tune_malloc


def test_the_users_own_variables_are_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "0")
    tune_malloc.cache_clear()
    try:
        assert tune_malloc() is False
    finally:
        tune_malloc.cache_clear()

"""Garbage is looked for seldom, and as before afterwards."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from phoropter.core.processes.garbage import SELDOM, collecting_seldom, importing_for_good


@pytest.fixture(autouse=True)
def thresholds_stay() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def count_passes() -> int:
    return sum(generation["collections"] for generation in gc.get_stats())


def make_objects() -> list[list[int]]:
    return [[i] for i in range(30_000)]


def test_objects_that_stay_are_hardly_looked_at() -> None:
    gc.set_threshold(700, 10, 10)
    gc.collect()
    begun = count_passes()
    kept = [make_objects()]
    often = count_passes() - begun
    with collecting_seldom():
        gc.collect()
        begun = count_passes()
        kept.append(make_objects())
        assert count_passes() == begun and often >= 30 and len(kept) == 2


def test_it_ends_with_the_block_also_where_that_fails() -> None:
    gc.set_threshold(700, 10, 10)
    with pytest.raises(KeyError), collecting_seldom():
        assert gc.get_threshold() == SELDOM
        raise KeyError
    assert gc.get_threshold() == (700, 10, 10)


def test_who_looks_more_seldom_or_never_is_left_alone() -> None:
    for chosen, inside in (((0, 10, 10), (0, 10, 100)), ((90_000, 20, 500), (90_000, 20, 500))):
        gc.set_threshold(*chosen)
        with collecting_seldom():
            assert gc.get_threshold() == inside
        assert gc.get_threshold() == chosen


def test_blocks_of_two_threads_that_overlap_restore_what_was_there() -> None:
    gc.set_threshold(700, 10, 10)
    first, second = collecting_seldom(), collecting_seldom()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert gc.get_threshold() == SELDOM
    second.__exit__(None, None, None)
    assert gc.get_threshold() == (700, 10, 10)


def test_what_is_imported_for_good_is_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.set_threshold(700, 10, 10)
    gc.unfreeze()
    try:
        with importing_for_good():  # nothing new is imported: what exists may be garbage of earlier work
            assert gc.get_threshold() == SELDOM
        assert gc.get_freeze_count() == 0 and gc.get_threshold() == (700, 10, 10)
        with importing_for_good():
            monkeypatch.setitem(sys.modules, "just_imported", ModuleType("just_imported"))
            kept = make_objects()
        assert gc.get_freeze_count() >= len(kept)
        assert not any(one is kept for one in gc.get_objects())
    finally:
        gc.unfreeze()

"""Errors that end a study: full and read-only disks wherever they come from, and memory that is short again and again."""

from __future__ import annotations

import errno
import os

import pytest
import torch

from phoropter.core.errors import DiskError, MemoryShortageError, RunError
from phoropter.training.loop.fatal_errors import MemoryWatch, find_disk_error, is_out_of_memory


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number), "/data/out")


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "is full: free some"), (errno.EDQUOT, "is full"), (errno.EROFS, "is read-only")]
)
def test_a_full_or_read_only_disk_is_found_under_any_error(number: int, words: str) -> None:
    try:
        try:
            raise os_error(number)
        except OSError as error:
            raise RuntimeError("the library's own words") from error
    except RuntimeError as error:
        found = find_disk_error(error)
    assert found is not None and found.exit_code == 3
    assert words in str(found) and "/data/out" in str(found) and "the same command goes on from here" in str(found)


def test_a_disk_error_keeps_its_words() -> None:
    found = find_disk_error(DiskError("no room in /data"))
    assert found is not None and str(found).startswith("no room in /data; finished runs are kept, and the same command goes on")
    found = find_disk_error(DiskError("no room: free some and run the same command again"))
    assert found is not None and str(found) == "no room: free some and run the same command again; finished runs are kept"


def test_other_errors_fail_only_their_run() -> None:
    for error in (os_error(errno.EACCES), ValueError("no space"), RunError("it diverged"), os_error(errno.ENOENT)):
        assert find_disk_error(error) is None and not is_out_of_memory(error)


def test_memory_that_is_short_is_found_in_every_form() -> None:
    for error in (
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
        os_error(errno.ENOMEM),
    ):
        assert is_out_of_memory(error) and find_disk_error(error) is None
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)


def test_two_candidates_without_memory_one_after_the_other_end_the_study() -> None:
    watch = MemoryWatch()
    watch.note_shortage("large", ["large", "small"])
    with pytest.raises(MemoryShortageError, match=r"'large' and 'small'.* too little memory: end other programs") as caught:
        watch.note_shortage("small", ["small", "other"])
    assert caught.value.exit_code == 3


def test_one_candidate_that_is_too_large_does_not_stop_the_others() -> None:
    watch = MemoryWatch()
    for _ in range(3):
        watch.note_shortage("large", ["large", "small"])
    watch.note_success()
    watch.note_shortage("larger", ["larger"])
    with pytest.raises(MemoryShortageError, match="2 runs one after another"):
        watch.note_shortage("larger", ["larger"])


def test_releasing_memory_needs_no_gpu() -> None:
    MemoryWatch.release_memory()

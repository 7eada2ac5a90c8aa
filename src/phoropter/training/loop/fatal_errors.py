"""Which errors end a study and not only a run: those that every later run would meet too."""

from __future__ import annotations

import errno
import gc
from collections.abc import Iterator, Sequence

import torch

from phoropter.core.errors import DiskError, MemoryShortageError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_MEMORY_WORDS = ("can't allocate memory", "not enough memory", "out of memory")  # torch's allocators: a plain RuntimeError
_KEPT = "; finished runs are kept"
_GO_ON = f"{_KEPT}, and the same command goes on from here"


def find_disk_error(error: BaseException) -> DiskError | None:
    """The error as a DiskError if it, or what it came from, says that the disk is full or read-only."""
    for each in _iterate_causes(error):
        if isinstance(each, DiskError):
            return DiskError(f"{each}{_KEPT if 'same command' in str(each) else _GO_ON}")
        if isinstance(each, OSError) and each.errno in {*_NO_ROOM, errno.EROFS}:
            what = "is read-only: choose another folder" if each.errno == errno.EROFS else "is full: free some space"
            return DiskError(f"the disk of {each.filename or 'the results or the cache'} {what}{_GO_ON}")
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that the computer's or the GPU's memory did not suffice."""
    for each in _iterate_causes(error):
        if isinstance(each, (MemoryError, torch.OutOfMemoryError)) or (isinstance(each, OSError) and each.errno == errno.ENOMEM):
            return True
        if isinstance(each, RuntimeError) and any(words in str(each).lower() for words in _MEMORY_WORDS):
            return True
    return False


class MemoryWatch:
    """Tells a candidate that is too large from a machine that has no memory left.

    Two runs in a row without memory end the study, unless all of them are of one candidate and others are still to be tried.
    """

    def __init__(self) -> None:
        self.short: list[str] = []

    def note_success(self) -> None:
        self.short.clear()

    def note_shortage(self, candidate: str, untried: Sequence[str]) -> None:
        """untried: candidates of the runs that are still missing. Raises MemoryShortageError when there is no use in going on."""
        self.short.append(candidate)
        if len(self.short) > 1 and (len(set(self.short)) > 1 or set(untried) <= {candidate}):
            names = " and ".join(f"'{name}'" for name in dict.fromkeys(self.short))
            raise MemoryShortageError(
                f"{len(self.short)} runs one after another ({names}) found too little memory: end other programs, use fewer "
                f"processes (-j), or lower batch_size or size{_GO_ON}"
            )

    @staticmethod
    def release_memory() -> None:
        """Returns what the failed run held, so that it is there for the next one."""
        gc.collect()
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.empty_cache()


def _iterate_causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)

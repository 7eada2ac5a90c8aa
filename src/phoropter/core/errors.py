"""Every error phoropter raises on purpose.

    PhoropterError                  base; the command line prints its one sentence
    ├── UserError                   the user's input: exit code 2
    │   ├── SpecError               a study file or argument: unknown key, wrong type, contradiction
    │   ├── DataError               a dataset, image or recording cannot be used
    │   ├── SplitError              the dataset cannot be split by this protocol
    │   ├── LeakageError            something would be trained on rows it is tested on
    │   ├── WeightsError            pretrained weights are missing, unreadable or do not fit
    │   ├── StoreError              a results folder is incomplete, damaged or in use
    │   ├── MissingExtraError       an optional package is not installed
    │   └── DiskError               no room or no permission to write: exit code 3
    └── RunError                    a run failed while it was computed: exit code 1
        ├── DivergedError           the training loss became infinite or NaN
        └── MemoryShortageError     one run after another found too little memory: exit code 3

Exit code 3 says that nothing is wrong with the study: free what is named, and the same command goes on.

A message is one sentence: which field or file of what, what was expected, what came, what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


class PhoropterError(Exception):
    """Base of every error raised on purpose."""

    exit_code = 1


class UserError(PhoropterError):
    """The user's input cannot be used; the message says what would work."""

    exit_code = 2


class SpecError(UserError):
    """A study file or an argument is wrong: unknown key, wrong type, or a contradiction."""


class DataError(UserError):
    """A dataset, image or recording cannot be used."""


class SplitError(UserError):
    """The dataset cannot be split by this protocol."""


class LeakageError(UserError):
    """Something would be trained on rows it is tested on."""


class WeightsError(UserError):
    """Pretrained weights are missing, unreadable, or do not fit the network."""


class StoreError(UserError):
    """A results folder is incomplete or damaged, or another process is using it."""


class MissingExtraError(UserError):
    """An optional package is needed and is not installed."""

    def __init__(self, package: str, extra: str, what: str) -> None:
        super().__init__(f"{what} needs the package {package}, which is not installed: pip install 'phoropter[{extra}]'")


class DiskError(UserError):
    """There is no room, or no permission, to write a file."""

    exit_code = 3


class RunError(PhoropterError):
    """A run failed while it was computed."""


class DivergedError(RunError):
    """The training loss became infinite or NaN."""


class MemoryShortageError(RunError):
    """One run after another found too little memory, so that later runs would too."""

    exit_code = 3


@dataclass(frozen=True)
class InputProblem:
    """One bad input that is listed instead of raised: an image, recording or row."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def cut_message(error: BaseException, most: int | None = None) -> str:
    """The first line of an error's message, at most so many characters; its kind's name where there is no message.

    >>> cut_message(ValueError("no such operator\\nand more"), most=7)
    'no such'
    >>> cut_message(AssertionError(), most=160)
    'AssertionError'
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:most]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` with the known word nearest to `word`, or an empty string.

    >>> did_you_mean("resnet5", ["resnet50", "vgg19"])
    "; did you mean 'resnet50'?"
    """
    words = list(known)
    by_lower = {w.lower(): w for w in words}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean '{by_lower[close[0]]}'?" if close else ""


def join_words(words: Iterable[str], limit: int = 12) -> str:
    """`a, b or c`, cut after `limit` words with a count of the rest."""
    all_words = list(words)
    shown = all_words[:limit]
    rest = len(all_words) - len(shown)
    if rest:
        return ", ".join(shown) + f" and {rest} more"
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + f" or {shown[-1]}" if shown else "nothing"

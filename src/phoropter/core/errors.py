"""Every error phoropter raises on purpose.

    PhoropterError                  base; the command line prints its one sentence
    ├── UserError                   the user's input: exit code 2
    │   ├── SpecError               a study file or argument: unknown word, wrong type, contradiction
    │   ├── DataError               a dataset, picture or recording cannot be used as asked
    │   ├── SplitError              the dataset cannot be split as the protocol asks
    │   ├── LeakageError            training would meet rows that are tested
    │   ├── WeightsError            pretrained weights are missing, unreadable or do not fit
    │   ├── StoreError              a results folder is not what it should be, or is in use
    │   ├── MissingExtraError       an optional package is not installed
    │   └── DiskError               no room or no permission to write
    └── RunError                    a run went wrong while computing: exit code 1
        └── DivergedError           the loss left the finite numbers

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
    """What the user gave cannot be used; the message says what would work."""

    exit_code = 2


class SpecError(UserError):
    """A study file or an argument is wrong: unknown word, wrong type, or a contradiction."""


class DataError(UserError):
    """A dataset, picture or recording cannot be used as asked."""


class SplitError(UserError):
    """The dataset cannot be split as the protocol asks."""


class LeakageError(UserError):
    """Something would be trained on rows it is tested on."""


class WeightsError(UserError):
    """Pretrained weights are missing, unreadable, or do not fit the network."""


class StoreError(UserError):
    """A results folder is not what it should be, or another process is using it."""


class MissingExtraError(UserError):
    """An optional package is needed and is not installed."""

    def __init__(self, package: str, extra: str, what: str) -> None:
        super().__init__(f"{what} needs the package {package}, which is not installed: pip install 'phoropter[{extra}]'")


class DiskError(UserError):
    """There is no room, or no permission, to write a file."""


class RunError(PhoropterError):
    """A run went wrong while it was being computed."""


class DivergedError(RunError):
    """The training loss left the finite numbers."""


@dataclass(frozen=True)
class InputProblem:
    """One bad input that was listed instead of raised: a picture, recording or row."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the known word nearest to `word`, or an empty string.

    >>> nearest("resnet5", ["resnet50", "vgg19"])
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

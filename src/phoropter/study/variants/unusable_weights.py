"""Weights that the candidates of a study cannot have, collected so that all are told at once (no torch)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from phoropter.core.errors import WeightsError
from phoropter.models.weights.weight_files import MissingWeightsError, explain_fetching


class UnusableWeightsError(WeightsError):
    """Weights that candidates cannot have. missing: names of those that could be fetched"""

    def __init__(self, words: str, missing: Iterable[str]) -> None:
        super().__init__(words)
        self.missing = tuple(missing)


@dataclass
class UnusableWeights:
    """reasons: what is wrong with weights → the candidates that need them · missing: names of those that could be fetched"""

    reasons: dict[str, list[str]] = field(default_factory=dict)
    missing: dict[str, None] = field(default_factory=dict)

    def add_error(self, error: WeightsError, candidate: str) -> None:
        """Notes what a candidate cannot have."""
        words = str(error)
        if isinstance(error, MissingWeightsError):
            self.missing[error.name] = None
            words = f"the pretrained weights {error.name} are not on this machine and {error.why}"
        candidates = self.reasons.setdefault(words, [])
        if candidate not in candidates:  # a fusion may need them twice
            candidates.append(candidate)

    def raise_if_any(self) -> None:
        """Raises UnusableWeightsError with every reason, and the one command that fetches all that are missing."""
        if not self.reasons:
            return
        told = []
        for words, candidates in self.reasons.items():
            noun = "candidate" if len(candidates) == 1 else "candidates"
            told.append(f"{noun} {', '.join(map(repr, candidates))}: {words}")
        count = "" if len(told) == 1 else f"{len(told)} weights cannot be used: "
        here = "; a file of other weights is named by its path, `weights: FILE`: `phoropter weights list` shows which are here"
        remedy = f"; {explain_fetching(self.missing)}{here}" if self.missing else ""
        raise UnusableWeightsError(f"{count}{' | '.join(told)}{remedy}", self.missing)

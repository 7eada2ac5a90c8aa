"""What the runs of a study said, kept small: everything a report is made of. `reading.py` fills it.

Of the predicted rows only counts stay (confusion, groups, bins of confidence), the replicates of the bootstrap, and the few most
confident mistakes. So 1,200 runs of 3,000 rows need no more memory than the runs of one candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.results.bootstrap import Interval, Replicates
from phoropter.results.metrics import METRICS, Metric
from phoropter.results.sums import BINS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SplitName = tuple[int, int, int]  # seed, repeat, fold


@dataclass(frozen=True, eq=False)
class RunLine:
    """One finished run: which split, and its numbers.

    rows: a digest of the ids it was tested on, so that equal digests were tested on equal rows · groups: how many it met, 0 where
    rows have none · n_train: of the full split, the inner validation part included
    """

    key: str
    split: SplitName
    rows: str
    groups: int
    n_train: int
    n_test: int
    metrics: dict[str, float]
    external: dict[str, float]
    cost: dict[str, float]
    record: dict[str, Any]


@dataclass(frozen=True)
class Mistake:
    """One wrong answer, as confident as few."""

    run: str
    id: str
    true: int
    answered: int
    confidence: float
    group: str | None
    span: tuple[float, float] | None


@dataclass(frozen=True)
class Unseen:
    """All models of a candidate, averaged, on rows of sites none was trained on; `sites`: the first metric on each of them."""

    rows: int
    models: int
    metrics: dict[str, float]
    interval: Interval
    sites: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Mended:
    """Mean and deviation over runs of the fitted temperature, and the mean calibration error it leaves on the held-out rows."""

    temperature: float
    spread: float
    error: float


@dataclass(eq=False)
class Shares:
    """Rows and right answers by name (of a group or a site)."""

    rows: dict[str, int] = field(default_factory=dict)
    right: dict[str, int] = field(default_factory=dict)

    def add(self, names: Sequence[str], member: Ints, right: NDArray[np.bool_]) -> None:
        """names: each once · member (n,), right (n,): which name a row has, and whether its answer is right"""
        rows = np.bincount(member, minlength=len(names)).tolist()
        hits = np.bincount(member, weights=right, minlength=len(names)).astype(np.int64).tolist()
        for name, n, k in zip(names, rows, hits, strict=True):
            self.rows[name] = self.rows.get(name, 0) + n
            self.right[name] = self.right.get(name, 0) + k

    def share(self, name: str) -> float:
        return self.right[name] / self.rows[name] if self.rows.get(name) else float("nan")


@dataclass(eq=False)
class Entrant:
    """One candidate of the study and what its runs said.

    confusion (C, C), row the true class · bins (BINS, 3): rows, summed confidence, right
    history: column → (epochs,) of each run
    """

    name: str
    planned: int
    settings: dict[str, Any]
    runs: list[RunLine] = field(default_factory=list)
    confusion: Ints = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int64))
    bins: Floats = field(default_factory=lambda: np.zeros((BINS, 3)))
    groups: Shares = field(default_factory=Shares)
    sites: Shares = field(default_factory=Shares)
    mistakes: list[Mistake] = field(default_factory=list)
    history: dict[str, list[Floats]] = field(default_factory=dict)
    replicates: Replicates | None = None
    unseen: Unseen | None = None

    @property
    def complete(self) -> bool:
        return len(self.runs) == self.planned

    @property
    def base(self) -> str:
        """Its name without the words of the sweep."""
        return self.name.rpartition(" · ")[0] if self.settings else self.name

    def values(self, metric: str, external: bool = False) -> Floats:
        """(J,) of every run, NaN where undefined."""
        return np.array([(r.external if external else r.metrics).get(metric, np.nan) for r in self.runs])

    def mean(self, metric: str) -> float:
        return mean(self.values(metric))

    def cost(self, name: str) -> float:
        """The median over runs: the first run of a process also pays for starting up."""
        known = [r.cost[name] for r in self.runs if r.cost.get(name) is not None]
        return float(np.median(known)) if known else float("nan")


@dataclass(frozen=True, eq=False)
class Evidence:
    """A study and its entrants, best first; those with missing runs after the complete ones.

    metrics: first the one candidates are ranked by · grouped: the unit of the intervals is the group, not the row · absent:
    candidates without a finished run
    """

    folder: Path
    study: dict[str, Any]
    entrants: list[Entrant]
    metrics: tuple[str, ...]
    classes: tuple[str, ...]
    grouped: bool
    units: int
    failures: dict[str, dict[str, Any]]
    absent: list[str]

    @property
    def metric(self) -> Metric:
        return METRICS[self.metrics[0]]

    @property
    def finished(self) -> int:
        return sum(len(e.runs) for e in self.entrants)

    @property
    def planned(self) -> int:
        return len(self.study["plan"])

    @property
    def asked(self) -> dict[str, Any]:
        """The study as its author wrote it."""
        return dict(self.study.get("study") or {})

    @property
    def protocol(self) -> dict[str, Any]:
        """The protocol; a bare name is its split."""
        written = self.asked.get("protocol") or {}
        return {"split": written} if isinstance(written, str) else dict(written)


def mean(values: Floats) -> float:
    """Over runs where the metric is defined; NaN where it never is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def std(values: Floats) -> float:
    """ddof 1; NaN of fewer than two."""
    known = values[np.isfinite(values)]
    return float(known.std(ddof=1)) if len(known) > 1 else float("nan")

"""All that is needed to go on exactly where a killed run stopped.

Random draws are functions of (seed, epoch, step), so no generator's state is kept: weights, optimiser, averages, where we
are and what this epoch has summed so far. Written whole or not at all; read with `weights_only`, so nothing is unpickled.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from phoropter.core.files import atomic_write

SAVE_INTERVAL_S = 20.0  # a run shorter than this is simply begun again


@dataclass
class TrainingState:
    """Where training stands, between two steps of the optimiser.

    epoch, step: the next batch to be shown · history: finished rows · sums: of the epoch under way ·
    average: of the weights (EMA) · best: weights of the best epoch by validation, and its loss
    """

    epoch: int = 0
    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    model: dict[str, Any] | None = None
    optimizer: dict[str, Any] | None = None
    scaler: dict[str, Any] | None = None
    average: dict[str, Any] | None = None
    best: dict[str, Any] | None = None
    best_loss: float = float("inf")
    best_epoch: int = 0


@dataclass
class _SaveClock:
    """When something was last saved, and whether somebody waits for the next time."""

    last_saved: float = field(default_factory=time.monotonic)
    save_requested: bool = False


class Checkpoints:
    """One file in a run's work folder, replaced from time to time; `folder=None` keeps nothing."""

    def __init__(self, folder: Path | None, every_s: float = SAVE_INTERVAL_S) -> None:
        self._file = None if folder is None else folder / "checkpoint.pt"
        self._interval_s = every_s
        self._clock = _SaveClock()

    def for_part(self, part: str) -> Checkpoints:
        """A file beside this one for a part of the run that is trained by itself; asked and due together with it."""
        made = Checkpoints(None, self._interval_s)
        made._file = None if self._file is None else self._file.with_name(f"checkpoint-{part}.pt")
        made._clock = self._clock
        return made

    def request_save(self) -> None:
        """Makes the next step's end a time to save."""
        self._clock.save_requested = True

    def load(self) -> TrainingState:
        """What was last saved, or the beginning. A file that cannot be read counts as absent."""
        if self._file is None or not self._file.exists():
            return TrainingState()
        try:
            return TrainingState(**torch.load(self._file, map_location="cpu", weights_only=True))
        except Exception:  # a torn disk must cost a restart, never the run
            return TrainingState()

    def is_due(self) -> bool:
        """Whether it is time to save again."""
        return self._file is not None and (
            self._clock.save_requested or time.monotonic() - self._clock.last_saved >= self._interval_s
        )

    def save(self, state: TrainingState) -> None:
        if self._file is None:
            return
        with atomic_write(self._file) as aside:
            torch.save(vars(state), aside)
        self._clock.last_saved, self._clock.save_requested = time.monotonic(), False

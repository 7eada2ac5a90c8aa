"""Checkpoints: everything a killed run needs to continue bit for bit.

Random numbers are functions of (seed, epoch, step), so no generator state is saved: only weights, optimizer, averages, the
position and the sums of the current epoch. A file is written atomically and read with `weights_only`, which runs no code.

Behind torch's own bytes stand 40 more: a mark and a checksum of all before, as it was computed while they were written. A file
without them, or with another checksum, counts as absent.
"""

from __future__ import annotations

import io
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch
import xxhash

from phoropter.core.errors import PhoropterError, cut_message
from phoropter.core.files import atomic_write
from phoropter.core.storage.checksums import checksum_bytes, print_notice

_TRAILER_MARK = b"\nXXH3128"
SAVE_INTERVAL_S = 20.0  # a run shorter than this is started again


@dataclass
class TrainingState:
    """The state of training between two optimizer steps.

    epoch, step: the next batch, counted from 0 · history: rows of finished epochs · sums: of the current epoch
    average: of the weights (EMA) · best, best_loss, best_epoch: weights, validation loss and number of the best epoch
    micro_batch: rows that the memory sufficed for, once it did not for a batch; 0: batches are computed at once
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
    micro_batch: int = 0

    def to_bytes(self) -> bytes:
        """As torch.save writes it."""
        buffer = io.BytesIO()
        torch.save(vars(self), buffer)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> TrainingState:
        """What `to_bytes` gave, its tensors on the processor; runs no code. Raises what torch.load raises."""
        return cls(**torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))


@dataclass
class _SaveClock:
    """When a file was last saved, whether a save was requested since, and whether one has failed."""

    last_saved: float = field(default_factory=time.monotonic)
    save_requested: bool = False
    failed: bool = False


class Checkpoints:
    """One file in the work folder of a run, replaced every `every_s` seconds; `folder=None` saves nothing."""

    def __init__(self, folder: Path | None, every_s: float = SAVE_INTERVAL_S) -> None:
        self._file = None if folder is None else folder / "checkpoint.pt"
        self._interval_s = every_s
        self._clock = _SaveClock()

    def for_part(self, part: str) -> Checkpoints:
        """A file beside this one for a part of the run that is trained by itself (a bag, an inner fold); both share one clock."""
        checkpoints = Checkpoints(None, self._interval_s)
        checkpoints._file = None if self._file is None else self._file.with_name(f"{self._file.stem}-{part}.pt")
        checkpoints._clock = self._clock
        return checkpoints

    def request_save(self) -> None:
        """Has the state saved after the next step."""
        self._clock.save_requested = True

    def load(self) -> TrainingState:
        """The state saved last, or the initial state where there is none or it cannot be read."""
        if self._file is None or not self._file.exists():
            return TrainingState()
        try:
            return TrainingState.from_bytes(_read_checked(self._file))
        except Exception as error:  # a damaged file costs a restart of this run, never the study
            first = cut_message(error)
            print_notice(f"{self._file} cannot be used ({first}): the run begins again")
            return TrainingState()

    def is_due(self) -> bool:
        """Whether the interval is over or a save was requested."""
        return self._file is not None and (
            self._clock.save_requested or time.monotonic() - self._clock.last_saved >= self._interval_s
        )

    def save(self, state: TrainingState) -> None:
        """Replaces the file atomically. Where it cannot be written, says so once: the run does not need it to go on."""
        if self._file is None:
            return
        try:
            with atomic_write(self._file) as aside, aside.open("wb") as file:
                writer = _ChecksumWriter(file)
                torch.save(vars(state), cast(IO[bytes], writer))
                file.write(_TRAILER_MARK + writer.hasher.hexdigest().encode("ascii"))
        except (PhoropterError, OSError, RuntimeError) as error:  # torch turns a full disk into a RuntimeError
            if not self._clock.failed:
                first = cut_message(error)
                print_notice(f"no checkpoint could be written ({first}): the run goes on, and would begin again after a kill")
            self._clock.failed = True
        self._clock.last_saved, self._clock.save_requested = time.monotonic(), False


class _ChecksumWriter:
    """A file for torch.save that adds up the checksum of what is written."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.hasher = file, xxhash.xxh3_128()

    def write(self, data: Any) -> int:
        self.hasher.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def find_checkpoint_damage(path: Path) -> str | None:
    """What is wrong with a checkpoint file, in words; None where it is as it was written."""
    try:
        _read_checked(path)
    except (OSError, ValueError) as error:
        return cut_message(error, most=200)
    return None


def _read_checked(path: Path) -> bytes:
    """The bytes that torch wrote. Raises ValueError where their checksum is missing or another."""
    content = path.read_bytes()
    body, mark, expected = content[:-40], content[-40:-32], content[-32:]
    if mark != _TRAILER_MARK or checksum_bytes(body).encode("ascii") != expected:
        raise ValueError("it is damaged: its checksum is not the one it was written with")
    return body

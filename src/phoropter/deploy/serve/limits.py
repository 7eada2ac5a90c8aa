"""What one request may ask for, how many may wait and hold, and the refusal that says so in one sentence."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

from phoropter.core.errors import DataError, SpecError, did_you_mean, join_words

RETRY_S = 1


@dataclass(frozen=True)
class ServeLimits:
    """Limits of a server. All are numbers above zero.

    body_mib:        of one request, in MiB
    files:           of one request
    megapixels:      of one picture, by its header, before it is decoded
    recording_hours: of one recording
    seconds:         that one request may take, from its first byte to its answer
    waiting:         requests that are read, prepared or computed at once; one more is told to come again (429)
    waiting_mib:     of the bodies of all of them
    decoded_mib:     of what is decoded of all of them: images as the network is shown them, samples, drawn windows
    batch_rows:      images, or windows of recordings, that the network is given at once, of however many requests
    batch_wait_ms:   milliseconds that a batch waits for requests which are being prepared
    """

    body_mib: float = 64
    files: int = 32
    megapixels: float = 50
    recording_hours: float = 4
    seconds: float = 60
    waiting: int = 64
    waiting_mib: float = 512
    decoded_mib: float = 2048
    batch_rows: int = 32
    batch_wait_ms: float = 4

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 < value < float("inf"):
                raise SpecError(f"limit {field.name} is {value}, expected a number above zero")

    @property
    def max_body_bytes(self) -> int:
        return int(self.body_mib * 1024**2)

    @property
    def max_waiting_bytes(self) -> int:
        """At least one whole request."""
        return max(self.max_body_bytes, int(self.waiting_mib * 1024**2))

    @property
    def max_decoded_bytes(self) -> int:
        return int(self.decoded_mib * 1024**2)

    @property
    def max_pixels(self) -> int:
        return int(self.megapixels * 1_000_000)


def parse_limits(words: Iterable[str]) -> ServeLimits:
    """`body_mib=8` and the like, over the defaults. Raises SpecError for another name and for what is no number above zero."""
    limits = ServeLimits()
    whole = {field.name for field in fields(ServeLimits) if field.type == "int"}
    known = [field.name for field in fields(ServeLimits)]
    for word in words:
        name, _, text = word.partition("=")
        if name not in known:
            raise SpecError(f"limit '{name}' is unknown, expected {join_words(known)}{did_you_mean(name, known)}")
        try:
            value = int(text) if name in whole else float(text)
        except ValueError:
            kind = "a whole number" if name in whole else "a number"
            raise SpecError(f"limit {name} is '{text}', expected {kind}, as in {name}={getattr(limits, name)}") from None
        change: dict[str, Any] = {name: value}
        limits = replace(limits, **change)
    return limits


class DecodedLedger:
    """The bytes of images and samples that all requests hold, so that short files of many windows cannot fill the memory."""

    def __init__(self, limits: ServeLimits) -> None:
        self.most, self.held = limits.max_decoded_bytes, 0
        self.lock = threading.Lock()

    @contextmanager
    def open_share(self) -> Iterator[DecodedShare]:
        """A share that is empty, until its request is answered or given up."""
        share = DecodedShare(self)
        try:
            yield share
        finally:
            share.close_share()


class DecodedShare:
    """What one request holds of a ledger."""

    def __init__(self, ledger: DecodedLedger) -> None:
        self.ledger, self.held, self.closed = ledger, 0, False

    def take_bytes(self, count: int, name: str) -> None:
        """Before images are made, or after samples were read.

        name: of the file
        Raises DataError where one request would hold too much; RequestRefused where all would, and for one that was given up.
        """
        ledger = self.ledger
        with ledger.lock:
            if self.closed:
                raise RequestRefused(503, "the request was given up")
            if self.held + count > ledger.most:
                raise DataError(
                    f"{name}: what is decoded of the request takes {(self.held + count) / 1024**2:,.0f} MiB, expected at most "
                    f"{ledger.most / 1024**2:,.0f}; cut it, or send fewer files at a time"
                )
            if ledger.held + count > ledger.most:
                raise RequestRefused(429, "long recordings are computed already; come again in a moment", RETRY_S)
            ledger.held += count
            self.held += count

    def close_share(self) -> None:
        """Gives all of it back."""
        with self.ledger.lock:
            self.ledger.held -= self.held
            self.held, self.closed = 0, True


class RequestRefused(Exception):
    """A request that is answered with a status of 4xx or 503 and one sentence. retry_s: when to come again, in seconds"""

    def __init__(self, status: int, sentence: str, retry_s: int | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.retry_s = status, sentence, retry_s

    @property
    def headers(self) -> dict[str, str]:
        """Those that belong to the status."""
        found = {"Retry-After": str(self.retry_s)} if self.retry_s is not None else {}
        return found | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})

"""Changes of bytes, for the tests that read damaged files and damaged requests."""

from __future__ import annotations

import numpy as np

EXTREMES = [
    b"-1",
    b"0",
    b"99999999999999999999",
    b"nan",
    b"1e400",
    b"-0.5",
    b"=",
    b"\0",
    b"\xff\xfe",
    b"[[[[",
    b"{}",
    b"null",
    b"",
]


def mutate_bytes(data: bytes, random: np.random.Generator) -> bytes:
    """One to four changes: a flipped bit, a cut, a range left out, doubled or drawn, a number or word replaced by an extreme."""
    for _ in range(int(random.integers(1, 5))):
        size = len(data)
        at = int(random.integers(0, size + 1))
        # Headers decide how the rest is read, so half of the changes are in the first 200 bytes
        at = min(at, int(random.integers(0, 200))) if random.random() < 0.5 else at
        length = int(random.integers(1, 1 + min(64, max(1, size))))
        which = int(random.integers(0, 6))
        if which == 0 and at < size:
            data = data[:at] + bytes([data[at] ^ 1 << int(random.integers(0, 8))]) + data[at + 1 :]
        elif which == 1:
            data = data[:at]
        elif which == 2:
            data = data[:at] + data[at + length :]
        elif which == 3:
            data = data[: at + length] + data[at:]
        elif which == 4:
            data = data[:at] + random.bytes(length) + data[at + length :]
        else:
            end = next((i for i in range(at, min(size, at + 64)) if data[i : i + 1] in b",;:\n\t []{}'\""), at + 1)
            data = data[:at] + EXTREMES[int(random.integers(len(EXTREMES)))] + data[end:]
    return data

"""Random numbers by name: (seed, purpose, epoch, sample id) → numbers. No global generator, no queue position.

A draw depends only on its name, so adding a candidate, a worker or a sample leaves all other draws as they were, a resumed run
repeats the draws of an uninterrupted one, and a teacher can be given exactly the augmented image that its student is given.

Left out on purpose: cryptographic strength. The per-sample draws are a counter hash (the finaliser of SplitMix64, Steele,
Lea & Flood 2014) because they must be vectorised over a batch; the seeds themselves come from BLAKE2b.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)


def seed_of(*names: str | int) -> int:
    """A 63-bit seed that is a function of the names, in order, and of their types.

    >>> seed_of(0, "order", 3) == seed_of(0, "order", 3), seed_of(0, "order", 3) == seed_of(0, "order", "3")
    (True, False)
    """
    text = "\x1f".join(f"{type(n).__name__[0]}{n}" for n in names)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def named_generator(*names: str | int) -> np.random.Generator:
    """The NumPy generator that belongs to these names."""
    return np.random.default_rng(seed_of(*names))


def hash_ids(ids: NDArray[np.str_] | list[str]) -> NDArray[np.uint64]:
    """(N,) ids → (N,) uint64 hashes, computed once per dataset: the sample-id part of every later draw."""
    digests = b"".join(hashlib.blake2b(str(i).encode(), digest_size=8).digest() for i in ids)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def uniform_numbers(hashes: NDArray[np.uint64], count: int, *names: str | int) -> NDArray[np.float64]:
    """(N,) id hashes → (N, count) numbers in [0, 1), each a function of the names, the id and its column."""
    with np.errstate(over="ignore"):
        columns = (np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN)[None, :]
        state = _mix_bits(_mix_bits(hashes[:, None] ^ np.uint64(seed_of(*names))) + columns)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def random_permutation(hashes: NDArray[np.uint64], *names: str | int) -> NDArray[np.int64]:
    """(N,) id hashes → a permutation of 0..N-1; without one sample, the others keep their order."""
    return np.lexsort((hashes, uniform_numbers(hashes, 1, *names)[:, 0])).astype(np.int64)


def _mix_bits(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * _MIX1
    z = (z ^ (z >> np.uint64(27))) * _MIX2
    return np.asarray(z ^ (z >> np.uint64(31)), dtype=np.uint64)

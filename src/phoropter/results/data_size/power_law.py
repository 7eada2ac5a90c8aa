"""The power law of learning curves: error = a + b n^-c, fitted to many replicates at once.

For a given exponent the law is linear in a ≥ 0 and b ≥ 0, so it is solved in closed form at every exponent of a grid, for all
replicates together, and the exponent is refined around the best one. Exponents of learning curves of networks are reported
between 0.07 and 1 (Hestness et al. 2017, arXiv 1712.00409; Rosenfeld et al. 2020, arXiv 1909.12673); the bounds are wider.

Letters: R replicates, P sizes, K exponents.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MIN_EXPONENT, MAX_EXPONENT = 0.02, 2.0  # below, the law is a logarithm; above, all is over after the first size
MIN_SIZES = 3  # as many as the law has parameters
_GRID, _REFINEMENTS = 64, 4


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """a, b, c: (R,) parameters of each replicate · unit: size by which sizes were divided, so that b is the gain at that size"""

    a: Floats
    b: Floats
    c: Floats
    unit: float

    def predict_error(self, size: float) -> Floats:
        """(R,) the error at a size."""
        return self.a + self.b * (size / self.unit) ** -self.c

    def predict_gain(self, size: float) -> Floats:
        """(R,) by how much the error falls from a size to twice as much data; never below 0."""
        return self.predict_error(size) - self.predict_error(2 * size)

    @property
    def scale(self) -> Floats:
        """(R,) b of the law in n itself: a + b n^-c."""
        return self.b * self.unit**self.c


def fit_power_law(sizes: Floats, errors: Floats) -> PowerLaw:
    """(P,) sizes > 0, (R, P) errors → the law of each replicate, by least squares. Raises ValueError for fewer than 3 sizes."""
    if len(np.unique(sizes)) < MIN_SIZES:
        raise ValueError(f"a power law has three parameters, and {len(np.unique(sizes))} sizes came; give at least {MIN_SIZES}")
    unit = float(np.max(sizes))
    x, errors = np.asarray(sizes, dtype=np.float64) / unit, np.atleast_2d(np.asarray(errors, dtype=np.float64))
    exponents = np.broadcast_to(np.geomspace(MIN_EXPONENT, MAX_EXPONENT, _GRID), (len(errors), _GRID))
    for _ in range(_REFINEMENTS):
        best = _solve_linear(x, errors, exponents)[2].argmin(axis=1)
        rows = np.arange(len(errors))
        low = exponents[rows, np.maximum(best - 1, 0)]
        high = exponents[rows, np.minimum(best + 1, exponents.shape[1] - 1)]
        exponents = low[:, None] * (high / low)[:, None] ** np.linspace(0, 1, 17)
    a, b, residual = _solve_linear(x, errors, exponents)
    best, rows = residual.argmin(axis=1), np.arange(len(errors))
    return PowerLaw(a[rows, best], b[rows, best], exponents[rows, best], unit)


def _solve_linear(x: Floats, errors: Floats, exponents: Floats) -> tuple[Floats, Floats, Floats]:
    """a, b ≥ 0 and the sum of squares, each (R, K): of two parameters the bounded optimum is the free one or lies on an edge."""
    powers = x ** -exponents[:, :, None]  # (R, K, P)
    mean_power, mean_error = powers.mean(axis=2), errors.mean(axis=1)[:, None]
    centred = powers - mean_power[:, :, None]
    slope = np.einsum("rkp,rp->rk", centred, errors) / np.maximum((centred**2).sum(axis=2), 1e-300)
    through_zero = np.einsum("rkp,rp->rk", powers, errors) / (powers**2).sum(axis=2)
    options = (
        (mean_error - slope * mean_power, slope),
        (np.zeros_like(slope), np.maximum(through_zero, 0)),
        (np.broadcast_to(np.maximum(mean_error, 0), slope.shape), np.zeros_like(slope)),
    )
    a, b, least = np.zeros_like(slope), np.zeros_like(slope), np.full(slope.shape, np.inf)
    for each_a, each_b in options:
        squares = ((each_a[:, :, None] + each_b[:, :, None] * powers - errors[:, None, :]) ** 2).sum(axis=2)
        better = (each_a >= 0) & (each_b >= 0) & (squares < least)
        a, b, least = np.where(better, each_a, a), np.where(better, each_b, b), np.where(better, squares, least)
    return a, b, least

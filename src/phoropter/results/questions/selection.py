"""The value of the best of many candidates, corrected for having been chosen by it.

Bootstrap bias-corrected cross-validation (Tsamardinos, Greasidou & Borboudakis 2018, Machine Learning 107:1895): in each resample
of the units the candidate that is best on the units drawn is scored on the units not drawn; the mean over resamples is the value
to be expected of "the best of these candidates" on new rows. No candidate is trained again.

The value on weighted units is taken to first order (the infinitesimal jackknife, Efron 1982, ch. 6), exact for means over rows.
Averaged over resamples, the units not drawn give each fixed candidate its own value; what the chosen candidate's differ from the
best one's by is therefore added to the best one's value, which removes most of the noise of the draws. Where the best candidate
is best in every resample there is nothing to correct, and the correction is exactly 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phoropter.core.seeds import named_generator
from phoropter.results.intervals.interval_rules import MIN_UNITS
from phoropter.results.metrics.sufficient_sums import Floats

SELECTION_RESAMPLES = 1000
_BLOCK = 250_000  # units × resamples drawn at once: a block that fits into the cache of a core


@dataclass(frozen=True)
class SelectedBest:
    """plain: the value of the best candidate · corrected: for the choice among `n_candidates`, on average over such studies
    share_best: share of the resamples in which the best candidate was best again
    """

    plain: float
    corrected: float
    n_candidates: int
    n_units: int
    share_best: float


def correct_selected_best(
    values: Floats, influences: Floats, higher_is_better: bool, *, seed: int = 0, resamples: int = SELECTION_RESAMPLES
) -> SelectedBest | None:
    """values (C,) of the candidates · influences (C, U): their derivatives by the weights of the units.

    None for one candidate, for fewer than three units, or where a value is undefined. Of equal values the first is the best.
    """
    sign = 1.0 if higher_is_better else -1.0
    scores, slopes = sign * np.asarray(values, dtype=np.float64), sign * np.asarray(influences, dtype=np.float64)
    n_candidates, n_units = slopes.shape
    if n_candidates < 2 or n_units < MIN_UNITS or not np.isfinite(scores).all() or not np.isfinite(slopes).all():
        return None
    total = slopes.sum(axis=1)
    best, draw = int(np.argmax(scores)), named_generator(seed, "selection")
    gains, again, done = 0.0, 0, 0
    while done < resamples:
        count = min(resamples - done, max(1, _BLOCK // n_units))
        # Units drawn one by one and counted: many times as fast as a multinomial draw of their counts
        drawn = np.empty((count, n_units))
        for counts in drawn:
            counts[:] = np.bincount(draw.integers(0, n_units, n_units), minlength=n_units)
        chosen = np.argmax(scores + drawn @ slopes.T - total, axis=1)
        others = np.flatnonzero(chosen != best)  # where the best is chosen, nothing is gained or lost
        left = (drawn[others] == 0).astype(np.float64)
        left *= n_units / np.maximum(left.sum(axis=1, keepdims=True), 1)
        outside = scores + left @ slopes.T - total
        gains += float((outside[np.arange(len(others)), chosen[others]] - outside[:, best]).sum())
        again += int((chosen == best).sum())
        done += count
    corrected = scores[best] + gains / resamples
    return SelectedBest(float(values[best]), float(sign * corrected), n_candidates, n_units, again / resamples)

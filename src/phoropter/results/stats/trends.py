"""Trends of learning curves: a + b ln x and a - b exp(-x/c), fitted to the mean over runs, and where one curve crosses another.

The unit of the interval is the run: runs are drawn with replacement, averaged, and fitted again (Efron 1979). Runs of two
candidates on the same split are drawn together. Folds share training rows, so the interval is rather too narrow than too wide;
a wrong form is wrong in every resample, so two forms are fitted, and their R² are reported with the crossing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from phoropter.core.seeds import named_generator

Floats = NDArray[np.float64]
TrendForm = Literal["logarithmic", "saturating"]
TREND_FORMS: tuple[TrendForm, ...] = ("logarithmic", "saturating")

MIN_EPOCHS = 5  # a form of three parameters needs more points than parameters
RESAMPLES = 500
RELIABLE_EPOCH_RATIO = 2.0  # a crossing up to so many times the last epoch is called within reach of the data
MIN_R2 = 0.8  # an R² below which a trend is said to fit badly
MAX_EPOCH_RATIO = 20.0  # times the last epoch: a crossing later than that is none


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """One candidate's curves: values (J, E), a row a run, over the epochs 1 to E; splits: what each run was tested on."""

    name: str
    values: Floats
    splits: tuple[object, ...]

    @property
    def n_epochs(self) -> int:
        return int(self.values.shape[1])

    @property
    def mean_curve(self) -> Floats:
        return np.asarray(self.values.mean(axis=0))


@dataclass(frozen=True)
class FittedTrend:
    """y = a + b ln x (logarithmic; c is NaN), or y = a - b exp(-x/c) (saturating); r2: the share of variance it explains."""

    form: TrendForm
    a: float
    b: float
    c: float
    r2: float

    def evaluate_at(self, epochs: Floats) -> Floats:
        return np.asarray(_evaluate_form(self.form, np.array([[self.a, self.b, self.c]]), epochs)[0])


@dataclass(frozen=True)
class Crossing:
    """Where the trend of `overtaking`, which is behind so far, crosses that of `overtaken`.

    epoch: infinite where it never does · low, high: 95 % interval over runs, infinite where open, NaN of a single run ·
    n_epochs: epochs of the data · warnings: why it is no forecast; none: close to the data
    """

    overtaking: str
    overtaken: str
    form: TrendForm
    epoch: float
    low: float
    high: float
    r2: tuple[float, float]
    n_epochs: int
    warnings: tuple[str, ...]


def fit_trend(y: Floats, form: TrendForm) -> FittedTrend:
    """Least squares on (E,) values of the epochs 1 to E. Raises ValueError for fewer than MIN_EPOCHS."""
    values = np.asarray(y, dtype=np.float64)
    if len(values) < MIN_EPOCHS:
        raise ValueError(f"a trend needs {MIN_EPOCHS} epochs, {len(values)} came")
    x = np.arange(1.0, len(values) + 1)
    found = _fit_parameters(values[None], x, form)
    left = np.square(values - _evaluate_form(form, found, x)[0]).sum()
    total = np.square(values - values.mean()).sum()
    a, b, c = found[0]
    return FittedTrend(form, float(a), float(b), float(c), float(1 - left / total) if total > 0 else 1.0)


def find_crossing(one: LearningCurve, two: LearningCurve, form: TrendForm, resamples: int = RESAMPLES) -> Crossing:
    """The crossing of two candidates over the epochs that both have; the one behind at the end is the overtaking one."""
    chaser, other, last = _order_curves(one, two)
    x = np.arange(1.0, last + 1)
    epoch = _mean_curve_crossing(chaser, other, form, last)
    low = high = float("nan")
    if min(len(chaser.values), len(other.values)) > 1:
        ours, theirs = (_fit_parameters(y, x, form) for y in _resample_means(chaser, other, last, resamples))
        found = _overtaking_epochs(form, ours, theirs, last)
        low = float(np.quantile(found, 0.025, method="lower"))
        high = float(np.quantile(found, 0.975, method="higher"))
    each = [fit_trend(c.mean_curve[:last], form) for c in (chaser, other)]
    r2 = (each[0].r2, each[1].r2)
    warnings = (*_crossing_warnings(epoch, low, high, r2, last), *_fit_warnings(each, epoch, last))
    return Crossing(chaser.name, other.name, form, epoch, low, high, r2, last, warnings)


def find_crossings(curves: Sequence[LearningCurve]) -> list[Crossing]:
    """Every pair by both forms, for pairs where at least one form gives a crossing after the last epoch."""
    found: list[Crossing] = []
    for one, two in combinations(curves, 2):
        chaser, other, last = _order_curves(one, two)
        if any(last < _mean_curve_crossing(chaser, other, form, last) < np.inf for form in TREND_FORMS):
            found += [find_crossing(one, two, form) for form in TREND_FORMS]
    return found


def _order_curves(one: LearningCurve, two: LearningCurve) -> tuple[LearningCurve, LearningCurve, int]:
    """(curve behind, curve ahead, number of epochs that both have), judged over the last tenth of these epochs."""
    last = min(one.n_epochs, two.n_epochs)
    tail = slice(last - max(1, last // 10), last)
    ahead = one.mean_curve[tail].mean() > two.mean_curve[tail].mean()
    return (two, one, last) if ahead else (one, two, last)


def _mean_curve_crossing(chaser: LearningCurve, other: LearningCurve, form: TrendForm, last: int) -> float:
    x = np.arange(1.0, last + 1)
    ours, theirs = (_fit_parameters(c.mean_curve[None, :last], x, form) for c in (chaser, other))
    return float(_overtaking_epochs(form, ours, theirs, last)[0])


def _crossing_warnings(epoch: float, low: float, high: float, r2: tuple[float, float], last: int) -> tuple[str, ...]:
    warnings = []
    reach = RELIABLE_EPOCH_RATIO * last
    if np.isinf(epoch):
        warnings.append(f"by this form it does not overtake within {MAX_EPOCH_RATIO:g} times the epochs there are")
    elif epoch > reach:
        warnings.append(f"lies {epoch / last:.1f} times as far as the {last} epochs there are: a guess, not a forecast")
    if np.isnan(low):
        warnings.append("of one run there is no interval")
    elif np.isinf(high) and not np.isinf(epoch):
        warnings.append("the interval has no end: in some resamples of the runs it never overtakes")
    elif high > reach >= epoch:
        warnings.append(f"the interval reaches beyond {RELIABLE_EPOCH_RATIO:g} times the epochs there are")
    if min(r2) < MIN_R2:
        warnings.append(f"a trend fits badly (R² {min(r2):.2f})")
    return tuple(warnings)


def _fit_warnings(each: Sequence[FittedTrend], epoch: float, last: int) -> list[str]:
    """Warnings about fits with impossible or undetermined limits; values are shares of 1."""
    warnings = []
    if np.isfinite(epoch) and each[0].evaluate_at(np.array([epoch]))[0] > 1:
        warnings.append("the trends meet above 100 %, where no accuracy is")
    if any(t.form == "saturating" and t.c > last for t in each):
        warnings.append("a curve has not begun to level off, so its limit is unknown")
    return warnings


def _resample_means(one: LearningCurve, two: LearningCurve, last: int, resamples: int) -> tuple[Floats, Floats]:
    """(B, last) mean curves of runs drawn with replacement; runs on the same splits are drawn together."""
    random = named_generator(0, "trend")
    same_splits = one.splits == two.splits
    means, places = [], None
    for learnt in (one, two):
        runs = len(learnt.values)
        if places is None or not same_splits:
            places = random.integers(0, runs, (resamples, runs))
        counts = np.zeros((resamples, runs))
        np.add.at(counts, (np.arange(resamples)[:, None], places), 1.0)
        means.append(counts @ learnt.values[:, :last] / runs)
    return means[0], means[1]


def _fit_parameters(y: Floats, x: Floats, form: TrendForm) -> Floats:
    """(B, E) curves → (B, 3) parameters a, b, c."""
    if form == "logarithmic":
        slope, level, _ = _fit_lines(y, np.log(x)[None, None])
        return np.column_stack([level[:, 0], slope[:, 0], np.full(len(y), np.nan)])
    # For each c the best a and b are a straight line; c is searched for on a grid, then between the neighbours of the best.
    grid = np.broadcast_to(np.geomspace(0.2, 10 * x[-1], 80), (len(y), 80))
    rows = np.arange(len(y))
    for _ in range(6):
        each = grid[:1] if np.ptp(grid, axis=0).max() == 0 else grid
        slope, level, left = _fit_lines(y, np.exp(-x / each[..., None]))
        best = left.argmin(axis=1)
        c, a, b = grid[rows, best], level[rows, best], -slope[rows, best]
        low, high = grid[rows, np.maximum(best - 1, 0)], grid[rows, np.minimum(best + 1, grid.shape[1] - 1)]
        grid = low[:, None] * (high / low)[:, None] ** np.linspace(0, 1, 13)
    return np.column_stack([a, b, c])


def _fit_lines(y: Floats, u: Floats) -> tuple[Floats, Floats, Floats]:
    """y (B, E) on u (1 or B, G, E) → slope, level and squares left (B, G)."""
    centred = u - u.mean(axis=2, keepdims=True)
    around = y - y.mean(axis=1, keepdims=True)
    both = around @ centred[0].T if len(u) == 1 else np.einsum("be,bge->bg", around, centred)
    own = np.square(centred).sum(axis=2)
    slope = both / np.maximum(own, 1e-300)
    level = y.mean(axis=1, keepdims=True) - slope * u.mean(axis=2)
    left = np.square(around).sum(axis=1, keepdims=True) - slope * both
    return slope, level, left


def _evaluate_form(form: TrendForm, parameters: Floats, x: Floats) -> Floats:
    """(B, 3), (E,) → (B, E)."""
    a, b, c = (column[:, None] for column in parameters.T)
    return np.asarray(a + b * np.log(x) if form == "logarithmic" else a - b * np.exp(-x / c))


def _overtaking_epochs(form: TrendForm, ours: Floats, theirs: Floats, last: int) -> Floats:
    """(B,) the epoch from which the first trend stays above the second: 1 where it always is, infinite where it never is, or only
    after MAX_EPOCH_RATIO times the epochs of the data."""
    if form == "logarithmic":
        steeper, behind = ours[:, 1] - theirs[:, 1], theirs[:, 0] - ours[:, 0]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            at = np.exp(behind / steeper)
        at = np.where(steeper > 0, np.maximum(at, 1.0), np.where((steeper == 0) & (behind < 0), 1.0, np.inf))
        return np.where(at > MAX_EPOCH_RATIO * last, np.inf, at)
    x = np.geomspace(1, MAX_EPOCH_RATIO * last, 2000)
    lead = _evaluate_form(form, ours, x) - _evaluate_form(form, theirs, x)
    below = lead <= 0
    after = below.shape[1] - 1 - below[:, ::-1].argmax(axis=1)  # the last place at which ours is not above
    rows = np.arange(len(lead))
    ends = np.minimum(after + 1, len(x) - 1)
    l0, l1 = lead[rows, after], lead[rows, ends]
    share = np.where(l1 > l0, -l0 / np.where(l1 > l0, l1 - l0, 1.0), 0.0)
    at = x[after] * (x[ends] / x[after]) ** share
    at = np.where(below.any(axis=1), at, 1.0)
    return np.where(lead[:, -1] > 0, at, np.inf)

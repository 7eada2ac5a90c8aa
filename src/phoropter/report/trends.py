"""Trends of learning curves: a + b ln x and a - b exp(-x/c) fitted to a mean over runs, and where one overtakes another.

The unit of the interval is the run: runs are drawn with replacement, averaged, and fitted again (Efron 1979). Runs of two
candidates on the same split are drawn together. Folds share training rows, so the interval is rather too narrow than too wide;
and a form that is wrong is wrong in every resample, which is why two forms are fitted and their R² stand beside the crossing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from phoropter.core.seeds import generator

Floats = NDArray[np.float64]
Form = Literal["logarithmic", "saturating"]
FORMS: tuple[Form, ...] = ("logarithmic", "saturating")

LEAST_EPOCHS = 5  # a form of three parameters needs more points than parameters
RESAMPLES = 500
SUPPORT = 2.0  # a crossing up to so many times the last epoch is called within reach of the data
POOR = 0.8  # an R² below which a trend is said to fit badly
FARTHEST = 20.0  # times the last epoch: a crossing later than that is none


@dataclass(frozen=True, eq=False)
class Learnt:
    """One candidate's curves: values (J, E), a row a run, over the epochs 1 to E; splits: what each run was tested on."""

    name: str
    values: Floats
    splits: tuple[object, ...]

    @property
    def epochs(self) -> int:
        return int(self.values.shape[1])

    @property
    def mean(self) -> Floats:
        return np.asarray(self.values.mean(axis=0))


@dataclass(frozen=True)
class Trend:
    """y = a + b ln x (logarithmic; c is NaN), or y = a - b exp(-x/c) (saturating); r2: the share of variance it explains."""

    form: Form
    a: float
    b: float
    c: float
    r2: float

    def at(self, epochs: Floats) -> Floats:
        return _values(self.form, np.array([[self.a, self.b, self.c]]), epochs)[0]


@dataclass(frozen=True)
class Crossing:
    """Where the trend of `chaser`, behind so far, overtakes that of `other`.

    epoch: infinite where it never does · low, high: 95 % interval over runs, infinite where open, NaN of a single run ·
    last: the epochs there are · warnings: what keeps it from being a forecast; none: within reach of the data
    """

    chaser: str
    other: str
    form: Form
    epoch: float
    low: float
    high: float
    r2: tuple[float, float]
    last: int
    warnings: tuple[str, ...]


def trend(y: Floats, form: Form) -> Trend:
    """Least squares on (E,) values of the epochs 1 to E. Raises ValueError of fewer than LEAST_EPOCHS."""
    values = np.asarray(y, dtype=np.float64)
    if len(values) < LEAST_EPOCHS:
        raise ValueError(f"a trend needs {LEAST_EPOCHS} epochs, {len(values)} came")
    x = np.arange(1.0, len(values) + 1)
    found = _fits(values[None], x, form)
    left = np.square(values - _values(form, found, x)[0]).sum()
    total = np.square(values - values.mean()).sum()
    a, b, c = found[0]
    return Trend(form, float(a), float(b), float(c), float(1 - left / total) if total > 0 else 1.0)


def crossing(one: Learnt, two: Learnt, form: Form, resamples: int = RESAMPLES) -> Crossing:
    """Of two candidates over the epochs both have: the one behind at the end is the chaser."""
    chaser, other, last = _roles(one, two)
    x = np.arange(1.0, last + 1)
    epoch = _meeting(chaser, other, form, last)
    low = high = float("nan")
    if min(len(chaser.values), len(other.values)) > 1:
        ours, theirs = (_fits(y, x, form) for y in _drawn(chaser, other, last, resamples))
        found = _overtakes(form, ours, theirs, last)
        low = float(np.quantile(found, 0.025, method="lower"))
        high = float(np.quantile(found, 0.975, method="higher"))
    each = [trend(c.mean[:last], form) for c in (chaser, other)]
    r2 = (each[0].r2, each[1].r2)
    warnings = (*_warnings(epoch, low, high, r2, last), *_of_fits(each, epoch, last))
    return Crossing(chaser.name, other.name, form, epoch, low, high, r2, last, warnings)


def crossings(curves: Sequence[Learnt]) -> list[Crossing]:
    """Of every pair by both forms, for pairs of which at least one form lets the one behind overtake later."""
    found: list[Crossing] = []
    for one, two in combinations(curves, 2):
        chaser, other, last = _roles(one, two)
        if any(last < _meeting(chaser, other, form, last) < np.inf for form in FORMS):
            found += [crossing(one, two, form) for form in FORMS]
    return found


def _roles(one: Learnt, two: Learnt) -> tuple[Learnt, Learnt, int]:
    """Who is behind over the last tenth of the epochs both have, who is ahead, and how many epochs that are."""
    last = min(one.epochs, two.epochs)
    tail = slice(last - max(1, last // 10), last)
    ahead = one.mean[tail].mean() > two.mean[tail].mean()
    return (two, one, last) if ahead else (one, two, last)


def _meeting(chaser: Learnt, other: Learnt, form: Form, last: int) -> float:
    x = np.arange(1.0, last + 1)
    ours, theirs = (_fits(c.mean[None, :last], x, form) for c in (chaser, other))
    return float(_overtakes(form, ours, theirs, last)[0])


def _warnings(epoch: float, low: float, high: float, r2: tuple[float, float], last: int) -> tuple[str, ...]:
    said = []
    reach = SUPPORT * last
    if np.isinf(epoch):
        said.append(f"by this form it does not overtake within {FARTHEST:g} times the epochs there are")
    elif epoch > reach:
        said.append(f"lies {epoch / last:.1f} times as far as the {last} epochs there are: a guess, not a forecast")
    if np.isnan(low):
        said.append("of one run there is no interval")
    elif np.isinf(high) and not np.isinf(epoch):
        said.append("the interval has no end: in some resamples of the runs it never overtakes")
    elif high > reach >= epoch:
        said.append(f"the interval reaches beyond {SUPPORT:g} times the epochs there are")
    if min(r2) < POOR:
        said.append(f"a trend fits badly (R² {min(r2):.2f})")
    return tuple(said)


def _of_fits(each: Sequence[Trend], epoch: float, last: int) -> list[str]:
    """What a fit says that cannot be, or does not show yet. Values are shares of 1."""
    said = []
    if np.isfinite(epoch) and each[0].at(np.array([epoch]))[0] > 1:
        said.append("the trends meet above 100 %, where no accuracy is")
    if any(t.form == "saturating" and t.c > last for t in each):
        said.append("a curve has not begun to level off, so its limit is unknown")
    return said


def _drawn(one: Learnt, two: Learnt, last: int, resamples: int) -> tuple[Floats, Floats]:
    """(B, last) mean curves of both, of runs drawn with replacement; of the same splits together."""
    random = generator(0, "trend")
    together = one.splits == two.splits
    means, places = [], None
    for learnt in (one, two):
        runs = len(learnt.values)
        if places is None or not together:
            places = random.integers(0, runs, (resamples, runs))
        counts = np.zeros((resamples, runs))
        np.add.at(counts, (np.arange(resamples)[:, None], places), 1.0)
        means.append(counts @ learnt.values[:, :last] / runs)
    return means[0], means[1]


def _fits(y: Floats, x: Floats, form: Form) -> Floats:
    """(B, E) curves → (B, 3) parameters a, b, c."""
    if form == "logarithmic":
        slope, level, _ = _line(y, np.log(x)[None, None])
        return np.column_stack([level[:, 0], slope[:, 0], np.full(len(y), np.nan)])
    # For each c the best a and b are a straight line; c is searched for on a grid, then between the neighbours of the best.
    grid = np.broadcast_to(np.geomspace(0.2, 10 * x[-1], 80), (len(y), 80))
    rows = np.arange(len(y))
    for _ in range(6):
        each = grid[:1] if np.ptp(grid, axis=0).max() == 0 else grid
        slope, level, left = _line(y, np.exp(-x / each[..., None]))
        best = left.argmin(axis=1)
        c, a, b = grid[rows, best], level[rows, best], -slope[rows, best]
        low, high = grid[rows, np.maximum(best - 1, 0)], grid[rows, np.minimum(best + 1, grid.shape[1] - 1)]
        grid = low[:, None] * (high / low)[:, None] ** np.linspace(0, 1, 13)
    return np.column_stack([a, b, c])


def _line(y: Floats, u: Floats) -> tuple[Floats, Floats, Floats]:
    """y (B, E) on u (1 or B, G, E) → slope, level and squares left (B, G)."""
    centred = u - u.mean(axis=2, keepdims=True)
    around = y - y.mean(axis=1, keepdims=True)
    both = around @ centred[0].T if len(u) == 1 else np.einsum("be,bge->bg", around, centred)
    own = np.square(centred).sum(axis=2)
    slope = both / np.maximum(own, 1e-300)
    level = y.mean(axis=1, keepdims=True) - slope * u.mean(axis=2)
    left = np.square(around).sum(axis=1, keepdims=True) - slope * both
    return slope, level, left


def _values(form: Form, parameters: Floats, x: Floats) -> Floats:
    """(B, 3), (E,) → (B, E)."""
    a, b, c = (column[:, None] for column in parameters.T)
    return np.asarray(a + b * np.log(x) if form == "logarithmic" else a - b * np.exp(-x / c))


def _overtakes(form: Form, ours: Floats, theirs: Floats, last: int) -> Floats:
    """(B,) the epoch from which ours is above theirs for good; 1 where it always is, infinite where it never will be, or only
    after FARTHEST times the epochs there are."""
    if form == "logarithmic":
        steeper, behind = ours[:, 1] - theirs[:, 1], theirs[:, 0] - ours[:, 0]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            at = np.exp(behind / steeper)
        at = np.where(steeper > 0, np.maximum(at, 1.0), np.where((steeper == 0) & (behind < 0), 1.0, np.inf))
        return np.where(at > FARTHEST * last, np.inf, at)
    x = np.geomspace(1, FARTHEST * last, 2000)
    lead = _values(form, ours, x) - _values(form, theirs, x)
    below = lead <= 0
    after = below.shape[1] - 1 - below[:, ::-1].argmax(axis=1)  # the last place at which ours is not above
    rows = np.arange(len(lead))
    ends = np.minimum(after + 1, len(x) - 1)
    l0, l1 = lead[rows, after], lead[rows, ends]
    share = np.where(l1 > l0, -l0 / np.where(l1 > l0, l1 - l0, 1.0), 0.0)
    at = x[after] * (x[ends] / x[after]) ** share
    at = np.where(below.any(axis=1), at, 1.0)
    return np.where(lead[:, -1] > 0, at, np.inf)

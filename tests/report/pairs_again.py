"""The two answers about a pair, computed again by plain loops over the rows of a study whose metric is accuracy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from read_again import Again
from scipy import optimize, stats


@dataclass
class PlainPair:
    """difference, then low, high and p on new rows, and of training again, whose p is a function of the level."""

    difference: float
    rows_se: float
    rows_df: float
    spread: float
    spread_df: float
    rows_in_spread: float
    factor: float

    @property
    def rows_p(self) -> float:
        return float(2 * stats.t.sf(abs(self.difference) / self.rows_se, self.rows_df))

    def rows_bounds(self) -> tuple[float, float]:
        half = stats.t.ppf(0.975, self.rows_df) * self.rows_se
        return self.difference - half, self.difference + half

    def critical(self, alpha: float) -> float:
        of_rows, of_spread = (stats.t.ppf(1 - alpha / 2, df) ** 2 for df in (self.rows_df, self.spread_df))
        rows = self.rows_se**2
        both = of_rows * (rows - self.factor * self.rows_in_spread) + of_spread * self.factor * self.spread
        return float(np.sqrt(max(of_rows * rows, both)))

    @property
    def training_p(self) -> float:
        return float(np.exp(optimize.brentq(lambda x: self.critical(np.exp(x)) - abs(self.difference), np.log(1e-13), -1e-12)))


def plain_pair(again: Again, a: str, b: str, trained_rows: int = 0) -> PlainPair:
    """Groups are the units; trained_rows: inner validation rows, which the plan does not count as training rows."""
    one, two = again.runs[a], again.runs[b]
    rounds = sorted({r["seed"] for r in one})
    values, influence, row_part, spreads, ratios = [], {}, [], [], []
    for seed in rounds:
        pairs = [(x, y) for x, y in zip(one, two, strict=True) if x["seed"] == seed]
        wins = [(x["answer"] == x["label"]).astype(float) - (y["answer"] == y["label"]) for x, y in pairs]
        total, folds = np.concatenate(wins), len(pairs)
        mean, own = total.mean(), []
        for (x, _), w in zip(pairs, wins, strict=True):
            groups = np.unique(x["group"])
            moved = np.array([folds * (w[x["group"] == g] - mean).sum() / len(total) for g in groups])
            own.append(mean + moved.sum())
            centred = moved - moved.mean()
            row_part.append((centred**2).sum() * len(groups) / (len(groups) - 1))
            for g, m in zip(groups, centred, strict=True):
                influence.setdefault(g, []).append((m, own[-1], len(groups)))
            ratios.append(x["n_test"] / (x["n_train"] + trained_rows))
        values += own
        spreads.append(np.var(own, ddof=1))
    centre, splits = np.mean(values), len(values)
    psi = np.array([sum(m + (v - centre) / n for m, v, n in parts) / splits for parts in influence.values()])
    units = len(psi)
    kurtosis = units * (psi**4).sum() / (psi**2).sum() ** 2
    return PlainPair(
        float(centre),
        float(np.sqrt((psi**2).sum() * units / (units - 1))),
        float(min(max(2 * units / (kurtosis - 1), 1), units - 1)),
        float(np.mean(spreads)),
        splits - len(rounds),
        float(np.mean(row_part)),
        float(1 / splits + np.mean(ratios)),
    )


def holm(p: list[float]) -> list[float]:
    order = sorted(range(len(p)), key=lambda i: p[i])
    out, largest = [0.0] * len(p), 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, p[i] * (len(p) - place)))
        out[i] = largest
    return out

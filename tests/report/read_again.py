"""A study read again with numpy alone, for tests that compute every number on its page a second time."""

from __future__ import annotations

import json
from collections import defaultdict
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy import optimize, stats

CLASSES = ("calm", "stress", "fun")


class Again:
    """The study read with numpy alone: candidate → its runs in the order of the plan."""

    def __init__(self, folder: Path) -> None:
        self.runs: dict[str, list[dict]] = defaultdict(list)
        for item in json.loads((folder / "study.json").read_text())["plan"]:
            run = folder / "runs" / item["key"]
            with np.load(run / "predictions.npz") as f:
                said = dict(f)
            with np.load(run / "external.npz") as f:
                outside = dict(f)
            record = json.loads((run / "record.json").read_text())
            self.runs[item["candidate"]].append({**item, **said, "outside": outside, "cost": record["cost"]})
        for runs in self.runs.values():
            for r in runs:
                r["p"] = softmax(r["logits"])
                r["answer"] = r["p"].argmax(1)
                r["accuracy"] = float(np.mean(r["answer"] == r["label"]))
        self.order = sorted(self.runs, key=lambda c: -np.mean([r["accuracy"] for r in self.runs[c]]))

    def together(self, candidate: str, column: str) -> np.ndarray:
        return np.concatenate([r[column] for r in self.runs[candidate]])


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def ece(p: np.ndarray, y: np.ndarray, bins: int = 15) -> float:
    sure, right = p.max(1), p.argmax(1) == y
    total = 0.0
    for i in range(bins):
        inside = (sure > i / bins) & (sure <= (i + 1) / bins)
        if inside.any():
            total += inside.mean() * abs(sure[inside].mean() - right[inside].mean())
    return total


@lru_cache(maxsize=1)
def again_of(folder: Path) -> Again:
    return Again(folder)


def spread(values: list[float], factor: float = 100, digits: int = 1) -> str:
    return f"{np.mean(values) * factor:.{digits}f} ± {np.std(values, ddof=1) * factor:.{digits}f}"


def over_rows(runs: list[dict], values: list[np.ndarray]) -> float:
    """The mean over all held-out rows, of a value for each row of each run."""
    assert len(runs) == len(values)
    return float(np.mean(np.concatenate(values)))


def accuracy_of(runs: list[dict]) -> float:
    return over_rows(runs, [r["answer"] == r["label"] for r in runs])


def rounds_of(runs: list[dict]) -> list[dict[str, np.ndarray]]:
    """The rows of each round (seed) together: label, answer, p, group."""
    names = dict.fromkeys(r["seed"] for r in runs)
    columns = [c for c in ("label", "answer", "p", "group", "id") if c in runs[0]]
    return [{c: np.concatenate([r[c] for r in runs if r["seed"] == name]) for c in columns} for name in names]


def value_and_spread(value: float, of_splits: list[float], factor: float = 100, digits: int = 1) -> str:
    return f"{value * factor:.{digits}f} ± {np.std(of_splits, ddof=1) * factor:.{digits}f}"


def noisy_error(rounds: list[dict[str, np.ndarray]], column: int | None = None) -> tuple[float, float, float]:
    """The debiased calibration error and its 95 % interval, with SciPy's folded normal law and root finder, bin by bin."""
    units = np.unique(np.concatenate([r["group"] for r in rounds]))
    grow = len(units) / (len(units) - 1)
    absolute, deviation, by_unit, n = [], [], np.zeros(len(units)), 0
    for r in rounds:
        sure = r["p"].max(1) if column is None else r["p"][:, column]
        right = r["answer"] == r["label"] if column is None else r["label"] == column
        n += len(sure)
        for i in range(15):
            inside = (sure > i / 15) & (sure <= (i + 1) / 15)
            if inside.any():
                of_unit = np.array([(sure - right)[inside & (r["group"] == u)].sum() for u in units])
                absolute.append(abs(of_unit.sum()))
                deviation.append(np.sqrt(np.sum(of_unit**2) * grow))
                by_unit += np.sign(of_unit.sum()) * of_unit
    size, noise, total = np.array(absolute), np.maximum(np.array(deviation), 1e-12), float(np.sum(absolute))
    inflation = max(1.0, np.sum(by_unit**2) * grow / (np.sum(noise**2) * len(rounds))) * len(rounds)

    def excess(factor: float, t: float) -> float:
        law = stats.foldnorm(factor * size / noise, scale=noise)
        return float(law.mean().sum() + t * np.sqrt(inflation * law.var().sum()) - total)

    quantile = stats.t.ppf(0.975, len(units) - 1)
    found = [
        0.0 if excess(0, t) >= 0 else optimize.brentq(excess, 0, 60, args=(t,)) * total / n for t in (0, quantile, -quantile)
    ]
    return found[0], found[1], min(1.0, found[2])

"""A study read again with numpy alone, for tests that compute every number on its page a second time."""

from __future__ import annotations

import json
from collections import defaultdict
from functools import lru_cache
from pathlib import Path

import numpy as np

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

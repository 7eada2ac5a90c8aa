"""What the outer figure of `tune` estimates, and what the best of a sweep does, on made studies with a known optimum.

Two normal classes in 40 features, of which 4 tell them apart. A setting is a subset of 10 features, drawn once, for a linear
discriminant: the settings differ in how many of the 4 they hold, and a study of 80 rows can hardly tell them apart. One setting
is known to be the best: it holds all 4. Splits, inner folds and the choice are those of phoropter; the true accuracy of each
discriminant is worked out from its weights, in closed form. Bias is the estimate minus the true accuracy of the classifiers that
it is about, in points.

    nested   the value is chosen on inner folds of each training part, and its classifier tested on the outer fold
    sweep    every value is cross-validated, and the best figure is reported

    python benchmarks/nested_tuning.py [--quick] [--output FOLDER]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from phoropter.data.dataset import Dataset
from phoropter.data.sources.arrays import from_arrays
from phoropter.data.splits.inner_splits import make_inner_splits
from phoropter.data.splits.protocol import make_splits
from phoropter.data.splits.spec import ProtocolSpec
from phoropter.study.side_runs.tuned_run import choose_trial

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

RESULTS = Path(__file__).parent / "results"
STUDIES, QUICK_STUDIES = 1000, 5
ROWS, WIDTH, TELLING, KEPT, APART = 80, 40, 4, 10, 0.9
INNER_FOLDS = 3


@dataclass(frozen=True)
class Cell:
    """Figures in per cent and points; chosen_best: how often the setting that is known to be best was chosen.

    *_error: standard error of the bias
    """

    settings: int
    nested: float
    nested_true: float
    nested_bias: float
    nested_error: float
    sweep: float
    sweep_true: float
    sweep_bias: float
    sweep_error: float
    chosen_best: float


def draw_settings(count: int) -> list[Rows]:
    """Subsets of the features; the first holds all that tell the classes apart, each later one as chance gives."""
    rng = np.random.default_rng(5)
    best = np.concatenate([np.arange(TELLING), rng.choice(np.arange(TELLING, WIDTH), KEPT - TELLING, replace=False)])
    others = [rng.choice(WIDTH, KEPT, replace=False) for _ in range(count - 1)]
    return [np.sort(best), *map(np.sort, others)]


def train_discriminant(features: Floats, labels: Rows, kept: Rows) -> tuple[Floats, float]:
    """Weights (WIDTH,) with zeros for features that are not kept, and the threshold."""
    x = features[:, kept]
    means = np.array([x[labels == label].mean(axis=0) for label in (0, 1)])
    scatter = np.cov((x - means[labels]).T) + 0.1 * np.eye(len(kept))
    inside = np.linalg.solve(scatter, means[1] - means[0])
    weights = np.zeros(WIDTH)
    weights[kept] = inside
    return weights, float(inside @ means.mean(axis=0))


def score_rows(classifier: tuple[Floats, float], features: Floats, labels: Rows) -> float:
    return float(((features @ classifier[0] > classifier[1]) == (labels == 1)).mean())


def true_accuracy(classifier: tuple[Floats, float]) -> float:
    """Of a linear rule for independent features of variance 1 whose first TELLING means differ by APART."""
    weights, threshold = classifier
    size, shift = float(np.linalg.norm(weights)), APART * float(weights[:TELLING].sum())
    return float((norm.cdf(threshold / size) + norm.sf((threshold - shift) / size)) / 2)


def make_study(number: int) -> tuple[Dataset, Floats]:
    """(dataset of ROWS rows, (ROWS, WIDTH) features)"""
    rng = np.random.default_rng([17, number])
    labels = np.arange(ROWS) % 2
    features = rng.normal(size=(ROWS, WIDTH))
    features[:, :TELLING] += APART * labels[:, None]
    pictures = np.zeros((ROWS, 1, 1, 3), dtype=np.uint8)
    ids = [f"{number}-{row:03d}" for row in range(ROWS)]
    return from_arrays(pictures, np.array(["no", "yes"])[labels].tolist(), ids=ids, name="made"), features


def run_study(number: int, settings: list[Rows]) -> tuple[Floats, float]:
    """((nested estimate, its truth, sweep estimate, its truth), share of splits in which the known best was chosen)."""
    dataset, features = make_study(number)
    labels = dataset.labels.astype(np.int64)
    splits = make_splits(dataset, ProtocolSpec(folds=5, seeds=(number,)))
    swept, swept_true = np.zeros((len(splits), len(settings))), np.zeros((len(splits), len(settings)))
    nested, best = [], 0
    for place, split in enumerate(splits):
        inner = make_inner_splits(dataset, split, INNER_FOLDS)
        scores = []
        for number_of, kept in enumerate(settings):
            trained = train_discriminant(features[split.train], labels[split.train], kept)
            swept[place, number_of] = score_rows(trained, features[split.test], labels[split.test])
            swept_true[place, number_of] = true_accuracy(trained)
            right = sum(
                score_rows(train_discriminant(features[f.train], labels[f.train], kept), features[f.test], labels[f.test])
                * len(f.test)
                for f in inner
            )
            scores.append(right / len(split.train))
        chosen = choose_trial(scores, higher_is_better=True)
        assert chosen is not None
        nested.append((swept[place, chosen], swept_true[place, chosen]))
        best += chosen == 0
    winner = int(swept.mean(axis=0).argmax())
    figures = [*np.mean(nested, axis=0), swept.mean(axis=0)[winner], swept_true.mean(axis=0)[winner]]
    return np.array(figures), best / len(splits)


def measure_bias(count: int, studies: int) -> Cell:
    settings = draw_settings(count)
    found = [run_study(number, settings) for number in range(studies)]
    figures = 100 * np.array([each for each, _ in found])
    nested, sweep = figures[:, 0] - figures[:, 1], figures[:, 2] - figures[:, 3]
    mean = figures.mean(axis=0)
    errors = [float(bias.std(ddof=1) / np.sqrt(studies)) for bias in (nested, sweep)]
    numbers = (mean[0], mean[1], nested.mean(), errors[0], mean[2], mean[3], sweep.mean(), errors[1])
    chosen_best = 100 * float(np.mean([share for _, share in found]))
    return Cell(count, *(round(float(v), 2) for v in (*numbers, chosen_best)))


def main() -> None:
    """Prints the table of docs/learning-curves.md and writes results/nested_tuning.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STUDIES} studies a cell, to see that it runs")
    parser.add_argument("--output", type=Path, default=RESULTS)
    asked = parser.parse_args()
    print("| settings | nested, truth | nested: bias | best of sweep, truth | best of sweep: bias | best chosen |")
    print("|---:|---|---:|---|---:|---:|")
    cells = []
    for count in (2, 10, 30):
        cell = measure_bias(count, QUICK_STUDIES if asked.quick else STUDIES)
        cells.append(asdict(cell))
        columns = (
            f"{count}",
            f"{cell.nested:.1f}, {cell.nested_true:.1f}",
            f"{cell.nested_bias:+.2f} ± {cell.nested_error:.2f}",
            f"{cell.sweep:.1f}, {cell.sweep_true:.1f}",
            f"{cell.sweep_bias:+.2f} ± {cell.sweep_error:.2f}",
            f"{cell.chosen_best:.0f} %",
        )
        print(f"| {' | '.join(columns)} |", flush=True)
    asked.output.mkdir(parents=True, exist_ok=True)
    (asked.output / "nested_tuning.json").write_text(json.dumps(cells, indent=1) + "\n")


if __name__ == "__main__":
    main()

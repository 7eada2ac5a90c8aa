"""How far the value of the best of many candidates is too good, plain and corrected for the choice.

The correction is that of results/questions/selection.py. Made studies with a known truth. Accuracy: a row is answered correctly
where a normal value, half of whose variance is shared by all candidates, lies below the quantile of the candidate's accuracy: 0.8
for all, or 0.8 ± 0.02. ROC-AUC: scores of two normal classes, one row in five positive, half of the variance shared, an AUC of
0.75 for all. Bias and root mean square error are those of the estimate minus the true value of the chosen candidate, in points.

    python benchmarks/winner_bias.py [--quick] [--output FOLDER]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from phoropter.core.seeds import named_generator
from phoropter.results.intervals.bootstrap import UnitRows
from phoropter.results.metrics.sufficient_sums import Floats
from phoropter.results.questions.selection import correct_selected_best

RESULTS = Path(__file__).parent / "results"
STUDIES, QUICK_STUDIES, RESAMPLES = 400, 5, 300
ACCURACY, AREA, SHARED = 0.8, 0.75, 0.5


@dataclass(frozen=True)
class Cell:
    """spread: standard deviation of the true values · biases and errors in points."""

    metric: str
    candidates: int
    rows: int
    spread: float
    plain_bias: float
    corrected_bias: float
    plain_error: float
    corrected_error: float


def draw_accuracies(draw: np.random.Generator, truth: Floats, rows: int) -> tuple[Floats, Floats]:
    """Values (C,), and derivatives by the weights of the rows (C, N)."""
    hidden = np.sqrt(SHARED) * draw.normal(size=rows) + np.sqrt(1 - SHARED) * draw.normal(size=(len(truth), rows))
    right = (hidden < stats.norm.ppf(truth)[:, None]).astype(np.float64)
    return right.mean(axis=1), (right - right.mean(axis=1, keepdims=True)) / rows


def draw_areas(draw: np.random.Generator, truth: Floats, rows: int) -> tuple[Floats, Floats]:
    """As `draw_accuracies`, of ROC-AUC."""
    labels = (np.arange(rows) % 5 == 0).astype(np.int64)
    shared, of_rows, found = draw.normal(size=rows), UnitRows(labels), []
    for area in truth:
        score = np.sqrt(SHARED) * shared + np.sqrt(1 - SHARED) * draw.normal(size=rows)
        score = stats.norm.cdf(score + labels * np.sqrt(2) * stats.norm.ppf(area))
        found.append(of_rows.compute_influences("roc_auc", np.stack([1 - score, score], axis=1)))
    return np.array([value for value, _ in found]), np.stack([slopes for _, slopes in found])


def measure_cells(studies: int) -> Iterator[Cell]:
    """One line of the table after the other."""
    cells = [("accuracy", c, n, s) for c in (2, 8, 40) for n in (100, 400) for s in (0.0, 0.02)]
    cells += [("roc_auc", c, 200, 0.0) for c in (8, 40)]
    for metric, candidates, rows, spread in cells:
        draw = named_generator(0, "winner", metric, candidates, rows, str(spread))
        errors = []
        for study in range(studies if metric == "accuracy" else studies // 2):
            truth = (ACCURACY if metric == "accuracy" else AREA) + spread * draw.normal(size=candidates)
            values, slopes = (draw_accuracies if metric == "accuracy" else draw_areas)(draw, truth, rows)
            found = correct_selected_best(values, slopes, True, seed=study, resamples=RESAMPLES)
            true = truth[int(values.argmax())]
            errors.append((found.plain - true, found.corrected - true) if found else (np.nan, np.nan))
        bias, error = 100 * np.mean(errors, axis=0), 100 * np.sqrt(np.mean(np.square(errors), axis=0))
        yield Cell(metric, candidates, rows, spread, *map(float, (bias[0], bias[1], error[0], error[1])))


def main() -> None:
    """Prints the table of docs/statistics.md and writes results/winner_bias.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STUDIES} studies a cell, to see that it runs")
    parser.add_argument("--output", type=Path, default=RESULTS)
    asked = parser.parse_args()
    cells = []
    print("| metric, candidates, rows | true values | bias, plain | bias, corrected | error, plain | error, corrected |")
    print("|---|---|---:|---:|---:|---:|")
    for cell in measure_cells(QUICK_STUDIES if asked.quick else STUDIES):
        cells.append(asdict(cell))
        truth = f"± {100 * cell.spread:g}" if cell.spread else "equal"
        numbers = (cell.plain_bias, cell.corrected_bias, cell.plain_error, cell.corrected_error)
        columns = [f"{cell.metric}, {cell.candidates}, {cell.rows}", truth, *(f"{v:.1f}" for v in numbers)]
        print(f"| {' | '.join(columns)} |", flush=True)
    asked.output.mkdir(parents=True, exist_ok=True)
    (asked.output / "winner_bias.json").write_text(json.dumps(cells, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""What the intervals of operating points cover, when thresholds are chosen on the other folds.

Scores of two normal classes; one answer in five is positive; 5 folds of independent people, or people with 4 answers each that
share half of their noise. The truth is known: the sensitivity at the thresholds that were used (what the interval is about), and
that at exactly 90 % specificity, which thresholds of few negatives miss.

    python benchmarks/operating_points.py [--quick] [--output FOLDER]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from phoropter.core.seeds import named_generator
from phoropter.results.clinical.operating_points import GOALS, CrossFitting
from phoropter.results.stats.held_out_rows import HeldOutRows

RESULTS = Path(__file__).parent / "results"
STUDIES, QUICK_STUDIES, FOLDS, PREVALENCE = 300, 10, 5, 0.2


@dataclass(frozen=True)
class Cell:
    """In percent: coverage of the truth at the thresholds used, and at exactly 90 % specificity; mean width; specificity reached;
    bias of the sensitivity against that at exactly 90 % specificity, in points"""

    people: int
    answers_each: int
    area: float
    covers_used: float
    covers_exact: float
    width: float
    specificity: float
    bias: float


def draw_study(draw: np.random.Generator, people: int, each: int, shift: float) -> HeldOutRows:
    """Scores are standard normal, those of positive people `shift` higher; p is their normal probability."""
    ill = draw.permutation(np.arange(people) < round(PREVALENCE * people))
    person = np.repeat(np.arange(people), each)
    shared = 0.5 if each > 1 else 0.0
    score = np.sqrt(shared) * draw.normal(size=people)[person] + np.sqrt(1 - shared) * draw.normal(size=people * each)
    p = stats.norm.cdf(score + shift * ill[person] - 1)
    fold = draw.permutation(np.arange(people) % FOLDS)[person]
    return HeldOutRows(ill[person].astype(np.int64), np.stack([1 - p, p], 1), person, fold, np.zeros(len(person), dtype=np.int64))


def measure_cell(people: int, each: int, area: float, studies: int) -> Cell:
    shift = float(np.sqrt(2) * stats.norm.ppf(area))
    exact = float(stats.norm.cdf(shift + stats.norm.ppf(0.1)))  # sensitivity at 90 % specificity
    used_hits, exact_hits, widths, specificities, found = [], [], [], [], []
    for number in range(studies):
        rows = draw_study(named_generator(number, "operating points", people, each), people, each, shift)
        point = CrossFitting(rows, 1).judge_goal(GOALS[0])
        if point is None:
            continue
        interval, member = point.statistics.sensitivity, rows.splits[rows.labels == 1]
        true_of_fold = stats.norm.cdf(shift - 1 - stats.norm.ppf(point.thresholds))
        used_hits.append(interval.low <= true_of_fold[member].mean() <= interval.high)
        exact_hits.append(interval.low <= exact <= interval.high)
        widths.append(interval.high - interval.low)
        specificities.append(point.statistics.specificity.estimate)
        found.append(interval.estimate - exact)
    means = [float(np.mean(values)) * 100 for values in (used_hits, exact_hits, widths, specificities, found)]
    return Cell(people, each, area, *means)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few studies, to see that it runs")
    parser.add_argument("--output", type=Path, default=RESULTS)
    asked = parser.parse_args()
    studies = QUICK_STUDIES if asked.quick else STUDIES
    cells = [measure_cell(n, each, area, studies) for each in (1, 4) for n in (60, 200, 1000) for area in (0.8,)]
    asked.output.mkdir(parents=True, exist_ok=True)
    (asked.output / "operating_points.json").write_text(json.dumps([asdict(cell) for cell in cells], indent=1) + "\n")
    print("| people, answers each, AUC | covers, thresholds used | covers, exact | width | specificity reached | bias, points |")
    print("|---|---:|---:|---:|---:|---:|")
    for c in cells:
        head = f"{c.people:,}, {c.answers_each}, {c.area}"
        print(f"| {head} | {c.covers_used:.1f} | {c.covers_exact:.1f} | {c.width:.0f} | {c.specificity:.1f} | {c.bias:+.1f} |")


if __name__ == "__main__":
    main()

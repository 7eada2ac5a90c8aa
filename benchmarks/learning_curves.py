"""What the interval of "twice as many people would bring" covers, on made studies whose true gain is known.

Two kinds of studies, each of 5 folds of people and 4 shares:
    made answers   the chance of a wrong answer is a power law of the people trained on, plus what a person and a training add
    classifiers    linear discriminants of normal features, really trained on shares of the people; the true gain is that of 4,000
                   classifiers trained on independent people, and it is no exact power law

    python benchmarks/learning_curves.py [--quick] [--output FOLDER]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phoropter.results.data_size.gain import SizeCurve, estimate_gain
from phoropter.results.intervals.bootstrap import Bootstrap
from phoropter.results.metrics.registry import METRICS

Floats = NDArray[np.float64]
RESULTS = Path(__file__).parent / "results"
STUDIES, QUICK_STUDIES = 300, 3
FOLDS, SHARES, RESAMPLES = 5, (0.1, 0.2, 0.5, 1.0), 400
ACCURACY = METRICS["accuracy"]


@dataclass(frozen=True)
class Setting:
    """people: in a study · rows: of each person · rounds: of folds, each with its own partition"""

    people: int
    rows: int
    rounds: int = 1


def summarise(right: list[NDArray[np.bool_]], people: list[NDArray[np.int64]], folds: list[NDArray[np.int64]]) -> SizeCurve:
    """Of one study: for each round the (P, N) right answers at each size, (N,) the person and (N,) the fold of each row."""
    answers, person = np.concatenate(right, axis=1), np.concatenate(people)
    split = np.concatenate([fold + FOLDS * number for number, fold in enumerate(folds)])
    bootstrap = Bootstrap(np.zeros(answers.shape[1], dtype=np.int64), person, resamples=RESAMPLES)
    replicates = []
    for row in answers:
        wrong = (~row).astype(float)
        replicates.append(bootstrap.compute_replicates("accuracy", np.column_stack([1 - wrong, wrong])).values)
    count = np.bincount(split)
    per_split = np.array([np.bincount(split, row) / count for row in answers])
    trained = len(np.unique(person)) * (1 - 1 / FOLDS)
    sizes = np.array([max(2, round(share * trained)) for share in SHARES], dtype=float)
    rounds = np.arange(len(count)) // FOLDS
    values, units = answers.mean(axis=1), len(np.unique(person))
    return SizeCurve(ACCURACY, sizes, values, np.array(replicates), units, per_split, rounds, 1 / (FOLDS - 1))


def draw_made_answers(setting: Setting, rng: np.random.Generator) -> tuple[SizeCurve, float]:
    """Error 0.08 + 0.6 n^-0.5; persons add a deviation of 0.08, trainings one of 0.2 / √n that sizes half share."""
    trained = setting.people * (1 - 1 / FOLDS)
    sizes = np.array([max(2, round(share * trained)) for share in SHARES], dtype=float)

    def law(n: Floats | float) -> Floats:
        return np.asarray(0.08 + 0.6 * np.asarray(n) ** -0.5)

    difficulty = rng.normal(0, 0.08, setting.people)
    right, people, folds = [], [], []
    for _ in range(setting.rounds):
        fold_of = rng.permutation(setting.people) % FOLDS
        common, own = rng.normal(size=(1, FOLDS)), rng.normal(size=(len(SHARES), FOLDS))
        training = (common + own) / np.sqrt(2) * 0.2 / np.sqrt(sizes)[:, None] * 0.5
        chance = np.clip(law(sizes)[:, None] + training[:, fold_of] + difficulty, 0, 1)
        person = np.repeat(np.arange(setting.people), setting.rows)
        right.append(rng.random((len(SHARES), len(person))) > chance[:, person])
        people.append(person)
        folds.append(fold_of[person])
    return summarise(right, people, folds), float(law(sizes[-1]) - law(2 * sizes[-1]))


WIDTH, APART, BETWEEN = 12, 1.6, 0.7  # features; distance of the classes; deviation of a person's mean from its class's


def draw_people(count: int, rows: int, rng: np.random.Generator) -> tuple[Floats, NDArray[np.int64]]:
    """((count, rows, WIDTH) features, (count,) labels of people)"""
    labels = np.arange(count) % 2
    centre = np.zeros(WIDTH)
    centre[0] = APART
    means = labels[:, None] * centre + rng.normal(0, BETWEEN, (count, WIDTH))
    return means[:, None, :] + rng.normal(size=(count, rows, WIDTH)), labels


def train_discriminant(features: Floats, labels: NDArray[np.int64]) -> Callable[[Floats], NDArray[np.int64]]:
    """Fisher's linear discriminant with a ridge of a tenth of the mean variance."""
    rows, flat = np.repeat(labels, features.shape[1]), features.reshape(-1, WIDTH)
    means = np.array([flat[rows == label].mean(axis=0) for label in (0, 1)])
    scatter = np.cov((flat - means[rows]).T)
    weight = np.linalg.solve(scatter + 0.1 * np.trace(scatter) / WIDTH * np.eye(WIDTH), means[1] - means[0])
    threshold = weight @ means.mean(axis=0)
    return lambda tested: (tested @ weight > threshold).astype(np.int64)


@cache
def true_error(people: int, rows: int, repeats: int = 4000) -> float:
    """Mean error on new people of classifiers trained on so many, each on independent ones."""
    rng, wrong = np.random.default_rng([people, rows, 7]), []
    for _ in range(repeats):
        predict = train_discriminant(*draw_people(people, rows, rng))
        tested, labels = draw_people(100, 1, rng)
        wrong.append((predict(tested[:, 0]) != labels).mean())
    return float(np.mean(wrong))


def draw_classifiers(setting: Setting, rng: np.random.Generator) -> tuple[SizeCurve, float]:
    features, labels = draw_people(setting.people, setting.rows, rng)
    right, people, folds = [], [], []
    for _ in range(setting.rounds):
        fold_of = np.empty(setting.people, dtype=np.int64)
        for label in (0, 1):
            members = np.flatnonzero(labels == label)
            fold_of[members] = rng.permutation(len(members)) % FOLDS
        answers = np.zeros((len(SHARES), setting.people, setting.rows), dtype=bool)
        for fold in range(FOLDS):
            tested = np.flatnonzero(fold_of == fold)
            orders = [rng.permutation(np.flatnonzero((fold_of != fold) & (labels == label))) for label in (0, 1)]
            for place, share in enumerate(SHARES):
                chosen = np.concatenate([order[: max(1, round(share * len(order)))] for order in orders])
                predict = train_discriminant(features[chosen], labels[chosen])
                answers[place, tested] = predict(features[tested]) == labels[tested][:, None]
        right.append(answers.reshape(len(SHARES), -1))
        people.append(np.repeat(np.arange(setting.people), setting.rows))
        folds.append(np.repeat(fold_of, setting.rows))
    trained = round(setting.people * (1 - 1 / FOLDS))
    return summarise(right, people, folds), true_error(trained, setting.rows) - true_error(2 * trained, setting.rows)


KINDS = {"made answers": draw_made_answers, "classifiers": draw_classifiers}
SETTINGS = (Setting(30, 8), Setting(60, 8), Setting(60, 8, 3), Setting(150, 8), Setting(400, 2))


@dataclass(frozen=True)
class Cell:
    """One row of the table, in points and per cent of the studies. can_say: studies in which there is an interval"""

    kind: str
    people: int
    rows: int
    rounds: int
    true_gain: float
    mean_estimate: float
    can_say: float
    covered: float
    mean_width: float


def measure_coverage(kind: str, setting: Setting, studies: int) -> Cell:
    """Of the studies that can say something: what the intervals cover, and how wide they are."""
    rng = np.random.default_rng(11)
    found = []
    for _ in range(studies):
        curve, truth = KINDS[kind](setting, rng)
        gain = estimate_gain(curve).gain
        if gain is not None:
            found.append((gain.value, gain.low <= truth <= gain.high, gain.high - gain.low))
    estimate, covered, width = 100 * np.mean(found, axis=0) if found else np.full(3, np.nan)
    share = 100 * len(found) / studies
    return Cell(
        kind,
        setting.people,
        setting.rows,
        setting.rounds,
        *(round(float(v), 2) for v in (100 * truth, estimate, share, covered, width)),
    )


def main() -> None:
    """Prints the table of docs/learning-curves.md and writes results/learning_curves.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STUDIES} studies a cell, to see that it runs")
    parser.add_argument("--output", type=Path, default=RESULTS)
    asked = parser.parse_args()
    print("| studies | people × rows, rounds | true gain | mean estimate | can say | covered | mean width |")
    print("|---|---|---:|---:|---:|---:|---:|")
    cells = []
    for kind, setting in ((kind, setting) for kind in KINDS for setting in SETTINGS):
        cell = measure_coverage(kind, setting, QUICK_STUDIES if asked.quick else STUDIES)
        cells.append(asdict(cell))
        print(
            f"| {kind} | {cell.people} × {cell.rows}, {cell.rounds} | {cell.true_gain:.1f} | {cell.mean_estimate:.1f} "
            f"| {cell.can_say:.0f} % | {cell.covered:.1f} % | {cell.mean_width:.1f} |",
            flush=True,
        )
    asked.output.mkdir(parents=True, exist_ok=True)
    (asked.output / "learning_curves.json").write_text(json.dumps(cells, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""False positives and power of the two answers about a pair of candidates: python -m benchmarks.comparison_power PART

    model      splits' differences drawn from the model of results/stats/pairs/two_components.py
    bound      the most power that any test of one pair can have in that model (linear programming)
    learners   real learners from scikit-learn on drawn data, trained and tested as in a study
    noise      studies of candidates that do not differ, through the results folder and the page's own words

Tables of docs/statistics.md; every draw is seeded.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.seeds import named_generator
from phoropter.results.metrics.registry import compute_metrics
from phoropter.results.stats.compare import CandidateScores, Design, compare_all_pairs
from phoropter.results.stats.paired_tests import corrected_resampled_ttest
from phoropter.results.stats.pairs.row_tests import unit_t_test
from phoropter.results.stats.pairs.training_tests import split_components
from phoropter.results.stats.pairs.two_components import TwoComponents, two_component_test
from phoropter.results.stats.pairs.unit_contributions import ContributionReader, EntryLayout, SplitKey, UnitContributions
from phoropter.results.store import Predictions

RATIOS = (0.0, 0.25, 1.0, 4.0, 16.0)  # ρ: variance of training over variance of rows, of one split's difference
TRUE_DIFFERENCE = 3.0  # in standard errors of the rows' part of the mean difference
ROWS_PER_FOLD = 20
Floats = NDArray[np.float64]


# --- model ---------------------------------------------------------------------------------------------------------------------


def make_layout(folds: int, rounds: int, draw: np.random.Generator, group: int = 1) -> EntryLayout:
    """Folds of ROWS_PER_FOLD · group rows, each round a partition of its own; units are rows, or groups of so many rows."""
    units = folds * ROWS_PER_FOLD
    order = np.concatenate([draw.permutation(units) for _ in range(rounds)])
    split_of = np.repeat(np.arange(folds * rounds), ROWS_PER_FOLD)
    splits = tuple(range(folds * rounds))
    return EntryLayout("model", splits, np.repeat(np.arange(rounds), folds), split_of, order, np.arange(units).astype(np.str_))


def draw_pair(layout: EntryLayout, ratio: float, folds: int, draw: np.random.Generator, truth: float = 0.0) -> UnitContributions:
    """A difference: rows give each fold's mean a variance of 1, training one of `ratio`, with a correlation of 1/folds."""
    values = draw.normal(size=len(layout.units)) * np.sqrt(ROWS_PER_FOLD)
    of_entry = values[layout.unit_of]
    n = len(layout.splits)
    means = np.bincount(layout.split_of, of_entry) / ROWS_PER_FOLD
    training = draw.normal() * np.sqrt(ratio / folds) + draw.normal(size=n) * np.sqrt(ratio * (1 - 1 / folds))
    slopes = (of_entry - means[layout.split_of]) / ROWS_PER_FOLD
    return UnitContributions(layout, means + training + truth, slopes, np.ones(n))


def model_cells(studies: int) -> Iterator[str]:
    """Rows of the table: K, rounds, then false positives and power of three tests by ratio."""
    for folds in (5, 10):
        for rounds in (1, 3, 5):
            layout = make_layout(folds, rounds, named_generator(0, "layout", folds, rounds))
            found = [single_pair_rates(layout, folds, ratio, studies) for ratio in RATIOS]
            for number, name in enumerate(("corrected resampled t", "rows alone", "two components")):
                false = ", ".join(f"{rates[0][number] * 100:.1f}" for rates in found)
                power = ", ".join(f"{rates[1][number] * 100:.0f}" for rates in found)
                yield f"| {folds} | {rounds} | {name} | {false} | {power} |"


def reject_pair(parts: TwoComponents, pair: UnitContributions, folds: int, shift: float) -> list[bool]:
    """Whether the three tests reject, by the functions that reports use."""
    moved = UnitContributions(pair.layout, pair.values + shift, pair.slopes, pair.shares)
    p = [corrected_resampled_ttest(moved.values, 1 / (folds - 1)).p, unit_t_test(moved).p]
    p.append(two_component_test(replace(parts, difference=parts.difference + shift)).p)
    return [bool(value <= 0.05) for value in p]


def single_pair_rates(layout: EntryLayout, folds: int, ratio: float, studies: int) -> tuple[Floats, Floats]:
    """The same for two candidates, all studies at once; the first 20 are compared with the functions that reports use."""
    from scipy.stats import t

    draw = named_generator(0, "model", folds, len(layout.splits), str(ratio), 2)
    drawn = [draw_pair(layout, ratio, folds, draw) for _ in range(studies)]
    values, n = np.stack([one.values for one in drawn]), len(layout.units)
    influences = np.stack([one.mean_influences() for one in drawn])
    squares = influences**2
    rows, kurtosis = squares.sum(1) * n / (n - 1), n * (squares**2).sum(1) / squares.sum(1) ** 2
    rows_df = np.clip(2 * n / (kurtosis - 1), 1, n - 1)
    of_rows = np.stack([one.split_variances() for one in drawn]).mean(1)
    rounds = len(layout.splits) // folds
    spread = values.reshape(studies, rounds, folds).var(axis=2, ddof=1).mean(1)
    factor, all_splits = 1 / (folds * rounds) + 1 / (folds - 1), values.var(axis=1, ddof=1)
    t_rows, t_spread = t.ppf(0.975, rows_df) ** 2, t.ppf(0.975, rounds * (folds - 1)) ** 2
    both = np.maximum(t_rows * rows, t_rows * (rows - factor * of_rows) + t_spread * factor * spread)
    corrected = t.ppf(0.975, folds * rounds - 1) ** 2 * factor * all_splits
    critical = np.sqrt(np.stack([corrected, t_rows * rows, both], axis=1))
    truth, mean = TRUE_DIFFERENCE / np.sqrt(folds), values.mean(axis=1)[:, None]
    for number, one in enumerate(drawn[:20]):
        parts = split_components(one, 1 / (folds - 1))
        assert parts is not None and reject_pair(parts, one, folds, 0.0) == list(np.abs(mean[number]) >= critical[number])
    return (np.abs(mean) >= critical).mean(axis=0), (np.abs(mean + truth) >= critical).mean(axis=0)


def largest_power(folds: int, level: float = 0.06) -> tuple[float, float]:
    """The most power at ratio 0 of any test of one pair and one round, and that of the corrected resampled t.

    A test is a function of the mean difference and the variance of the folds' differences (the rows' variance is known). Among
    all those with at most `level` false positives at every ratio, and nowhere less power than the corrected resampled t, linear
    programming finds the most powerful one, on a grid.
    """
    from scipy.optimize import linprog
    from scipy.stats import chi2, norm, t

    spread_edges = np.concatenate([[0], np.geomspace(0.02, 400, 100), [1e9]])
    mean_edges = np.concatenate([[0], np.geomspace(0.05, 60, 120), [1e6]])
    truth, df = TRUE_DIFFERENCE / np.sqrt(folds), folds - 1

    def cells(ratio: float, shift: float) -> Floats:
        sd, scale = np.sqrt(1 / folds + ratio * (2 * folds - 1) / folds**2), 1 + ratio * (1 - 1 / folds)
        of_spread = np.diff(chi2.cdf(spread_edges * df / scale, df))
        inside = norm.cdf((mean_edges - shift) / sd) - norm.cdf((-mean_edges - shift) / sd)
        return np.outer(np.diff(inside), of_spread).ravel()

    draw = named_generator(0, "corrected t", folds)

    def power_of_corrected_t(ratio: float) -> float:
        mean = truth + draw.normal(size=400_000) * np.sqrt(1 / folds + ratio * (2 * folds - 1) / folds**2)
        spread = (1 + ratio * (1 - 1 / folds)) * draw.chisquare(df, 400_000) / df
        return float(np.mean(np.abs(mean) > t.ppf(0.975, df) * np.sqrt((1 / folds + 1 / (folds - 1)) * spread)))

    ratios = [0.0, *np.geomspace(0.05, 64, 14)]
    upper = [cells(r, 0.0) for r in ratios] + [-cells(r, truth) for r in RATIOS[1:]]
    limits = [level] * len(ratios) + [-power_of_corrected_t(r) for r in RATIOS[1:]]
    found = linprog(-cells(0.0, truth), A_ub=np.array(upper), b_ub=limits, bounds=(0, 1))
    return -float(found.fun), power_of_corrected_t(0.0)


# --- learners ------------------------------------------------------------------------------------------------------------------

FEATURES, FRESH_ROWS, GROUP_ROWS = 8, 2000, 10


@dataclass(frozen=True)
class LearnerStudy:
    """kinds: the learner of each candidate; each sees features of its own · groups: rows share an offset of their group."""

    kinds: tuple[str, ...]
    rows: int = 200
    rounds: int = 1
    groups: bool = False
    weaker: float = 1.0  # signal of every second candidate, as a share
    metric: str = "accuracy"
    signal: float = 0.35


def make_learner(kind: str, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.tree import DecisionTreeClassifier

    if kind == "logistic":
        return LogisticRegression(max_iter=200)
    if kind == "tree":
        return DecisionTreeClassifier(max_depth=6, random_state=seed)
    return MLPClassifier((16,), max_iter=40, learning_rate_init=0.01, random_state=seed)


def draw_rows(study: LearnerStudy, rows: int, draw: np.random.Generator) -> tuple[Floats, Any, Any]:
    """(candidates, rows, FEATURES) features, labels, and the group of each row."""
    labels = draw.integers(0, 2, rows)
    groups = np.arange(rows) // GROUP_ROWS if study.groups else np.arange(rows)
    signal = study.signal * np.where(np.arange(len(study.kinds)) % 2, study.weaker, 1.0)
    features = draw.normal(size=(len(study.kinds), rows, FEATURES)) + (labels - 0.5)[:, None] * 2 * signal[:, None, None]
    if study.groups:
        features = features + 0.7 * draw.normal(size=(len(study.kinds), groups[-1] + 1, FEATURES))[:, groups]
    return features, labels, groups


def learn_study(study: LearnerStudy, number: int) -> tuple[list[CandidateScores], Floats]:
    """Predictions of every candidate on every fold; and the mean value of its models on fresh rows."""
    draw = named_generator(0, "learners", repr(study), number)
    features, labels, groups = draw_rows(study, study.rows, draw)
    fresh, fresh_labels, _ = draw_rows(study, FRESH_ROWS, draw)
    names, truths, found = np.array([f"r{i:04d}" for i in range(study.rows)]), [], []
    owners = np.array([f"g{g:04d}" for g in groups])
    partitions = [draw.permutation(np.arange(groups[-1] + 1) % 5)[groups] for _ in range(study.rounds)]
    for c, kind in enumerate(study.kinds):
        sheets: dict[SplitKey, Predictions] = {}
        rounds: dict[SplitKey, Hashable] = {}
        scores: dict[SplitKey, float] = {}
        values = []
        for r, fold_of in enumerate(partitions):
            for k in range(5):
                train, test = fold_of != k, np.flatnonzero(fold_of == k)
                learner = make_learner(kind, r * 5 + k).fit(features[c][train], labels[train])
                p = learner.predict_proba(features[c][test])
                logits = np.log(np.clip(p, 1e-6, 1)).astype(np.float32)
                key: SplitKey = (f"{r}-{k}", r)
                sheets[key] = Predictions(names[test], labels[test], logits, owners[test] if study.groups else None)
                rounds[key] = r
                scores[key] = compute_metrics([study.metric], labels[test], sheets[key].probabilities)[study.metric]
                fresh_p = learner.predict_proba(fresh[c])
                values.append(compute_metrics([study.metric], fresh_labels, fresh_p)[study.metric])
        found.append(CandidateScores(f"{kind} {c}", scores, sheets, rounds))
        truths.append(np.mean(values))
    return found, np.array(truths)


def learner_cells(studies: int, learners: Sequence[str]) -> Iterator[str]:
    """False positives of both questions where candidates are exchangeable, and what a weaker second candidate is found by.

    learners: those of `LEARNERS` whose studies are measured; `mixed` has two logistic regressions and two trees
    """
    two = [(kind, kind) for kind in ("logistic", "tree", "net")]
    cells = [LearnerStudy(kinds, rounds=r, metric=m, groups=g) for kinds in two for r, m, g in LEARNER_CELLS]
    mixed = ("logistic", "logistic", "tree", "tree")
    cells += [LearnerStudy(mixed, rounds=r, groups=g) for r in (1, 3) for g in (False, True)]
    cells = [c for c in cells if "net" not in c.kinds or (c.metric == "accuracy" and not c.groups and c.rounds == 1)]
    for cell in (c for c in cells if (c.kinds[0] if len(set(c.kinds)) == 1 else "mixed") in learners):
        count = studies // 2 if "net" in cell.kinds else studies
        null, power = learner_rates(cell, count), learner_rates(replace(cell, weaker=0.6), count // 2)
        unit = "groups" if cell.groups else "rows"
        kinds = " + ".join(dict.fromkeys(cell.kinds))
        yield (
            f"| {len(cell.kinds)} × {kinds} | {cell.metric} | {unit} | {cell.rounds} | {null['ratio']:.2f} | "
            f"{null['rows'] * 100:.1f} | {null['training'] * 100:.1f} | {null['corrected'] * 100:.1f} | "
            f"{power['training'] * 100:.0f} | {power['corrected'] * 100:.0f} |"
        )


LEARNERS = ("logistic", "tree", "net", "mixed")
LEARNER_CELLS = [(1, "accuracy", False), (3, "accuracy", False), (1, "accuracy", True), (3, "accuracy", True)]
LEARNER_CELLS += [(1, "roc_auc", False)]  # rounds, metric, groups


def learner_rates(cell: LearnerStudy, studies: int) -> dict[str, float]:
    """Over pairs of alike learners: how often each test rejects (of rows: its interval misses the models' own difference)."""
    counts = {"rows": 0.0, "training": 0.0, "corrected": 0.0, "ratio": 0.0}
    pairs = [(i, i + 1) for i in range(0, len(cell.kinds), 2)]
    for number in range(studies):
        candidates, truths = learn_study(cell, number)
        found = {(c.a, c.b): c for c in compare_all_pairs(candidates, cell.metric, Design("folds", 1 / 4))}
        reader = ContributionReader(cell.metric)
        read = [reader.read_candidate(c.predictions, c.rounds) for c in candidates]
        for i, j in pairs:
            c = found[candidates[i].name, candidates[j].name]
            own, (a, b) = truths[i] - truths[j], (read[i], read[j])
            counts["rows"] += not c.rows.result.low <= own <= c.rows.result.high
            counts["training"] += c.training.result.p <= 0.05
            d = np.array([x - y for x, y in zip(candidates[i].scores.values(), candidates[j].scores.values(), strict=True)])
            counts["corrected"] += corrected_resampled_ttest(d, 1 / 4).p <= 0.05
            parts = split_components(a.subtract_other(b), 1 / 4) if a is not None and b is not None else None
            counts["ratio"] += (parts.spread - parts.rows_in_spread) / parts.rows_in_spread if parts is not None else 0.0
    return {name: value / studies / len(pairs) for name, value in counts.items()}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["model", "bound", "learners"])
    parser.add_argument("--learners", nargs="*", choices=LEARNERS, default=LEARNERS, help="of the part of the same name")
    parser.add_argument("--studies", type=int, default=10_000, help="drawn for each cell (a tenth of them with four candidates)")
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")  # scikit-learn's, of nets that are stopped early on purpose
    if given.part == "model":
        lines = model_cells(given.studies)
    elif given.part == "learners":
        lines = learner_cells(given.studies, given.learners)
    else:
        lines = (f"{k} folds: {' against '.join(f'{100 * p:.1f} %' for p in largest_power(k))}" for k in (5, 10))
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    main()

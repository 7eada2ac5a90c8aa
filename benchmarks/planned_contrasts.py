"""How often a planned contrast finds what is there, and what is not, beside all pairs of the same candidates.

Made studies with a known truth: 8 networks × 5 augmentations, one of which helps every network by 1 point of accuracy, the others
not at all. The primary question is the one that helps against none; the secondary ones are the other three against none, so that
each of them answered with "ahead" or "behind" is false. The same studies without any effect tell how often the primary question
is answered falsely.

A row is answered correctly where difficulty + the network's own + the training's own part, normal with variances 0.5, 0.35 and
0.15, lie below the quantile of the run's accuracy. A run's accuracy is that of its network (0.85 ± 0.02), plus the effect, plus
what this training happened to reach (standard deviation τ, new for each split and level; of each network by itself, or shared
by all networks, as good or bad training rows would be).

Five rounds of 5 folds come first: the default of a study whose folds are free (frozen backbones).

    python -m benchmarks.planned_contrasts [--quick] [--pooled] [--output FOLDER]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from phoropter.core.seeds import named_generator
from phoropter.results.questions.contrasts import ContrastAnswer, answer_contrasts
from phoropter.results.questions.planned import Contrast, ContrastUnit, Role
from phoropter.results.stats.compare import CandidateScores, Design, compare_all_pairs
from phoropter.results.stats.pairs.answers import Comparison
from phoropter.results.stats.pairs.unit_contributions import ContributionReader, UnitContributions
from phoropter.results.store import Predictions

RESULTS = Path(__file__).parent / "results"
STUDIES, PAIR_STUDIES, QUICK_STUDIES = 100, 10, 4
NETWORKS, LEVELS, FOLDS = 8, 5, 5
DESIGNS = {"accuracy": Design("folds", 1 / (FOLDS - 1))}
DIFFICULTY, NETWORK, TRAINING = 0.5, 0.35, 0.15  # parts of the variance of a row's hidden value


@dataclass(frozen=True)
class MadeStudy:
    """rows of the data · rounds: repeats of 5 folds · tau: standard deviation of what a training reaches, in accuracy
    effect: of augmentation 1 on every network, in accuracy · is_shared: what a training reaches is the same for all networks
    """

    rows: int
    rounds: int
    tau: float
    effect: float
    is_shared: bool = False


@dataclass(frozen=True)
class Cell:
    """Rates per 100 studies, of verdicts about training again.

    found: the primary question is answered with "ahead" · alone: the same, where it is the only question
    found_on_rows: about these models on new rows · false_secondary, false_primary: answered with "ahead" or "behind" without an
    effect (any of the three; the primary one as the only question) · half_width: of the primary interval
    false_on_rows: the primary one as the only question, about these models on new rows, without an effect; where trainings have
    luck (τ > 0) these models do differ, and this is no error
    wins: networks with the sign of the effect · pairs_found: any of the 8 pairs that the effect separates, among all 780
    """

    rows: int
    rounds: int
    tau: float
    is_shared: bool
    studies: int
    found: float
    alone: float
    found_on_rows: float
    false_secondary: float
    false_primary: float
    false_on_rows: float
    half_width: float
    wins: float
    pairs_found: float
    pairs_studies: int


def make_scores(made: MadeStudy, seed: int) -> list[CandidateScores]:
    """The candidates `net n · augment k` with their predictions on every split."""
    draw = named_generator(seed, "planned contrasts", made.rows, made.rounds, str(made.tau))
    labels, ids = np.arange(made.rows) % 2, np.array([f"{i:06d}" for i in range(made.rows)])
    difficulty = draw.normal(size=made.rows)
    folds = [draw.permutation(np.arange(made.rows) % FOLDS) for _ in range(made.rounds)]
    found = []
    shared_luck = draw.normal(0, made.tau, (LEVELS, made.rounds, FOLDS))
    for network in range(NETWORKS):
        skill = 0.85 + float(np.clip(draw.normal(0, 0.02), -0.04, 0.04))
        shared = np.sqrt(DIFFICULTY) * difficulty + np.sqrt(NETWORK) * draw.normal(size=made.rows)
        for level in range(LEVELS):
            sheets = {}
            for round_, fold_of in enumerate(folds):
                for fold in range(FOLDS):
                    test = np.flatnonzero(fold_of == fold)
                    luck = shared_luck[level, round_, fold] if made.is_shared else draw.normal(0, made.tau)
                    accuracy = np.clip(skill + made.effect * (level == 1) + luck, 0.01, 0.99)
                    hidden = shared[test] + np.sqrt(TRAINING) * draw.normal(size=len(test))
                    sheets[f"{round_}.{fold}", 0] = _answer_rows(ids[test], labels[test], hidden < stats.norm.ppf(accuracy))
            scores = {key: float((p.logits.argmax(axis=1) == p.labels).mean()) for key, p in sheets.items()}
            rounds = {key: key[0].split(".")[0] for key in sheets}
            found.append(CandidateScores(f"net {network} · augment {level}", scores, sheets, rounds))
    return found


def _answer_rows(ids: NDArray[np.str_], labels: NDArray[np.int64], right: NDArray[np.bool_]) -> Predictions:
    answer = np.where(right, labels, 1 - labels)
    return Predictions(ids, labels, np.stack([1.0 - answer, answer], axis=1).astype(np.float32) * 4)


def level_contrast(level: int, role: Role) -> Contrast:
    """One augmentation against none, within each network."""
    nets = [f"net {n}" for n in range(NETWORKS)]
    units = tuple(ContrastUnit(net, (f"{net} · augment {level}",), (f"{net} · augment 0",)) for net in nets)
    return Contrast(role, "accuracy", "recipe.augment", str(level), "0", units)


def answer_questions(scores: list[CandidateScores]) -> tuple[list[ContrastAnswer], ContrastAnswer]:
    """The primary question with the three secondary ones, and the primary one as the only question."""
    known, primary = _read_contributions(scores), level_contrast(1, "primary")
    together = answer_contrasts([primary, *(level_contrast(k, "secondary") for k in (2, 3, 4))], known, DESIGNS)
    return together, answer_contrasts([primary], known, DESIGNS)[0]


def answer_alone(scores: list[CandidateScores]) -> ContrastAnswer:
    """The primary one as the only question; reads the two levels that it needs."""
    known = _read_contributions([s for s in scores if s.name[-1] in "01"])
    return answer_contrasts([level_contrast(1, "primary")], known, DESIGNS)[0]


def _read_contributions(scores: list[CandidateScores]) -> dict[str, dict[str, UnitContributions]]:
    reader = ContributionReader("accuracy")
    return {"accuracy": {s.name: c for s in scores if (c := reader.read_candidate(s.predictions, s.rounds)) is not None}}


def separated_pairs(scores: list[CandidateScores]) -> list[Comparison]:
    """Of all 780 pairs, corrected for all of them: those of one network with augmentation 1 and without any."""
    pairs = compare_all_pairs(scores, "accuracy", Design("folds", 1 / (FOLDS - 1)))
    return [c for c in pairs if c.a.split(" · ")[0] == c.b.split(" · ")[0] and {c.a[-1], c.b[-1]} == {"0", "1"}]


CELLS = [(5, 0.0, False), (5, 0.005, False), (5, 0.005, True), (3, 0.005, False), (1, 0.0, False), (1, 0.005, False)]


def measure_cells(studies: int, pair_studies: int) -> Iterator[Cell]:
    """One line of the table after the other: rounds, τ, whether it is shared."""
    for rounds, tau, shared in CELLS:
        real, null = (MadeStudy(3000, rounds, tau, effect, shared) for effect in (0.01, 0.0))
        with_effect, alone = zip(*(answer_questions(make_scores(real, seed)) for seed in range(studies)), strict=True)
        without = [answer_alone(make_scores(null, seed)) for seed in range(studies, 2 * studies)]
        pairs = [separated_pairs(make_scores(real, seed)) for seed in range(pair_studies)]
        rate, false = 100 / studies, ("ahead", "behind")
        yield Cell(
            3000,
            rounds,
            tau,
            shared,
            studies,
            rate * sum(a[0].verdict == "ahead" for a in with_effect),
            rate * sum(a.verdict == "ahead" for a in alone),
            rate * sum(a[0].rows.verdict == "ahead" for a in with_effect),
            rate * sum(any(a.verdict in false for a in answers[1:]) for answers in with_effect),
            rate * sum(a.verdict in false for a in without),
            rate * sum(a.rows.verdict in false for a in without),
            float(np.mean([(a[0].strongest.result.high - a[0].strongest.result.low) / 2 for a in with_effect])),
            float(np.mean([a[0].n_wins for a in with_effect])),
            100 / pair_studies * sum(any(c.training.verdict != "cannot tell" for c in found) for found in pairs),
            pair_studies,
        )


def pooled_rates(ratio: float, studies: int = 20_000) -> tuple[float, float]:
    """False positives of two tests of a contrast over networks in one round: with the spread of the single networks, pooled (32
    degrees of freedom), and with its own (4), as phoropter tests it.

    ratio: variance of training over that of rows, of the contrast on one split; what a training reaches is shared by all
    networks, with a correlation of 1/FOLDS between splits. Rows answer independently in each network.
    """
    draw, factor = named_generator(0, "pooled over networks", str(ratio)), 1 / FOLDS + 1 / (FOLDS - 1)
    luck = draw.normal(size=(studies, 1)) * np.sqrt(ratio / FOLDS)
    luck = luck + draw.normal(size=(studies, FOLDS)) * np.sqrt(ratio * (1 - 1 / FOLDS))
    each = luck[:, None, :] + draw.normal(size=(studies, NETWORKS, FOLDS)) * np.sqrt(NETWORKS)
    contrast, found = each.mean(axis=1), []
    of_rows = stats.norm.ppf(0.975) ** 2
    for spread, df in (
        (each.var(axis=2, ddof=1).mean(axis=1) / NETWORKS, NETWORKS * (FOLDS - 1)),
        (contrast.var(axis=1, ddof=1), FOLDS - 1),
    ):
        both = of_rows * (1 / FOLDS - factor) + stats.t.ppf(0.975, df) ** 2 * factor * spread
        found.append(float((np.abs(contrast.mean(axis=1)) > np.sqrt(np.maximum(of_rows / FOLDS, both))).mean()))
    return found[0], found[1]


def main() -> None:
    """Prints the table of docs/statistics.md and writes results/planned_contrasts.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STUDIES} studies a cell, to see that it runs")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--pooled", action="store_true", help="only the false positives of a spread pooled over networks")
    asked = parser.parse_args()
    if asked.pooled:
        for ratio in (0.0, 0.25, 1.0, 4.0):
            pooled, own = (100 * rate for rate in pooled_rates(ratio))
            print(f"ρ {ratio:g}: pooled over networks {pooled:.1f}, its own {own:.1f}")
        return
    cells = []
    asked.output.mkdir(parents=True, exist_ok=True)
    print("| rows, rounds, τ | found | alone | on new rows | false, secondary | primary | on new rows | ± | wins | pairs |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for cell in measure_cells(*((QUICK_STUDIES, 1) if asked.quick else (STUDIES, PAIR_STUDIES))):
        cells.append(asdict(cell))
        rates = (cell.found, cell.alone, cell.found_on_rows, cell.false_secondary)
        rates += (cell.false_primary, cell.false_on_rows)
        shared = " shared" if cell.is_shared else ""
        columns = [f"{cell.rows:,}, {cell.rounds} × 5, {100 * cell.tau:g}{shared}", *(f"{rate:g}" for rate in rates)]
        columns += [f"{100 * cell.half_width:.2f}", f"{cell.wins:.1f}", f"{cell.pairs_found:g}"]
        print(f"| {' | '.join(columns)} |", flush=True)
        (asked.output / "planned_contrasts.json").write_text(json.dumps(cells, indent=1) + "\n")  # what is finished is kept


if __name__ == "__main__":
    main()

"""Studies of noise, real learners on shuffled labels: the page concludes that nothing differs, whatever the number of candidates.

What makes noise hard is here: all folds of all candidates learn from the same rows, the best of many is looked at, and the labels
are balanced, so that a held-out row is a little more often of the class that is rarer in its training rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phoropter.report.conclusion import write_conclusion
from phoropter.report.summary import compare
from phoropter.report.summary.collect import collect_summary
from phoropter.results.store import Predictions, Store

ROWS, WIDTH, USED, FOLDS, MOST = 120, 48, 12, 5, 8
SEEDS = range(20)


def learned(seed: int, folds: int = FOLDS, truth: float = 0.0) -> tuple[Any, list[tuple[int, int, Any, Any]]]:
    """Labels (ROWS,), shuffled, and for each candidate and fold its rows and logits: nearest centroids on features of its own.

    truth: how far the classes lie apart in the features of the first candidate; 0: nowhere
    """
    draw = np.random.default_rng(seed)
    labels = draw.permutation(np.arange(ROWS) % 2)
    features = draw.normal(size=(ROWS, WIDTH))
    fold_of = draw.permutation(np.arange(ROWS) % folds)
    found = []
    for candidate in range(MOST):
        own = features[:, draw.choice(WIDTH, USED, replace=False)]
        if candidate == 0:
            own = own + truth * labels[:, None]
        for fold in range(folds):
            train, test = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
            centres = np.stack([own[train][labels[train] == k].mean(0) for k in (0, 1)])
            logits = -((own[test][:, None] - centres) ** 2).sum(2)
            found.append((candidate, fold, test, logits.astype(np.float32)))
    return labels, found


def write(folder: Path, seed: int, truth: float = 0.0) -> tuple[Store, list[dict[str, Any]]]:
    """The results folder of a study with MOST candidates, through Store alone, and its plan."""
    labels, answers = learned(seed, truth=truth)
    store, plan = Store(folder), []
    for candidate, fold, test, logits in answers:
        part = {"repeat": 0, "fold": fold, "folds": FOLDS, "n_train": ROWS - len(test), "n_test": len(test)}
        key = f"{seed:016x}{candidate:08x}{fold:08x}"
        plan.append({"key": key, "candidate": f"net {candidate}", "seed": 0, "split": f"fold {fold}", "settings": {}, **part})
        with store.create_run(key) as run:
            run.write_predictions(Predictions(np.array([f"{row:04d}" for row in test]), labels[test], logits))
            run.write_record(
                {"candidate": {"name": f"net {candidate}"}, "seed": 0, "split": part, "classes": ["a", "b"], "cost": {}}
            )
    return store, plan


def concluded(store: Store, plan: list[dict[str, Any]], candidates: int, metric: str = "accuracy") -> str:
    """What the page would say of the first so many candidates."""
    names = {f"net {n}" for n in range(candidates)}
    study = {"protocol": "stratified-k-fold", "metrics": [metric]}
    store.write_study({"study": study, "plan": [row for row in plan if row["candidate"] in names]})
    summary = collect_summary(store)
    return " ".join(write_conclusion(summary, compare.compare_candidates(store, summary))[0])


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Store, list[dict[str, Any]]]]:
    folder = tmp_path_factory.mktemp("noise")
    return [write(folder / str(seed), seed) for seed in SEEDS]


@pytest.mark.parametrize("candidates", [2, 4, MOST])
def test_a_study_of_noise_concludes_that_nothing_differs(noise: Any, candidates: int) -> None:
    said = [concluded(store, plan, candidates) for store, plan in noise]
    assert sum("is ahead of" in words for words in said) <= 1
    quiet = [words for words in said if "is ahead of" not in words]
    assert all("finds no candidate ahead" in words or "This protocol cannot tell " in words for words in quiet)
    assert sum(words.startswith("No candidate is clearly better than the majority-class baseline (5") for words in said) >= 19


def test_the_table_of_pairs_calls_none_ahead_either(noise: Any) -> None:
    """By rows alone 15 in 100 pairs of noise would be: folds that learn from each other's rows do not err independently."""
    alone = ahead = 0
    for store, plan in noise:
        concluded(store, plan, 2)
        summary = collect_summary(store)
        (pair,) = compare.compare_candidates(store, summary).pairs
        alone += pair.rows.result.p <= 0.05
        ahead += pair.verdict == "ahead"
        assert pair.is_guessing
    assert alone >= 1 and ahead == 0


def test_the_auc_of_noise_is_compared_with_chance(noise: Any) -> None:
    said = [concluded(store, plan, MOST, "roc_auc") for store, plan in noise[:5]]
    assert all("clearly better than chance" in words and "is ahead of" not in words for words in said)


def test_a_real_difference_among_noise_is_found(tmp_path: Path) -> None:
    """One candidate that sees something among seven that do not."""
    said = [concluded(*write(tmp_path / str(seed), seed, truth=0.9), MOST) for seed in (0, 1)]
    assert all(words.startswith("net 0 is ahead of ") and "clearly better" not in words for words in said)

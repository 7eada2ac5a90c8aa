"""The best of many, corrected for the choice: against a literal computation, and without bias on made studies."""

from __future__ import annotations

import numpy as np
import pytest

from phoropter.core.seeds import named_generator
from phoropter.results.metrics.sufficient_sums import Floats
from phoropter.results.questions.selection import correct_selected_best


def answers(rng: np.random.Generator, truth: Floats, rows: int, shared: float) -> Floats:
    """(C, N) right or wrong, of candidates with these true accuracies; errors share a part of their causes."""
    common = rng.normal(size=rows)
    hidden = np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.normal(size=(len(truth), rows))
    from scipy.special import ndtri

    return (hidden < ndtri(truth)[:, None]).astype(np.float64)


def of_accuracy(right: Floats) -> tuple[Floats, Floats]:
    """Values, and derivatives by the weights of the rows."""
    values = right.mean(axis=1)
    return values, (right - values[:, None]) / right.shape[1]


def literal(right: Floats, resamples: int, seed: int) -> float:
    """The published procedure, row by row: choose on the rows drawn, score on those left out."""
    draw, out = named_generator(seed, "selection"), []
    n = right.shape[1]
    for counts in draw.multinomial(n, np.full(n, 1 / n), size=resamples):
        chosen = int(np.argmax((right * counts).sum(axis=1) / n))
        out.append(right[chosen, counts == 0].mean())
    return float(np.mean(out))


def test_it_is_the_published_procedure_but_for_the_noise_of_the_draws() -> None:
    right = answers(np.random.default_rng(1), np.full(12, 0.8), 90, 0.3)
    found = correct_selected_best(*of_accuracy(right), higher_is_better=True, resamples=3000)
    assert found is not None and found.n_candidates == 12 and found.plain == right.mean(axis=1).max()
    assert found.corrected == pytest.approx(literal(right, 3000, 0), abs=0.004) and found.corrected < found.plain - 0.01


def test_of_a_metric_where_less_is_better_the_correction_goes_up() -> None:
    right = answers(np.random.default_rng(2), np.full(12, 0.8), 90, 0.3)
    values, slopes = of_accuracy(right)
    up, down = (correct_selected_best(s * values, s * slopes, s > 0) for s in (1, -1))
    assert up and down and down.corrected == pytest.approx(-up.corrected) and down.corrected > down.plain


def test_a_candidate_that_is_always_best_is_not_corrected() -> None:
    right = answers(np.random.default_rng(3), np.array([0.6, 0.95, 0.6]), 400, 0.0)
    found = correct_selected_best(*of_accuracy(right), higher_is_better=True)
    assert found is not None and found.corrected == found.plain == right[1].mean() and found.share_best == 1


def test_one_candidate_few_units_and_undefined_values_have_none() -> None:
    right = answers(np.random.default_rng(4), np.array([0.6, 0.8]), 50, 0.0)
    values, slopes = of_accuracy(right)
    assert correct_selected_best(values[:1], slopes[:1], True) is None
    assert correct_selected_best(values, slopes[:, :2], True) is None
    assert correct_selected_best(np.array([np.nan, 0.5]), slopes, True) is None


@pytest.mark.parametrize(("truth", "rows"), [(np.full(20, 0.8), 100), (np.linspace(0.7, 0.8, 10), 60)])
def test_the_bias_of_the_winner_is_removed(truth: Floats, rows: int) -> None:
    """Mean over 150 made studies of estimate − true accuracy of the candidate that was chosen."""
    rng, plain, corrected = np.random.default_rng(5), [], []
    for _ in range(150):
        right = answers(rng, truth, rows, 0.3)
        found = correct_selected_best(*of_accuracy(right), higher_is_better=True, resamples=200)
        assert found is not None
        true = truth[int(right.mean(axis=1).argmax())]
        plain.append(found.plain - true)
        corrected.append(found.corrected - true)
    assert np.mean(plain) > 0.025 and abs(np.mean(corrected)) < 0.4 * np.mean(plain)

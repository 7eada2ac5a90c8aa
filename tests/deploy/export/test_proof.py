"""The comparison finds planted differences, whatever the batch size at which they show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_bundles import draw_squares, make_bundle, make_reference

from phoropter.data.images.pixels import InMemoryPixels
from phoropter.deploy.export.proof import BATCHES, Difference, ProofInputs, Reference, compute_reference, measure_difference
from phoropter.deploy.predict import make_square_predictor
from phoropter.results.metrics.probabilities import softmax


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return make_reference(make_bundle(tmp_path_factory.mktemp("bundles") / "b", temperature=2.0), 16)


def answer_from(reference: Reference, change: Any = lambda logits, probabilities: None, only: int | None = None) -> Any:
    """A file that knows the answers, changed in place by `change`, in batches of `only` rows (None: in all)."""
    rows = {square.tobytes(): row for row, square in enumerate(reference.inputs.squares)}

    def run(squares: Any) -> tuple[Any, Any]:
        found = [rows[square.tobytes()] for square in squares]
        logits, probabilities = reference.logits[found].astype(float), reference.probabilities[found].copy()
        if only in (None, len(squares)):
            change(logits, probabilities)
        return logits, probabilities

    return run


def test_the_reference_is_what_the_bundle_predicts(tmp_path: Path) -> None:
    bundle, squares = make_bundle(tmp_path / "b", temperature=3.0), draw_squares(8)
    found = compute_reference(bundle, ProofInputs(squares, "drawn"), None)
    import torch

    logits = make_square_predictor(bundle, torch.device("cpu"))(InMemoryPixels(squares))
    np.testing.assert_allclose(found.logits, logits, atol=1e-6)
    np.testing.assert_allclose(found.probabilities, softmax(logits / 3.0), atol=1e-6)


def test_equal_outputs_are_accepted(reference: Reference) -> None:
    difference = measure_difference(answer_from(reference), reference)
    assert difference == Difference(0.0, 0.0, 0) and difference.is_small


@pytest.mark.parametrize("size", [None, *BATCHES])
def test_a_difference_is_found_at_whatever_batch_size_it_shows(reference: Reference, size: int | None) -> None:
    def change(logits: Any, probabilities: Any) -> None:
        probabilities[-1] += [3e-4, -3e-4, 0]
        logits[-1] += 0.5

    difference = measure_difference(answer_from(reference, change, size), reference)
    assert difference.probability == pytest.approx(3e-4) and difference.logit == pytest.approx(0.5)
    assert not difference.is_small and "a probability differs by 0.0003" in difference.describe()


def test_another_answer_is_refused_however_near_the_probabilities_are() -> None:
    close = np.array([[0.400002, 0.4, 0.199998]] * 7)
    near = Reference(ProofInputs(draw_squares(7), "drawn"), np.log(close).astype(np.float32), close)
    swapped = close[:, [1, 0, 2]]
    difference = measure_difference(lambda squares: (np.log(swapped[: len(squares)]), swapped[: len(squares)]), near)
    assert difference.probability < 1e-4 and difference.answers == 7 and not difference.is_small


@pytest.mark.parametrize("bad", ["nan", "short"])
def test_outputs_that_are_no_probabilities_are_refused(reference: Reference, bad: str) -> None:
    def run(squares: Any) -> tuple[Any, Any]:
        logits, probabilities = answer_from(reference)(squares)
        return (logits, probabilities * np.nan) if bad == "nan" else (logits[:1], probabilities[:, :2])

    assert not measure_difference(run, reference).is_small


def test_few_inputs_are_repeated_so_that_the_largest_batch_is_full(tmp_path: Path) -> None:
    found = compute_reference(make_bundle(tmp_path / "b"), ProofInputs(draw_squares(3), "drawn"), None)
    assert len(found.inputs.squares) == max(BATCHES) and np.array_equal(found.logits[3], found.logits[0])

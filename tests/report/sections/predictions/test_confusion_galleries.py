"""Pictures by confusion: a run keeps the surest answers of its frequent confusions, the page shows them by pair."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from made_study import Made, make_study

from phoropter.data.images.pixels import Pixels
from phoropter.report.sections.predictions.mistakes import build_gallery
from phoropter.report.summary.collect import collect_summary
from phoropter.results.store import Predictions
from phoropter.study.records.run_record import MAX_MISTAKES, encode_examples


class GreyPixels:
    """Of every row a square of one grey."""

    def batch(self, rows: np.ndarray) -> np.ndarray:
        return np.repeat(rows.astype(np.uint8)[:, None], 3 * 8 * 8, 1).reshape(-1, 3, 8, 8)


def test_a_run_keeps_the_surest_answers_of_a_confusion_that_is_frequent_but_unsure() -> None:
    """Sixteen sure answers of one confusion, then six unsure ones of another: two of these are kept as well."""
    labels = np.repeat([0, 1, 2], [16, 6, 8])
    answers = np.repeat([1, 2, 2], [16, 6, 8])
    sure = np.concatenate([np.linspace(9, 8, 16), np.linspace(3, 2, 6), np.full(8, 5.0)])
    logits = np.zeros((30, 3), np.float32)
    logits[np.arange(30), answers] = sure
    held_out = Predictions(np.array([f"r{i:02d}" for i in range(30)]), labels, logits)
    pixels: Pixels = GreyPixels()  # type: ignore[assignment]
    kept = encode_examples(held_out, np.arange(30), pixels)
    of_unsure = sorted(name for name in kept if 16 <= int(name[1:]) < 22)
    assert of_unsure == ["r16", "r17"], "the surest two of 1 answered as 2"
    assert len([n for n in kept if int(n[1:]) < 16]) == MAX_MISTAKES


def test_the_page_shows_the_most_frequent_confusions_with_their_pictures(tmp_path: Path) -> None:
    made = Made(accuracies={"a": 0.7}, classes=("ice", "hill", "road"), rows=240, folds=2, seeds=(0,), pictures=60, epochs=1)
    store = make_study(tmp_path, made)
    summary = collect_summary(store)
    (candidate,) = summary.candidates
    off = candidate.confusion * (1 - np.eye(3, dtype=int))
    true, predicted = divmod(int(off.argmax()), 3)
    examples = candidate.confused[true, predicted]
    assert 0 < len(examples) <= 3 and all((e.true_class, e.predicted_class) == (true, predicted) for e in examples)
    assert [e.confidence for e in examples] == sorted((e.confidence for e in examples), reverse=True)
    runs = [r for run in store.runs() if (r := run.load_predictions()) is not None]
    sure = [p.probabilities.max(1)[(p.labels == true) & (p.logits.argmax(1) == predicted)] for p in runs]
    assert examples[0].confidence == float(np.concatenate(sure).max()), "the surest over all runs"
    shown = [str(block) for block in build_gallery(store, candidate, summary.classes, (12, 6), 2_500_000)]
    heading = f"<h3>{summary.classes[true]}, predicted as {summary.classes[predicted]}</h3>"
    (row,) = [block for block in shown if heading in block]
    assert row.count("<img ") == len(examples) and all(e.id in row for e in examples)
    assert not any("<img " in str(block) for block in build_gallery(store, candidate, summary.classes, (12, 6), 0))

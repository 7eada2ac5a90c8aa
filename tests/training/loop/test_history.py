"""Rows of a training history."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import log_loss

from phoropter.training.loop.history import make_history_row, validation_metrics


def test_a_row_rounds_its_seconds_and_counts_images_a_second() -> None:
    row = make_history_row(2, "head", learning_rate=0.1, loss=0.5, accuracy=0.75, seconds=1.23456, images=100)
    assert list(row) == ["epoch", "phase", "learning_rate", "train_loss", "train_accuracy", "seconds", "images_per_s"]
    assert row["seconds"] == 1.235 and row["images_per_s"] == 81.0
    assert make_history_row(1, "all", learning_rate=0, loss=0, accuracy=0, seconds=0, images=5)["images_per_s"] == 0.0


def test_validation_metrics_are_scikit_learns() -> None:
    logits = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    labels = np.arange(40) % 3
    found = validation_metrics(logits, labels)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert found["validation_loss"] == pytest.approx(log_loss(labels, probabilities), rel=1e-5)
    assert found["validation_accuracy"] == (logits.argmax(1) == labels).mean()

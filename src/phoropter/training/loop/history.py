"""Rows of a training history: the figures of one epoch, the same whichever way the run was trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

HistoryRow = dict[str, Any]


def make_history_row(
    epoch: int, phase: str, *, learning_rate: float, loss: float, accuracy: float, seconds: float, images: float
) -> HistoryRow:
    """The row of an epoch (counted from 1). loss, accuracy: means over the training images · images: how many were shown"""
    return {
        "epoch": epoch,
        "phase": phase,
        "learning_rate": learning_rate,
        "train_loss": loss,
        "train_accuracy": accuracy,
        "seconds": round(seconds, 3),
        "images_per_s": round(images / seconds, 1) if seconds else 0.0,
    }


def validation_metrics(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
    """(n, C) logits and (n,) labels, or (n, C) of several a row, of the inner validation part → the columns it adds to a row.

    The loss is cross-entropy, whatever loss is trained, so that epochs of any recipe are selected by the same figure.
    """
    z, y = torch.from_numpy(logits), torch.from_numpy(labels)
    if y.ndim == 2:
        loss, accuracy = F.binary_cross_entropy_with_logits(z, y.to(z.dtype)), ((z > 0) == (y == 1)).double().mean()
    else:
        loss, accuracy = F.cross_entropy(z, y), (z.argmax(1) == y).double().mean()
    return {"validation_loss": float(loss), "validation_accuracy": float(accuracy)}

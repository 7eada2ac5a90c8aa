"""Trains the network on the samples of windows (baseline `signal-1d`) on one split, by the loop that trains networks of pictures.

Samples of a cardiotocogram keep their level, which obstetricians read: they are standardised by the mean and deviation of the
training rows, channel by channel. Samples of other channels are standardised window by window, since amplitude and offset of an
ECG are the electrodes'. What was not measured is then 0, the mean.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phoropter.core.seeds import seed_of
from phoropter.data.dataset import Dataset
from phoropter.models.signals.signal_network import SignalNetwork
from phoropter.training.augmentation.device_arrays import send_array
from phoropter.training.batches.loading import Batch
from phoropter.training.fit import TrainingTask, make_batch_sampler
from phoropter.training.loop.history import HistoryRow, validation_metrics
from phoropter.training.loop.losses import Criterion, compute_class_weights
from phoropter.training.loop.precision import autocast_context, resolve_autocast_dtype
from phoropter.training.loop.training_loop import StepProgress, TrainingSetup, ValidationFunction, train
from phoropter.training.tables.signal_windows import SignalWindows, open_signal_windows
from phoropter.training.tables.table_fit import FittedTable

Rows = NDArray[np.int64]
_READ_ROWS = 256  # windows in memory at once where they are predicted or measured


@dataclass(frozen=True, eq=False)
class SignalLoader:
    """Standardised samples of windows as batches. scale: (K, 1) mean and deviation of the training rows; None: of each window."""

    dataset: Dataset
    windows: SignalWindows
    scale: tuple[NDArray[np.float32], NDArray[np.float32]] | None
    device: torch.device
    depends_on_batch = False

    def load_samples(self, rows: Rows) -> torch.Tensor:
        """(m,) rows → (m, K, T) float32 without a missing value."""
        samples = np.asarray(self.windows.samples[rows])
        mean, deviation = self.scale or _measure_scale(samples)
        standardised = (samples - mean) / deviation
        return torch.from_numpy(np.nan_to_num(standardised, nan=0.0).astype(np.float32)).to(self.device)

    def batch(self, rows: Rows, epoch: int, index: int) -> Batch:
        return Batch(rows, self.load_samples(rows), send_array(self.dataset.labels[rows], self.device))


def make_signal_loader(dataset: Dataset, windows: SignalWindows, train_rows: Rows, device: torch.device) -> SignalLoader:
    """The loader of one split: of samples with fixed units, mean and deviation are those of the training rows."""
    if not windows.has_fixed_units:
        return SignalLoader(dataset, windows, None, device)
    count = np.zeros((windows.samples.shape[1], 1))
    total, squares = count.copy(), count.copy()
    for start in range(0, len(train_rows), _READ_ROWS):
        block = np.asarray(windows.samples[train_rows[start : start + _READ_ROWS]], np.float64)
        measured = np.isfinite(block)
        filled = np.where(measured, block, 0)
        for sums, values in ((count, measured), (total, filled), (squares, filled**2)):
            sums += values.sum(axis=(0, 2))[:, None]
    mean = total / np.maximum(count, 1)
    deviation = np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, 0))
    scale = mean.astype(np.float32), _replace_zero(deviation.astype(np.float32))
    return SignalLoader(dataset, windows, scale, device)


def _measure_scale(samples: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(m, K, T) → (m, K, 1) mean and deviation of the measured samples of each channel of each window."""
    measured = np.isfinite(samples)
    count = np.maximum(measured.sum(axis=2, keepdims=True), 1)
    filled = np.where(measured, samples, 0)
    mean = filled.sum(axis=2, keepdims=True) / count
    squares = np.where(measured, (filled - mean) ** 2, 0).sum(axis=2, keepdims=True) / count
    return mean, _replace_zero(np.sqrt(squares))


def _replace_zero(deviation: NDArray[Any]) -> NDArray[Any]:
    """1 where a channel does not move, so that it is 0 throughout."""
    return np.where(deviation > 0, deviation, 1).astype(np.float32)


def fit_signal_network(task: TrainingTask) -> Generator[StepProgress | HistoryRow, None, FittedTable]:
    """Trains it on the training rows of the task's split; yields progress and a history row an epoch.

    A stopped training goes on from its checkpoint to the same bits on a CPU. Raises DivergedError, DiskError, and DataError for
    a dataset without recordings.
    """
    recipe, split, dataset, device = task.candidate.recipe, task.split, task.dataset, task.device
    windows = open_signal_windows(dataset, task.cache, task.progress)
    loader = make_signal_loader(dataset, windows, split.train, device)
    dtype = resolve_autocast_dtype(recipe, device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        began = time.monotonic()
        model = SignalNetwork(len(windows.channels), len(dataset.classes), seed=seed_of(split.seed, "weights")).to(device)
        weights = compute_class_weights(recipe.loss, dataset.labels[split.train], dataset.classes)
        criterion = Criterion(recipe.loss, None if weights is None else weights.to(device))

        def compute_loss(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
            assert isinstance(batch.inputs, torch.Tensor)
            logits = model(batch.inputs)
            return criterion(logits, batch.labels, part=batch.part), logits

        def predict(rows: Rows) -> NDArray[np.float32]:
            return _predict_windows(model, loader, rows, dtype)

        def predict_other(other: Dataset, rows: Rows) -> NDArray[np.float32]:
            samples = open_signal_windows(other, task.cache, task.progress)
            return _predict_windows(model, replace(loader, dataset=other, windows=samples), rows, dtype)

        setup = TrainingSetup(loader, make_batch_sampler(task), compute_loss, _make_validation(task, predict))
        state = yield from train(model, recipe, setup, task.checkpoints, device)
    chosen = state.best_epoch if recipe.checkpoint == "best-val" else recipe.total_epochs
    return FittedTable(
        split,
        predict,
        sum(p.numel() for p in model.parameters()),
        time.monotonic() - began,
        {"signal": describe_signal(windows), "precision": str(dtype).removeprefix("torch.")},
        history=state.history,
        choice=(chosen, recipe.checkpoint),
        device=device,
        predict_other=predict_other,
    )


def _make_validation(task: TrainingTask, predict: Callable[[Rows], NDArray[np.float32]]) -> ValidationFunction | None:
    """None where the protocol cuts no validation part off."""
    rows = task.split.val
    if rows is None or not len(rows):
        return None
    return lambda: validation_metrics(predict(rows), task.dataset.labels[rows])


@torch.inference_mode()
def _predict_windows(model: SignalNetwork, loader: SignalLoader, rows: Rows, dtype: torch.dtype) -> NDArray[np.float32]:
    """(m,) rows → (m, C) float32 logits."""
    model.eval()
    found = [torch.empty(0, len(loader.dataset.classes))]
    for start in range(0, len(rows), _READ_ROWS):
        with autocast_context(loader.device, dtype):
            found.append(model(loader.load_samples(rows[start : start + _READ_ROWS])).float().cpu())
    return torch.cat(found).numpy()


def describe_signal(windows: SignalWindows) -> dict[str, Any]:
    """What the record says of the samples: channels, how many of which rate, and what standardised them."""
    return {
        "channels": list(windows.channels),
        "samples": int(windows.samples.shape[2]),
        "rate_hz": round(windows.rate_hz, 4),
        "standardised_by": "training rows" if windows.has_fixed_units else "window",
    }

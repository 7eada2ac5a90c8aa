"""Predicts rows of a dataset with a Classifier, from pixels, with test-time augmentation, or from cached features."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from phoropter.data.images.pixels import Pixels
from phoropter.models.classifier import Classifier
from phoropter.models.fusion import log_mean_probability
from phoropter.training.batches.gpu_pixels import load_pictures_on_device
from phoropter.training.candidates.recipe import TtaViews
from phoropter.training.costs.inference_batch import choose_inference_batch
from phoropter.training.loop.precision import autocast_context
from phoropter.training.malloc import tune_malloc

HEAD_ROWS = 128  # rows of stored features that a head is given at once


@torch.inference_mode()
def predict_from_pixels(
    model: Classifier,
    pixels: Pixels,
    rows: NDArray[np.int64],
    device: torch.device,
    views: TtaViews = "none",
    dtype: torch.dtype = torch.float32,
) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
    """(n,) rows → (n, C) float32 logits and (n, D) float16 features of the last layer.

    The probabilities of several views are averaged and returned as log-probabilities (Krizhevsky et al. 2012, §4.1).
    """
    tune_malloc()
    model.eval()
    logits, features = [], []
    for some in split_into_batches(model, rows, device):
        pictures = load_pictures_on_device(pixels, some, device)
        with autocast_context(device, dtype):
            seen = [model.forward_outputs(view) for view in make_tta_views(pictures, views, model.spec.center_crop)]
        logits.append(average_views([s.logits.float() for s in seen], model.spec.multi_label))
        features.append(torch.stack([s.features.float() for s in seen]).mean(0).clamp(-65504, 65504).half())
    return torch.cat(logits).cpu().numpy(), torch.cat(features).cpu().numpy()  # the host waits for the device once


def inference_batch(model: Classifier, device: torch.device) -> int:
    """Images that the classifier is given at once where it predicts: by its largest input and the kind of device."""
    return choose_inference_batch(max(branch.side for branch in model.branches), device.type)


def split_into_batches(model: Classifier, rows: NDArray[np.int64], device: torch.device) -> list[NDArray[np.int64]]:
    """(n,) rows → the rows of each batch in which they are predicted, in order."""
    size = inference_batch(model, device)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


@torch.inference_mode()
def predict_from_features(
    model: Classifier, stored: tuple[NDArray[np.float32], ...], rows: NDArray[np.int64], device: torch.device
) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
    """As `predict_from_pixels` with one view, from each branch's cached (N, D) features, float32 or float16."""
    model.head.eval()  # nothing else is used; a backbone has hundreds of modules to walk through, once for each of many heads
    logits, features = [], []
    for start in range(0, len(rows), HEAD_ROWS):
        some = rows[start : start + HEAD_ROWS]
        out = model.forward_head(tuple(torch.from_numpy(f[some]).to(device).float() for f in stored))
        logits.append(out.logits.float())
        features.append(out.features.float().clamp(-65504, 65504).half())
    return torch.cat(logits).cpu().numpy(), torch.cat(features).cpu().numpy()


def make_tta_views(pictures: torch.Tensor, views: TtaViews, crop: int | None) -> list[torch.Tensor]:
    """(B, 3, S, S) → the views whose probabilities are averaged: one, two, or ten (four corners, centre, all mirrored)."""
    if views == "none":
        return [pictures]
    if views == "flip":
        return [pictures, pictures.flip(-1)]
    assert crop is not None
    slack = pictures.shape[-1] - crop
    corners = [(0, 0), (0, slack), (slack, 0), (slack, slack), (slack // 2, slack // 2)]
    crops = [pictures[..., y : y + crop, x : x + crop] for y, x in corners]
    return [view for c in crops for view in (c, c.flip(-1))]


def average_views(logits: list[torch.Tensor], multi_label: bool = False) -> torch.Tensor:
    """(B, C) logits of each view → (B, C): those of one view, of several the log of their mean probabilities."""
    if len(logits) == 1:
        return logits[0]
    if multi_label:
        return log_mean_probability(logits, multi_label=True)
    return torch.stack(logits).softmax(-1).mean(0).clamp_min(1e-30).log()

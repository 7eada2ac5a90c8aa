"""Images on the device: on a GPU an image set that fits stays there as bytes; any other is sent batch by batch.

A set is sent once per process, however many runs read it, and is dropped when the next one is sent.
"""

from __future__ import annotations

import threading

import numpy as np
import torch
from numpy.typing import NDArray

from phoropter.data.images.pixels import Pixels
from phoropter.training.augmentation.device_arrays import send_array

MAX_MEMORY_SHARE = 0.4  # of the device's free memory that images may take when they are first read
CHUNK_BYTES = 256 * 1024**2

_resident_sets: dict[tuple[str, str], torch.Tensor | None] = {}
_lock = threading.Lock()


def load_pictures_on_device(pixels: Pixels, rows: NDArray[np.int64], device: torch.device) -> torch.Tensor:
    """(B,) rows → (B, 3, S, S) uint8 on the device."""
    resident = resident_pictures(pixels, device)
    if resident is not None:
        return resident.index_select(0, send_array(rows, device))
    return send_array(pixels.batch(rows), device)


def resident_pictures(pixels: Pixels, device: torch.device) -> torch.Tensor | None:
    """(N, 3, S, S) uint8 on the GPU, sent at the first call; None on other devices, and for a set that does not fit."""
    if device.type != "cuda" or not pixels.stored:
        return None
    key = (pixels.identity, str(device))
    with _lock:
        if key not in _resident_sets:
            _resident_sets.clear()
            free, _ = torch.cuda.mem_get_info(device)
            _resident_sets[key] = (
                copy_all_to_device(pixels, device) if int(np.prod(pixels.shape)) <= MAX_MEMORY_SHARE * free else None
            )
        return _resident_sets[key]


def copy_all_to_device(pixels: Pixels, device: torch.device) -> torch.Tensor:
    """All images as one tensor on the device, sent in parts of CHUNK_BYTES."""
    step = max(1, CHUNK_BYTES // int(np.prod(pixels.shape[1:])))
    with torch.inference_mode(False):  # prediction may be the first to send a set, and training must be able to use it
        images = torch.empty(pixels.shape, dtype=torch.uint8, device=device)
        for start in range(0, len(pixels), step):
            rows = np.arange(start, min(start + step, len(pixels)), dtype=np.int64)
            images[start : start + step].copy_(torch.from_numpy(pixels.batch(rows)))
    return images

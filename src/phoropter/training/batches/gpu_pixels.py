"""Pictures on the device: on a GPU a set that fits stays there as bytes; any other is sent a batch at a time.

A set is sent once in a process, whatever the number of runs that look at it, and makes room for the next one.
"""

from __future__ import annotations

import threading

import numpy as np
import torch
from numpy.typing import NDArray

from phoropter.data.images.pixels import Pixels

MAX_MEMORY_SHARE = 0.4  # of the device's free memory that pictures may take when they are first asked for
CHUNK_BYTES = 256 * 1024**2

_resident_sets: dict[tuple[str, str], torch.Tensor | None] = {}
_lock = threading.Lock()


def load_pictures_on_device(pixels: Pixels, rows: NDArray[np.int64], device: torch.device) -> torch.Tensor:
    """(B,) rows → (B, 3, S, S) uint8 on the device."""
    held = resident_pictures(pixels, device)
    if held is not None:
        return held.index_select(0, torch.from_numpy(rows).to(device))
    pictures = torch.from_numpy(pixels.batch(rows))
    if device.type != "cuda":
        return pictures.to(device)
    return pictures.pin_memory().to(device, non_blocking=True)  # torch keeps the pinned copy until it has been sent


def resident_pictures(pixels: Pixels, device: torch.device) -> torch.Tensor | None:
    """(N, 3, S, S) uint8 on the GPU, sent when first asked for; None on other devices, and for a set that does not fit."""
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
    """All pictures as one tensor on the device, sent in parts."""
    step = max(1, CHUNK_BYTES // int(np.prod(pixels.shape[1:])))
    with torch.inference_mode(False):
        whole = torch.empty(pixels.shape, dtype=torch.uint8, device=device)
        for start in range(0, len(pixels), step):
            rows = np.arange(start, min(start + step, len(pixels)), dtype=np.int64)
            whole[start : start + step].copy_(torch.from_numpy(pixels.batch(rows)))
    return whole

"""Arrays of the host as tensors on a device, without waiting for it."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray


def send_array(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """An array as a tensor on the device. A GPU is not waited for, which a copy from unpinned memory would do."""
    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)  # torch keeps the pinned copy alive until it is sent

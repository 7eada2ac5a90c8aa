"""Arrays arrive on the device as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from phoropter.training.augmentation.device_arrays import send_array


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, np.float32])
def test_an_array_keeps_type_and_values(dtype: type) -> None:
    array: np.ndarray[Any, Any] = np.arange(12).reshape(3, 4).astype(dtype)
    tensor = send_array(array, torch.device("cpu"))
    assert tensor.shape == (3, 4) and np.array_equal(tensor.numpy(), array) and tensor.numpy().dtype == array.dtype


@pytest.mark.gpu
def test_a_gpu_gets_it_without_being_waited_for() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    array = np.arange(10**6)
    send_array(array, torch.device("cuda"))  # the first pinned memory
    torch.cuda.set_sync_debug_mode("error")
    try:
        tensor = send_array(array, torch.device("cuda"))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert np.array_equal(tensor.cpu().numpy(), array)

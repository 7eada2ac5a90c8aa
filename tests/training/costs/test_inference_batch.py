"""The batch of a prediction is a function of the input's side and the kind of device, and of nothing else."""

from __future__ import annotations

import pytest

from phoropter.training.costs.inference_batch import choose_inference_batch


@pytest.mark.parametrize(
    ("side", "processor", "gpu"),
    [
        (8, 256, 256),
        (32, 256, 256),
        (64, 128, 256),
        (96, 64, 256),
        (224, 16, 128),
        (384, 4, 32),
        (518, 2, 16),
        (1024, 1, 4),
        (4096, 1, 1),
    ],
)
def test_a_batch_holds_about_as_many_pixels_at_every_side(side: int, processor: int, gpu: int) -> None:
    assert choose_inference_batch(side, "cpu") == processor
    assert choose_inference_batch(side, "cuda") == choose_inference_batch(side, "mps") == gpu


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_batches_are_powers_of_two_within_the_pixels_allowed(device: str) -> None:
    allowed = {"cpu": 16, "cuda": 128}[device] * 224**2
    for side in range(8, 4097):
        batch = choose_inference_batch(side, device)
        assert batch & (batch - 1) == 0 and 1 <= batch <= 256
        assert batch == 1 or batch * side**2 <= allowed
        assert batch == 256 or 2 * batch * side**2 > allowed  # the next power of two would be too many

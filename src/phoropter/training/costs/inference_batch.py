"""How many images a network is given at once where nothing is trained: feature passes and predictions. No torch here.

The sums of a convolution may differ in the last bit between batch sizes, so the batch is part of the numbers. It depends on the
side of the network's input and the kind of device, and never on the memory that happens to be free: two machines of one kind give
the same batches. On a processor 16 images of 224 pixels are as fast as 256 and take a sixteenth of the activations.
"""

from __future__ import annotations

PROCESSOR_PIXELS = 16 * 224**2  # of all images of a batch together
GPU_PIXELS = 128 * 224**2
MAX_BATCH = 256


def choose_inference_batch(side: int, device_type: str) -> int:
    """Images in a batch, a power of two from 1 to 256. side: of the network's input, in pixels · device_type: cpu, cuda, mps"""
    fitting = (PROCESSOR_PIXELS if device_type == "cpu" else GPU_PIXELS) // side**2
    return min(1 << max(fitting.bit_length() - 1, 0), MAX_BATCH)

"""One backbone of a frozen classifier as ONNX Runtime computes it on a processor, from normalised images to features.

The runtime joins a convolution, its norm and its activation into one pass over each map, and lays weights out for the processor.
What torch writes is run and compared with the network before it is used: its exporter has had faults that random weights hide
(pytorch issues 166797 and 169178).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from phoropter.core.errors import SpecError, cut_message
from phoropter.models.backbones import BackboneModule
from phoropter.models.inference.onnx_exporter import MAX_ONNX_BYTES, quiet_exporter, require_onnx_packages

MAX_DIFFERENCE = 1e-4  # of a feature, relative to the largest; rounding makes some 1e-6
_PROOF_BATCH = 3  # an example of one image would fix the batch to one


def make_onnx_branch(backbone: BackboneModule) -> Callable[[Tensor], Tensor]:
    """A function that computes what `backbone` does: (B, 3, s, s) float32 normalised → (B, D), on as many threads as torch has.

    Raises MissingExtraError without the packages of the extra `deploy`; SpecError for a network that lies on a GPU, is too large,
    cannot be written as ONNX, or answers otherwise there by more than `MAX_DIFFERENCE`.
    """
    require_onnx_packages("feature_engine: onnxruntime")
    size = 4 * sum(p.numel() for p in backbone.parameters())
    if size > MAX_ONNX_BYTES:
        raise _refuse(backbone, f"its weights have {size / 1e9:.1f} GB and an ONNX model holds 2 GB")
    if backbone.scale.device.type != "cpu":
        raise _refuse(backbone, f"it computes on the processor, and the network lies on {backbone.scale.device.type}")
    backbone.eval()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(_PROOF_BATCH, 3, backbone.side, backbone.side, generator=generator)
    with torch.inference_mode():
        expected = backbone(noise)
    try:
        session = _open_session(_write_model(backbone, noise))
        (came,) = session.run(None, {"images": noise.numpy()})
    except Exception as error:  # an exporter raises whatever its passes raise
        raise _refuse(backbone, f"{type(error).__name__}: {cut_message(error, 200)}") from None
    difference = float((torch.from_numpy(came) - expected).abs().max() / expected.abs().max())
    if not difference <= MAX_DIFFERENCE:
        raise _refuse(backbone, f"its features differ by {difference:.1e} of the largest, more than {MAX_DIFFERENCE:g}")

    def run_branch(images: Tensor) -> Tensor:
        features: Tensor = torch.from_numpy(session.run(None, {"images": images.contiguous().numpy()})[0])
        return features

    return run_branch


def _refuse(backbone: BackboneModule, why: str) -> SpecError:
    return SpecError(f"feature_engine: onnxruntime cannot compute {backbone.name} ({why}); leave feature_engine out")


def _write_model(backbone: BackboneModule, example: Tensor) -> bytes:
    """The network as an ONNX model, of any batch."""
    with quiet_exporter():
        program: Any = torch.onnx.export(
            backbone,
            (example,),
            input_names=["images"],
            output_names=["features"],
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            optimize=True,
            verbose=False,
        )
    written: bytes = program.model_proto.SerializeToString()
    return written


def _open_session(model: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

"""Opens an exported ONNX file: what it computes, and what it says of itself.

Its metadata are under keys of ONNX's own `metadata_props`, each a JSON value, so that a program without phoropter can read them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import MissingExtraError, WeightsError, cut_message

INPUT, OUTPUTS = "squares", ("logits", "probabilities")
Level = str  # of ONNX Runtime's own optimisation of a graph
LEVELS: Mapping[Level, str] = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}


class ExportedOutputs(NamedTuple):
    """(N, C) float32 logits, not calibrated · (N, C) float32 probabilities, calibrated where the bundle has a temperature"""

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]


class OnnxClassifier:
    """An ONNX file as a function: (N, 3, S, S) uint8 → `ExportedOutputs`, of any N above 0.

    metadata: key → value, as `describe_exported` wrote them · classes: C names in the order of the outputs · side: S
    """

    def __init__(self, session: Any, metadata: dict[str, Any]) -> None:
        self.session, self.metadata = session, metadata
        self.classes = tuple(map(str, metadata["classes"]))
        self.side = int(metadata["preprocessing"]["side"])

    def __call__(self, squares: NDArray[np.uint8]) -> ExportedOutputs:
        """Raises ValueError for another shape or type."""
        expected = (3, self.side, self.side)
        if squares.dtype != np.uint8 or squares.shape[1:] != expected:
            raise ValueError(f"squares have the type {squares.dtype} and shape {squares.shape}, expected uint8 (N, *{expected})")
        return ExportedOutputs(*self.session.run(OUTPUTS, {INPUT: squares}))


def open_onnx(file: Path, *, level: Level = "all", threads: int = 0) -> OnnxClassifier:
    """Opens a file that `phoropter export` wrote, in ONNX Runtime on the CPU.

    level: of the runtime's optimisation · threads: 0: as many as there are cores
    Raises WeightsError for another file, and for one the runtime refuses; MissingExtraError without onnxruntime.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime", "deploy", "running an ONNX file") from None
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVELS[level])
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        first = cut_message(error, 200)
        raise WeightsError(f"{file} cannot be run by ONNX Runtime: {first}") from None
    try:
        metadata = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
        return OnnxClassifier(session, metadata)
    except (KeyError, TypeError, ValueError):
        raise WeightsError(f"{file} was not written by phoropter export: its metadata name no classes") from None

"""The layout of a model repository of the Triton inference server: files alone, no server is started or asked.

NAME/config.pbtxt       the input, the outputs, and that requests may be batched
NAME/1/model.onnx       the first version
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from phoropter.core.errors import SpecError

MODEL_PLACE = Path("1") / "model.onnx"
CONFIG_FILE = "config.pbtxt"
MAX_BATCH = 64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def check_model_name(folder: Path) -> None:
    """Raises SpecError where the folder's name cannot be the name of a model."""
    if not _NAME.fullmatch(folder.name):
        raise SpecError(f"-o: '{folder.name}' is the model's name for Triton, expected letters, digits, '_', '-' and '.'")


def format_triton_config(name: str, metadata: dict[str, Any]) -> str:
    """The text of config.pbtxt, in protobuf's text format."""
    side, count = int(metadata["preprocessing"]["side"]), len(metadata["classes"])
    tensors = [("input", metadata["input"]["name"], "TYPE_UINT8", [3, side, side])]
    tensors += [("output", output, "TYPE_FP32", [count]) for output in metadata["outputs"]]
    lines = [f"name: {json.dumps(name)}", 'platform: "onnxruntime_onnx"', f"max_batch_size: {MAX_BATCH}"]
    for kind, tensor, dtype, dims in tensors:
        lines += [f"{kind} {{", f"  name: {json.dumps(tensor)}", f"  data_type: {dtype}", f"  dims: {dims}", "}"]
    return "\n".join([*lines, "dynamic_batching {}"]) + "\n"

"""Writes the graph of a bundle as a `.pt2` file of torch.export, and proves it as an ONNX file is proved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phoropter.core.errors import WeightsError
from phoropter.deploy.export.exporters import MakeGraph, make_example, name_failure
from phoropter.deploy.export.onnx_file import ExportedOutputs
from phoropter.deploy.export.proof import Difference, Reference, RunFunction, measure_difference
from phoropter.models.inference.onnx_exporter import quiet_exporter

METADATA_FILE = "phoropter.json"  # inside the archive


def export_program(make_graph: MakeGraph, reference: Reference, metadata: dict[str, Any], file: Path) -> Difference:
    """Writes `file` and returns its largest difference. Raises WeightsError, and leaves no file, where it differs or fails."""
    try:
        with quiet_exporter(), torch.no_grad():
            # from 2 on: torch.export takes a batch of one for a case of its own, and the proof shows that it runs all the same
            shapes = ({0: torch.export.Dim("batch", min=1)},)
            graph = make_graph()
            program = torch.export.export(graph, (make_example(graph),), dynamic_shapes=shapes)
            torch.export.save(program, file, extra_files={METADATA_FILE: json.dumps(metadata, ensure_ascii=False)})
        difference = measure_difference(open_program(file), reference)
        reason = difference.describe()
    except Exception as error:  # torch.export raises whatever its passes raise
        difference = Difference(float("nan"), float("nan"), 0)
        reason = name_failure(error)
    if not difference.is_small:
        file.unlink(missing_ok=True)
        raise WeightsError(f"torch.export wrote no file that equals the original, so there is none ({reason})")
    return difference


def open_program(file: Path) -> RunFunction:
    """A `.pt2` file as a function: (N, 3, S, S) uint8 → `ExportedOutputs`."""
    module = torch.export.load(file).module()

    def run_program(squares: NDArray[np.uint8]) -> ExportedOutputs:
        with torch.inference_mode():
            logits, probabilities = module(torch.from_numpy(squares))
        return ExportedOutputs(logits.numpy(), probabilities.numpy())

    return run_program

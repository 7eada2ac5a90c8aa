"""Writes the graph of a bundle as one ONNX file, by torch's exporters in turn, until one file is proved to equal the original.

torch has two exporters, and the newer one optimises what it writes. Each has had faults that random weights hide (batch
normalisation folded wrongly in trained ResNets: pytorch issues 166797 and 169178), so none is trusted: a file is run at every
level of optimisation of ONNX Runtime and compared with the original (proof.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from phoropter.core.errors import SpecError, WeightsError, cut_message
from phoropter.deploy.export.graph import ExportedClassifier
from phoropter.deploy.export.onnx_file import INPUT, LEVELS, OUTPUTS, open_onnx
from phoropter.deploy.export.proof import Difference, Reference, measure_difference
from phoropter.models.inference.onnx_exporter import MAX_ONNX_BYTES, quiet_exporter

EXAMPLE_BATCH = 3  # an example of one image would fix the batch to one

MakeGraph = Callable[[], ExportedClassifier]
ExportFunction = Callable[[ExportedClassifier, Path], None]


@dataclass(frozen=True)
class ProvedFile:
    """A file that equals the original.

    exporter: that wrote it · opset: of ONNX; None of a torch program · difference: the largest of all levels
    failed: exporter → why its file was not kept
    """

    exporter: str
    opset: int | None
    difference: Difference
    failed: dict[str, str]


def export_proved(make_graph: MakeGraph, reference: Reference, metadata: dict[str, Any], file: Path) -> ProvedFile:
    """Writes `file` by the first exporter whose file equals the original. Raises WeightsError, and leaves no file, if none does.

    make_graph: makes the module, anew for each exporter, of a model that `check_weight_bytes` passed
    """
    failed: dict[str, str] = {}
    for name, export in EXPORTERS.items():
        try:
            with quiet_exporter():
                export(make_graph(), file)  # a new one: an export that broke off may leave a module changed
            opset = finish_onnx(file, {**metadata, "exporter": name})
            difference = measure_levels(file, reference)
        except Exception as error:  # an exporter raises whatever its passes raise; the next one is asked
            failed[name] = name_failure(error)
        else:
            if difference.is_small:
                return ProvedFile(name, opset, difference, failed)
            failed[name] = difference.describe()
        file.unlink(missing_ok=True)
    reasons = "; ".join(f"{name}: {why}" for name, why in failed.items())
    raise WeightsError(f"no exporter wrote a file that equals the original, so there is none ({reasons})")


def name_failure(error: Exception) -> str:
    """An exporter's error in one line: its kind, and what it says."""
    kind, says = type(error).__name__, cut_message(error, 200)
    return kind if says == kind else f"{kind}: {says}"


def check_weight_bytes(model: torch.nn.Module) -> None:
    """Raises SpecError for a model whose weights, in float32, do not fit into one ONNX file."""
    size = 4 * sum(p.numel() for p in model.parameters())
    if size > MAX_ONNX_BYTES:
        raise SpecError(f"-o: the weights have {size / 1e9:.1f} GB and an ONNX file holds 2 GB; export to a .pt2 file")


def measure_levels(file: Path, reference: Reference) -> Difference:
    """The largest differences over all levels at which ONNX Runtime optimises a graph before it runs it."""
    found = [measure_difference(open_onnx(file, level=level), reference) for level in LEVELS]
    worst = [max((getattr(d, name) for d in found), key=_nan_last) for name in ("probability", "logit", "answers")]
    return Difference(*worst)


def _nan_last(value: float) -> float:
    return float("inf") if np.isnan(value) else value


def finish_onnx(file: Path, metadata: dict[str, Any]) -> int:
    """Adds the metadata, and removes what an exporter notes of this machine's source files. Returns the opset."""
    import onnx

    proto = onnx.load(file)
    for node in proto.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info, *proto.graph.initializer):
        value.ClearField("metadata_props")
    proto.graph.ClearField("metadata_props")
    onnx.helper.set_model_props(proto, {key: json.dumps(value, ensure_ascii=False) for key, value in metadata.items()})
    onnx.save(proto, file)
    return int(next(entry.version for entry in proto.opset_import if entry.domain == ""))


def make_example(graph: ExportedClassifier) -> torch.Tensor:
    """(EXAMPLE_BATCH, 3, S, S) uint8 of noise, along which an exporter follows the graph."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (EXAMPLE_BATCH, 3, graph.side, graph.side), dtype=torch.uint8, generator=generator)


def _export_by_dynamo(graph: ExportedClassifier, file: Path, *, optimize: bool) -> None:
    torch.onnx.export(
        graph,
        (make_example(graph),),
        str(file),
        input_names=[INPUT],
        output_names=list(OUTPUTS),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
        optimize=optimize,
        verbose=False,
    )


def _export_by_tracing(graph: ExportedClassifier, file: Path) -> None:
    torch.onnx.export(
        graph,
        (make_example(graph),),
        str(file),
        input_names=[INPUT],
        output_names=list(OUTPUTS),
        dynamo=False,
        dynamic_axes={name: {0: "batch"} for name in (INPUT, *OUTPUTS)},
        verbose=False,
    )


EXPORTERS: dict[str, ExportFunction] = {
    "dynamo": lambda graph, file: _export_by_dynamo(graph, file, optimize=True),
    "dynamo without optimisation": lambda graph, file: _export_by_dynamo(graph, file, optimize=False),
    "tracing": _export_by_tracing,
}

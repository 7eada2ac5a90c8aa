"""Quantises an exported ONNX file to 8-bit integers, and measures on held-out rows what that costs.

Networks with convolutions: static, weights per channel, activations by the ranges that they have on training rows (Jacob et al.
2018, arXiv 1712.05877; Krishnamoorthi 2018, arXiv 1806.08342). Networks whose weights are all matrix products: dynamic. Weights
take 7 bits, so that processors without VNNI, whose products of 8 by 8 bits saturate, compute the same.

The first convolutions of a deep network stay in float32: of MobileNetV2, int8 with them changes 13 % of the answers to 300
scenes, and without them 4 %.

A classifier that was refitted on all rows has met every row. What is measured then is a model of the study's own, made by the
same recipe and quantised by the same procedure, on the rows it has not met.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import WeightsError
from phoropter.core.files import temporary_folder
from phoropter.deploy.export.exporters import finish_onnx
from phoropter.deploy.export.onnx_file import INPUT, open_onnx
from phoropter.deploy.export.proof import Reference, measure_difference
from phoropter.deploy.predict import Bundle
from phoropter.models.inference.onnx_exporter import quiet_exporter
from phoropter.results.intervals.bootstrap import Bootstrap
from phoropter.results.intervals.interval_rules import MIN_UNITS, clip_difference, exact_bound, stretched_percentiles
from phoropter.results.metrics.registry import get_metric

QuantisationKind = Literal["static", "dynamic"]
CALIBRATION_BATCH = 8
MAX_FLOAT_CONVOLUTIONS = 3
MEASURED = ("accuracy", "balanced_accuracy")
# With them an activation has the range that is left after it, not the one before: a clip at 6 is then no clip of integers.
_JOINED = ("Relu", "Clip", "MaxPool")
_LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class MeasuredRows:
    """What the loss of int8 is measured with.

    calibration: (M, 3, S, S) uint8, training rows of the bundle
    measured:    the bundle itself, or a model of the study that has not met the test rows · training: (M, 3, S, S), its own rows
    test:        (N, 3, S, S) held-out rows of it · labels: (N,) · units: (N,) names of subjects; None: each row is one
    source:      what is measured, in words
    """

    calibration: NDArray[np.uint8]
    measured: Bundle
    training: NDArray[np.uint8]
    test: NDArray[np.uint8]
    labels: NDArray[np.int64]
    units: NDArray[Any] | None
    source: str


@dataclass(frozen=True)
class MetricLoss:
    """A metric before and after, and how much lower it is, with its 95 % interval (NaN where there are too few units)."""

    metric: str
    before: float
    after: float
    low: float
    high: float

    @property
    def loss(self) -> float:
        return self.before - self.after

    def describe(self) -> str:
        """Before and after in percent, the loss in points with its interval."""
        known = "no interval" if math.isnan(self.low) else f"95 % interval {100 * self.low:.2f} to {100 * self.high:.2f}"
        values = f"{100 * self.before:.2f} % to {100 * self.after:.2f} %"
        return f"{self.metric.replace('_', ' ')} {values}, {100 * self.loss:.2f} points lost ({known})"


@dataclass(frozen=True)
class Int8Record:
    """How a file was quantised and what it lost on n_rows rows of n_units subjects.

    changed: rows whose likeliest class is another · source: of which model and rows
    """

    kind: QuantisationKind
    losses: tuple[MetricLoss, ...]
    n_rows: int
    n_units: int
    changed: int
    source: str

    @property
    def largest(self) -> MetricLoss:
        return max(self.losses, key=lambda metric: metric.loss)

    def raise_if_beyond(self, most: float) -> None:
        """Raises WeightsError where the point estimate of some loss is beyond `most`."""
        worst = self.largest
        if not worst.loss <= most:
            raise WeightsError(
                f"int8: {worst.describe()} on {self.n_rows} held-out rows, more than the {100 * most:g} points of --most "
                f"{most:g}, so there is no file; export without --int8, or accept more"
            )


def quantize_onnx(source: Path, out: Path, calibration: NDArray[np.uint8], metadata: dict[str, Any]) -> QuantisationKind:
    """Writes `out`, the file `source` in int8. calibration: (M, 3, S, S) uint8. Raises WeightsError where it cannot be run."""
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with temporary_folder("int8") as work, quiet_exporter():
        prepared = work / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        graph = onnx.load(prepared).graph
        kept = [*find_resize_nodes(graph), *find_first_convolutions(graph)]
        kind: QuantisationKind = "static" if any(node.op_type == "Conv" for node in graph.node) else "dynamic"
        shared: dict[str, Any] = {"per_channel": True, "reduce_range": True, "nodes_to_exclude": kept}
        if kind == "static":
            quantization.quantize_static(
                str(prepared),
                str(out),
                _make_reader(calibration),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=["Conv", "Gemm", "MatMul", *_JOINED],
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                **shared,
            )
        else:
            quantization.quantize_dynamic(str(prepared), str(out), op_types_to_quantize=["Gemm", "MatMul"], **shared)
    finish_onnx(out, {**metadata, "int8": kind})
    return kind


def find_first_convolutions(graph: Any) -> list[str]:
    """Names of the convolutions that stay in float32: of every branch and view the first three, but no more than a tenth.

    How many convolutions lie before one is counted along the longest way from the input.
    """
    depths: dict[str, int] = {}  # of tensors: convolutions on the way to them
    found: dict[str, int] = {}
    for node in graph.node:  # each after those it reads from
        depth = max((depths.get(name, 0) for name in node.input), default=0)
        if node.op_type == "Conv":
            depth += 1
            found[node.name] = depth
        depths |= dict.fromkeys(node.output, depth)
    last = min(MAX_FLOAT_CONVOLUTIONS, max(found.values(), default=0) // 10)
    return [name for name, depth in found.items() if depth <= last]


def find_resize_nodes(graph: Any) -> list[str]:
    """Names of the products by weights of resizing, which int8 leaves alone: not negative, and rows or columns sum to 1."""
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}

    def is_resize(name: str) -> bool:
        if name not in constants:
            return False
        weights = numpy_helper.to_array(constants[name])
        if weights.ndim != 2 or weights.min() < 0:
            return False
        return any(np.allclose(weights.sum(axis=axis), 1, atol=1e-5) for axis in (0, 1))

    return [node.name for node in graph.node if node.op_type == "MatMul" and any(map(is_resize, node.input))]


def _make_reader(squares: NDArray[np.uint8]) -> Any:
    """The rows as onnxruntime wants them: an object with get_next, which returns None after the last batch."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(split_batches(squares))

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch}

    return Reader()


def split_batches(squares: NDArray[np.uint8], size: int = CALIBRATION_BATCH) -> Iterator[NDArray[np.uint8]]:
    """(N, …) → batches of `size`, the last one of what is left."""
    return (squares[start : start + size] for start in range(0, len(squares), size))


def measure_loss(before: Path, after: Path, rows: MeasuredRows, kind: QuantisationKind) -> Int8Record:
    """Predicts the held-out rows by both files, and compares them row by row. Raises WeightsError for a file that cannot run."""
    old, new = (_predict_rows(file, rows.test) for file in (before, after))
    if not np.isfinite(new).all():
        raise WeightsError("the outputs of the int8 file are not numbers, so there is none; export without --int8")
    changed = int((old.argmax(1) != new.argmax(1)).sum())
    bootstrap = Bootstrap(rows.labels, rows.units)
    losses = tuple(_compare_metric(bootstrap, name, old, new, changed) for name in MEASURED)
    return Int8Record(kind, losses, len(rows.test), bootstrap.rows.count, changed, rows.source)


def _predict_rows(file: Path, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
    model = open_onnx(file)
    return np.concatenate([model(batch).probabilities for batch in split_batches(squares)])


def count_changed_answers(file: Path, reference: Reference) -> int:
    """Inputs of the proof whose likeliest class in the int8 file is not the original's, at any batch size.

    Raises WeightsError where the file cannot run.
    """
    difference = measure_difference(open_onnx(file), reference)
    if np.isnan(difference.probability):
        raise WeightsError("the outputs of the int8 file are not numbers, so there is none; export without --int8")
    return difference.answers


def _compare_metric(
    bootstrap: Bootstrap, name: str, old: NDArray[np.float32], new: NDArray[np.float32], changed: int
) -> MetricLoss:
    """The paired difference of a metric: both are resampled by the same draws of units."""
    before, after = bootstrap.compute_replicates(name, old), bootstrap.compute_replicates(name, new)
    values, count = before.paired_values(after), bootstrap.rows.count
    values = values[~np.isnan(values)]
    low = high = float("nan")
    if count >= MIN_UNITS and not changed:  # no resample differs, and yet other rows might: at most this share of units would
        high = 1 - exact_bound(count if name == "accuracy" else bootstrap.rows.design.n_rarest, _LEVEL)
        low = -high
    elif count >= MIN_UNITS and len(values):
        bounds = stretched_percentiles(before.estimate - after.estimate, values, count, _LEVEL)
        low, high = clip_difference(*bounds, get_metric(name).value_range)
    return MetricLoss(name, before.estimate, after.estimate, low, high)

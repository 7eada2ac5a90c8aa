"""Files in int8: which products become integers, and what their loss is by another computation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from made_bundles import PRODUCTS, draw_squares, make_bundle, make_classifier, make_reference

from phoropter.core.errors import WeightsError
from phoropter.deploy.export import exporters, int8
from phoropter.deploy.export.graph import ExportedClassifier
from phoropter.deploy.export.int8 import (
    Int8Record,
    MeasuredRows,
    MetricLoss,
    count_changed_answers,
    find_first_convolutions,
    find_resize_nodes,
    measure_loss,
    quantize_onnx,
    split_batches,
)
from phoropter.deploy.export.metadata import describe_exported
from phoropter.deploy.export.onnx_file import open_onnx


def trace(bundle: Any, file: Path) -> dict[str, Any]:
    """Exports by the quicker exporter; returns the metadata."""
    metadata = describe_exported(bundle, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporters, "EXPORTERS", {"tracing": exporters.EXPORTERS["tracing"]})
        exporters.export_proved(lambda: ExportedClassifier(bundle), make_reference(bundle, 24), metadata, file)
    return metadata


def test_convolutions_and_the_head_become_integers_and_resizing_does_not(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    metadata = trace(bundle, tmp_path / "m.onnx")
    assert len(find_resize_nodes(onnx.load(tmp_path / "m.onnx").graph)) == 2
    assert quantize_onnx(tmp_path / "m.onnx", tmp_path / "q.onnx", draw_squares(32, seed=1), metadata) == "static"
    graph = onnx.load(tmp_path / "q.onnx").graph
    made_by = {output: node.op_type for node in graph.node for output in node.output}
    read = {n.op_type: [made_by.get(i) for i in n.input[:2]] for n in graph.node if n.op_type in ("Conv", "Gemm", "MatMul")}
    assert read["Conv"] == read["Gemm"] == ["DequantizeLinear"] * 2
    assert "DequantizeLinear" not in read["MatMul"]
    known = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    restored = [n.input for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in known]
    kernels = [known[scale] for weights, scale, *_ in restored if known[weights].ndim == 4]
    assert all(np.abs(known[weights].astype(int)).max() <= 64 for weights, *_ in restored if known[weights].ndim > 1)  # 7 bits
    assert all(scale.shape == (8,) for scale in kernels) and len(kernels) == 2  # a scale for each channel
    model, reference = open_onnx(tmp_path / "q.onnx"), make_reference(bundle, 24)
    found = model(reference.inputs.squares).probabilities
    assert 1e-5 < np.abs(found - reference.probabilities).max() < 0.1 and model.metadata["int8"] == "static"
    assert count_changed_answers(tmp_path / "q.onnx", reference) <= 3


def make_chain(name: str, count: int) -> list[Any]:
    """Nodes of `count` convolutions, one after another, with a ReLU after each."""
    nodes, read = [], "x"
    for i in range(count):
        nodes.append(onnx.helper.make_node("Conv", [read, "w"], [f"{name}{i} y"], name=f"{name}{i}"))
        nodes.append(onnx.helper.make_node("Relu", [f"{name}{i} y"], [read := f"{name}{i} z"], name=f"{name}{i} relu"))
    return nodes


@pytest.mark.parametrize(("counts", "kept"), [((52,), 3), ((20,), 2), ((9,), 0), ((30, 30), 3), ((40, 12), 3)])
def test_the_first_convolutions_of_each_branch_of_deep_networks_stay_in_float32(counts: tuple[int, ...], kept: int) -> None:
    nodes = [node for branch, count in zip("ab", counts, strict=False) for node in make_chain(branch, count)]
    found = find_first_convolutions(onnx.helper.make_graph(nodes, "made", [], []))
    assert found == [f"{branch}{i}" for branch in "ab"[: len(counts)] for i in range(kept)]


def test_networks_of_products_alone_are_quantised_dynamically(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", make_classifier(PRODUCTS))
    metadata = trace(bundle, tmp_path / "m.onnx")
    assert quantize_onnx(tmp_path / "m.onnx", tmp_path / "q.onnx", draw_squares(4), metadata) == "dynamic"
    kinds = [node.op_type for node in onnx.load(tmp_path / "q.onnx").graph.node]
    assert kinds.count("MatMulInteger") == 3 and "QuantizeLinear" not in kinds
    reference = make_reference(bundle)
    found = open_onnx(tmp_path / "q.onnx")(reference.inputs.squares).probabilities
    assert np.abs(found - reference.probabilities).max() < 0.1


def measured(monkeypatch: pytest.MonkeyPatch, old: Any, new: Any, labels: Any, units: Any = None) -> Int8Record:
    """The record of two files that give these (N, C) probabilities."""
    answers = {Path("old"): old, Path("new"): new}
    monkeypatch.setattr(int8, "_predict_rows", lambda file, squares: answers[file])
    rows = MeasuredRows(draw_squares(1), None, draw_squares(1), draw_squares(len(labels)), labels, units, "made")  # type: ignore[arg-type]
    return measure_loss(Path("old"), Path("new"), rows, "static")


def test_the_loss_and_its_interval_equal_another_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, 300)
    old = np.eye(3)[np.where(draw.random(300) < 0.85, labels, (labels + 1) % 3)]
    new = np.where((draw.random(300) < 0.06)[:, None], np.roll(old, 1, axis=1), old)
    record = measured(monkeypatch, old, new, labels)
    right_before, right_after = (p.argmax(1) == labels for p in (old, new))
    lost = right_before.astype(float) - right_after
    accuracy, balanced = record.losses
    assert (accuracy.before, accuracy.after) == pytest.approx((right_before.mean(), right_after.mean()))
    assert record.changed == int((old.argmax(1) != new.argmax(1)).sum()) and record.n_units == record.n_rows == 300
    means = draw.choice(lost, (20_000, 300)).mean(axis=1)  # resamples of the paired differences
    np.testing.assert_allclose([accuracy.low, accuracy.high], np.quantile(means, [0.025, 0.975]), atol=0.006)
    recalls = [np.mean([right[labels == c].mean() for c in range(3)]) for right in (right_before, right_after)]
    assert (balanced.before, balanced.after) == pytest.approx(tuple(recalls))


def test_subjects_are_resampled_and_not_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.tile([0, 1], 60)
    old = np.eye(2)[labels]
    new = np.where((np.arange(120) < 24)[:, None], 1 - old, old)  # all rows of two of ten subjects change
    alone = measured(monkeypatch, old, new, labels).losses[0]
    grouped = measured(monkeypatch, old, new, labels, np.arange(120) // 12).losses[0]
    assert alone.loss == grouped.loss == pytest.approx(0.2)
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def test_where_no_answer_changes_the_interval_is_not_a_point(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.tile([0, 1], 20)
    record = measured(monkeypatch, np.eye(2)[labels], np.eye(2)[labels] * 0.9 + 0.05, labels)
    assert record.largest.loss == 0 and record.losses[0].high == pytest.approx(1 - 0.025 ** (1 / 40))
    assert record.losses[0].low == -record.losses[0].high and record.losses[1].high == pytest.approx(1 - 0.025 ** (1 / 20))
    few = measured(monkeypatch, np.eye(2), np.eye(2), np.array([0, 1]))
    assert np.isnan(few.losses[0].low)


def test_a_loss_beyond_what_is_accepted_is_refused() -> None:
    losses = (MetricLoss("accuracy", 0.9, 0.89, 0.0, 0.02), MetricLoss("balanced_accuracy", 0.8, 0.77, 0.01, 0.05))
    record = Int8Record("static", losses, 200, 200, 5, "made")
    record.raise_if_beyond(0.031)
    said = r"int8: balanced accuracy 80.00 % to 77.00 %, 3.00 points lost .* the 2 points of --most 0.02"
    with pytest.raises(WeightsError, match=said):
        record.raise_if_beyond(0.02)


def test_batches_hold_every_square_once() -> None:
    squares = draw_squares(19)
    parts = list(split_batches(squares))
    assert [len(part) for part in parts] == [8, 8, 3] and np.array_equal(np.concatenate(parts), squares)

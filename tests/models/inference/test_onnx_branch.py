"""A branch in ONNX Runtime: the network's features, of any batch, on any number of threads; what it cannot compute is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from phoropter.core.errors import MissingExtraError, SpecError
from phoropter.models.backbones import BackboneModule, build_backbone
from phoropter.models.inference import onnx_branch, onnx_exporter
from phoropter.models.inference.onnx_branch import make_onnx_branch
from phoropter.models.spec import BackboneSpec
from trained_norms import train_statistics

pytest.importorskip("onnxruntime")


def build(name: str, seed: int = 0) -> BackboneModule:
    backbone = build_backbone(BackboneSpec(name=name, weights="random", size=64), seed=seed)
    train_statistics(backbone, seed=1)
    return backbone.eval()


def images(count: int) -> Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit"])
def test_features_are_those_of_the_network_in_any_batch_and_layout(name: str) -> None:
    """As near to those of double precision as the network's own."""
    backbone = build(name)
    run_branch = make_onnx_branch(backbone)
    came = run_branch(images(5))
    with torch.inference_mode():
        plain = backbone(images(5))
        truth = backbone.double()(images(5).double())
    assert came.dtype == torch.float32 and not torch.equal(came, plain), "or torch computed them"
    assert (came - truth).abs().max() < 1e-5 * truth.abs().max()
    torch.testing.assert_close(run_branch(images(5)[:1]), came[:1], rtol=1e-4, atol=1e-5)
    assert torch.equal(run_branch(images(5).to(memory_format=torch.channels_last)), came)


@pytest.fixture(scope="module")
def written() -> bytes:
    """`test_efficientnet` as an ONNX model; writing takes seconds."""
    return onnx_branch._write_model(build("test_efficientnet"), images(3))


def test_threads_change_no_bit(written: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, came = build("test_efficientnet"), []
    monkeypatch.setattr(onnx_branch, "_write_model", lambda backbone, example: written)
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        came.append(make_onnx_branch(backbone)(images(4)))
    assert torch.equal(*came)


def test_a_model_that_answers_otherwise_is_refused(written: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an exporter with a fault would write it: of other weights, or where the network's answers are no numbers."""
    monkeypatch.setattr(onnx_branch, "_write_model", lambda backbone, example: written)
    with pytest.raises(
        SpecError, match=r"cannot compute test_efficientnet \(its features differ by .*; leave feature_engine out"
    ):
        make_onnx_branch(build("test_efficientnet", seed=1))
    backbone = build("test_efficientnet")
    with torch.no_grad():
        next(backbone.parameters()).fill_(float("nan"))
    with pytest.raises(SpecError, match="differ by nan"):
        make_onnx_branch(backbone)


def test_a_network_that_cannot_be_written_or_is_too_large_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = build("test_resnet")

    def fail(*args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("no such operator")

    with monkeypatch.context() as patch:
        patch.setattr(torch.onnx, "export", fail)
        with pytest.raises(SpecError, match=r"cannot compute test_resnet \(NotImplementedError: no such operator\)"):
            make_onnx_branch(backbone)
    monkeypatch.setattr(onnx_branch, "MAX_ONNX_BYTES", 100)
    with pytest.raises(SpecError, match="an ONNX model holds 2 GB"):
        make_onnx_branch(backbone)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_exporter, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(MissingExtraError, match=r"feature_engine: onnxruntime needs the package onnxscript.*phoropter\[deploy\]"):
        make_onnx_branch(build("test_resnet"))

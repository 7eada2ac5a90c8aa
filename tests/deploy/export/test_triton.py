"""The configuration of a model repository, read back by a few lines that know protobuf's text format."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from made_bundles import make_bundle

from phoropter.core.errors import SpecError
from phoropter.deploy.export.metadata import describe_exported
from phoropter.deploy.export.triton import check_model_name, format_triton_config


def test_the_configuration_names_the_input_and_both_outputs(tmp_path: Path) -> None:
    text = format_triton_config("scenes", describe_exported(make_bundle(tmp_path / "b"), None))
    blocks = re.findall(r"^(input|output) \{\n(.*?)^\}", text, flags=re.S | re.M)
    tensors = [(kind, dict(line.strip().split(": ", 1) for line in body.strip().splitlines())) for kind, body in blocks]
    found = [(kind, t["name"].strip('"'), t["data_type"], ast.literal_eval(t["dims"])) for kind, t in tensors]
    assert found == [
        ("input", "squares", "TYPE_UINT8", [3, 20, 20]),
        ("output", "logits", "TYPE_FP32", [3]),
        ("output", "probabilities", "TYPE_FP32", [3]),
    ]
    rest = dict(re.findall(r"^(\w+): (.+)$", text, flags=re.M))
    assert rest == {"name": '"scenes"', "platform": '"onnxruntime_onnx"', "max_batch_size": "64"}
    assert text.count("{") == text.count("}")


def test_a_name_that_triton_would_not_take_is_refused() -> None:
    check_model_name(Path("repository/resnet50-v2.1"))
    with pytest.raises(SpecError, match="'my model' is the model's name for Triton"):
        check_model_name(Path("repository/my model"))

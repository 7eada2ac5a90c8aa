"""What a refitted bundle holds: versions and digests, timm's layout, an MLmodel file; what others may rewrite is not sealed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import phoropter as ph
from phoropter.core.errors import SpecError
from phoropter.models.timm_compat import import_timm
from phoropter.results.store import Store
from phoropter.training.candidates.refit_record import RefitRecord
from phoropter.training.distillation import digest_classifier

Refit = Callable[..., RefitRecord]


def test_bundle_json_says_of_what_and_with_what_it_was_made(shapes: Store, refit: Refit, tmp_path: Path) -> None:
    refit(shapes, tmp_path / "bundle", "vit")
    content = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    training, model = content["training"], ph.load(tmp_path / "bundle")
    assert content["format"] == 2 and training["candidate"]["name"] == "vit" and "members" not in training
    assert training["versions"] == shapes.study["versions"]
    assert training["digests"] == {
        "dataset": shapes.study["dataset"]["fingerprint"],
        "classifier": digest_classifier(model.classifier),
    }
    assert content["files"].keys() == {"model.safetensors", "trained_on.npz"}
    for name in ("README.md", "MLmodel"):  # written for readers and other programs, which may change them
        (tmp_path / "bundle" / name).write_text("changed")
    assert ph.load(tmp_path / "bundle").description == model.description


def test_timm_alone_predicts_what_the_bundle_predicts(shapes: Store, refit: Refit, tmp_path: Path) -> None:
    refit(shapes, tmp_path / "bundle", "solved", timm=True)
    model = ph.load(tmp_path / "bundle")
    alone = import_timm().create_model(f"local-dir:{tmp_path / 'bundle' / 'timm'}", pretrained=True).eval()
    x = model.preprocess([np.full((50, 70, 3), grey, np.uint8) for grey in (30, 200)])
    branch = model.classifier.branches[0]
    mean, std = (torch.tensor(v)[:, None, None] for v in (branch.mean, branch.std))
    with torch.no_grad():
        logits = alone((x.float() / 255 - mean) / std)
        torch.testing.assert_close(logits, model.classifier(x), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model.to_timm()((x.float() / 255 - mean) / std), logits)


def test_a_fusion_in_timm_s_layout_is_refused_before_anything_is_written(shapes: Store, refit: Refit, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be written in timm's layout: it joins 2 networks"):
        refit(shapes, tmp_path / "bundle", "average", timm=True)
    assert list(tmp_path.iterdir()) == []


def test_the_mlmodel_file_is_plain_yaml_that_names_the_loader(shapes: Store, refit: Refit, tmp_path: Path) -> None:
    refit(shapes, tmp_path / "bundle", "probe")
    content = yaml.safe_load((tmp_path / "bundle" / "MLmodel").read_text())
    assert content["flavors"]["python_function"]["loader_module"] == "phoropter.deploy.mlflow_model"
    assert [c["name"] for c in json.loads(content["signature"]["outputs"])] == ["class", "p_dark", "p_light"]

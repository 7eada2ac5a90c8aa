"""A torch program is run before it is kept, as an ONNX file is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from made_bundles import make_bundle, make_reference

from phoropter.core.errors import WeightsError
from phoropter.deploy.export.graph import ExportedClassifier
from phoropter.deploy.export.torch_program import export_program, open_program


def test_a_program_equals_its_bundle_and_a_wrong_one_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make_bundle(tmp_path / "b", temperature=2.0)
    reference = make_reference(bundle)
    difference = export_program(lambda: ExportedClassifier(bundle), reference, {"classes": ["a"]}, tmp_path / "m.pt2")
    assert difference.is_small and open_program(tmp_path / "m.pt2")(reference.inputs.squares).logits.shape == (9, 3)
    with ZipFile(tmp_path / "m.pt2") as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("phoropter.json")]
        assert json.loads(archive.read(name)) == {"classes": ["a"]}

    program = torch.export.load(tmp_path / "m.pt2")
    monkeypatch.setattr(torch.export, "export", lambda *given, **options: program)
    shifted = replace(reference, probabilities=reference.probabilities + np.array([2e-4, -2e-4, 0]))
    with pytest.raises(WeightsError, match=r"so there is none \(a probability differs by 0.0002"):
        export_program(lambda: ExportedClassifier(bundle), shifted, {}, tmp_path / "wrong.pt2")
    assert not (tmp_path / "wrong.pt2").exists()


def test_what_torch_cannot_export_leaves_no_file_and_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: Any, **options: Any) -> None:
        raise RuntimeError("data-dependent branch\nlong story")

    bundle = make_bundle(tmp_path / "b")
    monkeypatch.setattr(torch.export, "export", fail)
    with pytest.raises(WeightsError, match=r"\(RuntimeError: data-dependent branch\)"):
        export_program(lambda: ExportedClassifier(bundle), make_reference(bundle), {}, tmp_path / "m.pt2")
    assert not (tmp_path / "m.pt2").exists()

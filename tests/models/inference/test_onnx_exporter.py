"""What is common to those who ask torch's exporters."""

from __future__ import annotations

import logging
import sys
import warnings

import pytest

from phoropter.core.errors import MissingExtraError
from phoropter.models.inference import onnx_exporter
from phoropter.models.inference.onnx_exporter import ONNX_PACKAGES, quiet_exporter, require_onnx_packages


def test_exporters_print_and_log_nothing_and_errors_pass(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    before = logging.root.manager.disable
    with pytest.raises(KeyError, match="x"), quiet_exporter():
        print("note")
        print("note", file=sys.stderr)
        warnings.warn("note", stacklevel=1)
        logging.getLogger("torch.onnx").error("note")
        raise KeyError("x")
    assert capsys.readouterr() == ("", "") and not caplog.records
    assert logging.root.manager.disable == before


@pytest.mark.parametrize("package", ONNX_PACKAGES)
def test_each_package_is_asked_for(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_exporter, "find_spec", lambda name: None if name == package else object())
    with pytest.raises(MissingExtraError, match=rf"^exporting needs the package {package}, which is not installed"):
        require_onnx_packages("exporting")

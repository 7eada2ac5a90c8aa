"""torchvision and timm can be imported whether or not torchvision's compiled operators load."""

from __future__ import annotations

import json
import subprocess
import sys


def test_timm_and_torchvision_can_be_imported() -> None:
    from phoropter.models import timm_compat

    assert timm_compat.import_timm().is_model("resnet50")
    assert timm_compat.import_torchvision("transforms.v2").RandomHorizontalFlip


def test_the_installation_is_described_by_versions_and_operators() -> None:
    from phoropter.models import timm_compat

    said = timm_compat.describe_installation()
    assert said["torchvision operators"].startswith(("working", "missing"))
    assert all(said[name][0].isdigit() for name in ("torch", "torchvision", "timm"))


def test_operators_are_declared_on_exactly_one_error() -> None:
    """A torchvision that fails for another reason is left alone; one that fails for this reason is imported again."""
    code = """
import importlib, json, sys
from phoropter.models import timm_compat
real, tried = importlib.import_module, []
def failing(words):
    def imported(name, *rest):
        if name == "torchvision" and not tried:
            tried.append(name)
            sys.modules["torchvision.half"] = sys
            raise RuntimeError(words)
        return real(name, *rest)
    return imported
timm_compat.importlib.import_module = failing("something else")
try:
    timm_compat.import_torchvision()
except RuntimeError as error:
    first = str(error)
untouched = "torchvision.half" in sys.modules and not timm_compat._declared_libraries
tried.clear()
timm_compat._declare_operators = lambda: timm_compat._declared_libraries.append("done")
timm_compat.importlib.import_module = failing("operator torchvision::nms does not exist")
try:
    timm_compat.import_torchvision()
except RuntimeError:
    pass
print(json.dumps([first, untouched, "torchvision.half" in sys.modules, timm_compat._declared_libraries]))
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout) == ["something else", True, False, ["done"]]

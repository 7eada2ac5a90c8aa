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


def test_torchs_compiler_is_imported_only_by_what_needs_it() -> None:
    """torch.compiler.disable is torch's own again, and what got the decorator meanwhile is not compiled."""
    code = """
import json, sys
import torch
from phoropter.models import timm_compat
own = torch.compiler.disable
timm_compat.import_torchvision("transforms.v2"); timm_compat.import_timm("layers")
said = ["torch._dynamo" in sys.modules, "torch._dynamo.utils" in sys.modules, torch.compiler.disable is own]
seen = []
@timm_compat.import_timm("layers").disable_compiler
def halve(x):
    seen.append(torch.compiler.is_compiling())
    return x / 2
asked = sys.modules["torchvision.ops.roi_align"].is_compile_supported("cpu")
compiled = torch.compile(lambda x: halve(x + 1) * 4, backend="eager")
print(json.dumps([*said, asked, compiled(torch.ones(2)).tolist(), seen, "torch._dynamo" in sys.modules]))
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout) == [False, False, True, True, [4.0, 4.0], [False], True]


def test_the_compiler_is_there_for_who_asks_for_it_meanwhile() -> None:
    code = """
import sys
from phoropter.models import timm_compat
with timm_compat._defer_compiler_import():
    from torch._dynamo.utils import counters
    import torch._dynamo
print(sys.modules["torch._dynamo.utils"].counters is counters, torch._dynamo.utils.counters is counters)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["True", "True"]


def test_a_pass_on_the_meta_device_asks_for_the_compiler_again_when_it_is_there() -> None:
    """What torch's functions remember of the stand-in is forgotten, so that the compiler leaves them alone later."""
    code = """
import json, sys
import torch
from phoropter.models import timm_compat

@torch._disable_dynamo
def halve(x):
    return x / 2, torch.compiler.is_compiling()

inner = halve.__wrapped__
with timm_compat.defer_compiler():
    torch.nn.BatchNorm2d(3, device="meta").eval()(torch.empty(2, 3, 4, 4, device="meta"))
    first = halve(1.0)
    remembered = hasattr(inner, "__dynamo_disable")
said = ["torch._dynamo" in sys.modules, list(first), remembered, hasattr(inner, "__dynamo_disable")]
compiled = torch.compile(lambda x: halve(x + 1)[1], backend="eager")
print(json.dumps([*said, compiled(torch.ones(2)), "torch._dynamo" in sys.modules]))
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout) == [False, [0.5, False], True, False, False, True]

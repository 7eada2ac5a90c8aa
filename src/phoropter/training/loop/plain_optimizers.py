"""torch's optimizers without the decorators that import its compiler.

The first optimizer of a process, and its first step, would import torch's compiler (torch._dynamo), which takes longer than torch
itself: its decorators ask it to leave these methods alone. Nothing here is compiled but networks, never a step, so the methods
are taken out of the decorators and are the same otherwise, down to the last bit.
"""

from __future__ import annotations

import inspect
from typing import Any, TypeVar, cast

import torch
from torch.optim import Optimizer

OptimizerKind = TypeVar("OptimizerKind", bound=Optimizer)
_DECORATED = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


def without_compiler(kind: type[OptimizerKind]) -> type[OptimizerKind]:
    """A subclass of the same name. Its step is taken without gradients, which the decorator did, too."""
    methods: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in _DECORATED}
    methods["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return cast(type[OptimizerKind], type(kind.__name__, (kind,), methods))


# Here, under the names of their classes, pickle finds them again.
AdamW = without_compiler(torch.optim.AdamW)
Adam = without_compiler(torch.optim.Adam)
SGD = without_compiler(torch.optim.SGD)

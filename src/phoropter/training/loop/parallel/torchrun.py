"""Whether torchrun started this process. No torch here: every `run` asks, also one that has nothing to compute."""

from __future__ import annotations

import os
from collections.abc import Mapping


def is_started_by_torchrun(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in environment and int(environment.get("WORLD_SIZE", "1")) > 1

"""What a pass of a frozen backbone over all images took, kept beside the features it left in the cache.

Whoever uses the features later owes them to that pass, so its seconds are read here and not lost with the first run.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from phoropter.core.storage.sealed_json import CacheShape, read_cache_json, write_cache_json

PASS_FILE = "pass.json"


class PassCost(CacheShape):
    """pass.json of an entry: of its `images`, all together.

    seconds: reading them and the network's work, decoding left out; of a pass that was resumed, scaled to all of them
    setup_seconds: of the seconds, those that made the network ready, once, however many images follow
    batch: images in a batch · device: cpu, cuda or mps
    """

    seconds: Annotated[float, Field(ge=0)]
    images: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1)]
    peak_memory_bytes: Annotated[int, Field(ge=0)]
    device: str
    setup_seconds: Annotated[float, Field(ge=0)] = 0.0

    @property
    def seconds_per_image(self) -> float:
        """What an image owes to the whole pass."""
        return self.seconds / self.images

    @property
    def seconds_per_further_image(self) -> float:
        """What one image more would take."""
        return max(self.seconds - self.setup_seconds, 0.0) / self.images


def write_pass_cost(folder: Path, cost: PassCost) -> None:
    """Writes pass.json into an entry of the feature cache."""
    write_cache_json(folder / PASS_FILE, cost)


def read_pass_cost(folder: Path) -> PassCost | None:
    """pass.json of an entry; None where it is missing or damaged."""
    return read_cache_json(folder / PASS_FILE, PassCost)


def collect_pass_costs(features: Iterable[NDArray[np.float32]]) -> dict[str, PassCost]:
    """Entry → what its pass took, for arrays out of the feature cache; each entry once, however often it is named."""
    folders = {Path(array.filename).parent for array in features if isinstance(array, np.memmap) and array.filename}
    found = {folder.name: read_pass_cost(folder) for folder in sorted(folders)}
    return {name: cost for name, cost in found.items() if cost is not None}

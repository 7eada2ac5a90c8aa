"""Examples in a bundle: copies of some of its study's data, for a page that shows it at work and for proofs of an exported file.

    examples/1.png, 1.csv …     a picture as the study stored it, square, or a recording
    examples/examples.json      of each its file, its class, and the logits that the classifier gave for it

They hold no names of people, files or places; `refit --examples` writes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import WeightsError
from phoropter.core.files import read_json, write_json
from phoropter.models.weights.bundle_files import EXAMPLES_FOLDER

EXAMPLES_FILE = "examples.json"
FORMAT = 1
_MAX_BYTES = 16 << 20


@dataclass(frozen=True, eq=False)
class BundleExample:
    """file: its path · label: its class · logits: (n, C) float32, of the picture or of each window of the recording"""

    file: Path
    label: str
    logits: NDArray[np.float32]


def write_examples_list(folder: Path, examples: list[BundleExample]) -> None:
    """Writes examples.json beside the files. folder: examples/ of a bundle"""
    rows = [{"file": e.file.name, "label": e.label, "logits": e.logits.tolist()} for e in examples]
    write_json(folder / EXAMPLES_FILE, {"format": FORMAT, "examples": rows})


def read_examples(bundle: Path) -> list[BundleExample]:
    """The examples in a bundle's folder; none where it has none. Raises WeightsError for a list that is not as it was written."""
    folder = bundle / EXAMPLES_FOLDER
    if not folder.is_dir():
        return []
    content = read_json(folder / EXAMPLES_FILE, _MAX_BYTES, WeightsError)
    try:
        if content["format"] != FORMAT:
            raise ValueError
        found = [
            BundleExample(
                folder / row["file"], str(row["label"]), np.array(row["logits"], np.float32).reshape(len(row["logits"]), -1)
            )
            for row in content["examples"]
        ]
        if any(e.file.parent != folder or ".." in e.file.parts[-1:] or not e.file.is_file() for e in found):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise WeightsError(
            f"{folder / EXAMPLES_FILE} does not list the files beside it; copy the complete bundle again"
        ) from None
    return found

"""Where the shared cases of inputs lie, and what their tests have in common."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from phoropter.data.dataset import Dataset

_DATA = Path(os.environ.get("PHOROPTER_TEST_DATA") or Path(__file__).parents[2] / ".." / "shared" / "data")
CASES = _DATA.parent / "cases" / "inputs"
MARKS = [
    pytest.mark.real,
    pytest.mark.skipif(not CASES.is_dir(), reason=f"the folder of shared cases is missing: {CASES}"),
]


def parts_and_classes(dataset: Dataset) -> dict[tuple[str, str], int]:
    """(part, class) → rows."""
    parts = [""] * len(dataset) if dataset.parts is None else dataset.parts.tolist()
    names = [dataset.classes[label] if label >= 0 else "" for label in dataset.labels]
    return dict(Counter(zip(parts, names, strict=True)))

"""The examples of a bundle are read back as they were written; a list that names anything else is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phoropter.core.errors import WeightsError
from phoropter.deploy.examples import BundleExample, read_examples, write_examples_list


def write_two(bundle: Path) -> None:
    (bundle / "examples").mkdir(parents=True)
    for name in ("1.png", "2.csv"):
        (bundle / "examples" / name).write_bytes(b"x")
    (bundle / "secret").write_bytes(b"x")
    files = [bundle / "examples" / name for name in ("1.png", "2.csv")]
    logits = [np.array([[0.1, -2.5]], np.float32), np.array([[1, 2], [3, 4]], np.float32)]
    write_examples_list(
        bundle / "examples", [BundleExample(f, label, x) for f, label, x in zip(files, ("a", "b"), logits, strict=True)]
    )


def test_examples_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert read_examples(tmp_path) == []
    write_two(tmp_path)
    first, second = read_examples(tmp_path)
    assert first.file == tmp_path / "examples" / "1.png" and (first.label, second.label) == ("a", "b")
    assert np.array_equal(first.logits, np.array([[0.1, -2.5]], np.float32)) and second.logits.shape == (2, 2)


@pytest.mark.parametrize(
    "change", [{"file": "../secret"}, {"file": "3.png"}, {"file": ".."}, {"logits": 3}, {"file": None}, {"logits": [["x"]]}]
)
def test_a_list_that_names_anything_else_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    write_two(tmp_path)
    file = tmp_path / "examples" / "examples.json"
    content = json.loads(file.read_text())
    content["examples"][1] |= change
    file.write_text(json.dumps(content))
    with pytest.raises(WeightsError, match="does not list the files beside it; copy the complete bundle again"):
        read_examples(tmp_path)

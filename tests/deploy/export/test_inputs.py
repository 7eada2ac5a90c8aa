"""Real inputs to compare a file on: those at paths, or the bundle's examples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_bundles import draw_squares, make_bundle
from PIL import Image

from phoropter.core.errors import DataError, SpecError
from phoropter.deploy.examples import BundleExample, write_examples_list
from phoropter.deploy.export.inputs import find_proof_inputs
from phoropter.deploy.export.proof import MAX_INPUTS


def save_squares(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    files = [folder / f"{i}.png" for i in range(count)]
    for file, square in zip(files, draw_squares(count), strict=True):
        Image.fromarray(square.transpose(1, 2, 0)).save(file)
    return files


def test_pictures_at_paths_become_squares_and_broken_ones_are_left_out(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    files = save_squares(tmp_path / "new", 5)
    (tmp_path / "new" / "x.png").write_bytes(b"no picture")
    found = find_proof_inputs(bundle, [tmp_path / "new"])
    assert {s.tobytes() for s in found.squares} == {s.tobytes() for s in draw_squares(5)}
    assert str(tmp_path / "new") in found.source
    assert len(find_proof_inputs(bundle, files[:2]).squares) == 2
    with pytest.raises(DataError):
        find_proof_inputs(bundle, [tmp_path / "new" / "x.png"])


def test_of_many_the_same_few_are_drawn(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    save_squares(tmp_path / "new", MAX_INPUTS + 6)
    first, again = (find_proof_inputs(bundle, [tmp_path / "new"]).squares for _ in range(2))
    assert len(first) == MAX_INPUTS and np.array_equal(first, again)


def test_without_paths_the_examples_of_the_bundle_are_taken_and_without_these_it_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    with pytest.raises(SpecError, match=r"has no examples to compare the file on; pass --study DIR.*, or --inputs PATH"):
        find_proof_inputs(bundle, [])
    with_examples = replace(bundle, folder=tmp_path / "other")
    with_examples.folder.mkdir()
    files = save_squares(with_examples.folder / "examples", 3)
    examples = [BundleExample(file, "a", np.zeros((1, 3), np.float32)) for file in files]
    write_examples_list(with_examples.folder / "examples", examples)
    found = find_proof_inputs(with_examples, [])
    assert len(found.squares) == 3 and found.source == "examples in the bundle"

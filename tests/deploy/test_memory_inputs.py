"""Inputs in memory are taken apart into single ones and named by their numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from phoropter.deploy.memory_inputs import list_inputs, make_picture_dataset


def test_one_input_many_and_a_batch_become_a_list() -> None:
    image = Image.new("RGB", (4, 4))
    batch = np.zeros((3, 4, 4, 3), np.uint8)
    assert list_inputs(image) == [image] and list_inputs("a.png") == ["a.png"]
    assert len(list_inputs(batch)) == 3 and len(list_inputs(batch[0])) == 1 and len(list_inputs((image, image))) == 2
    assert list_inputs(pd.DataFrame({"path": ["a.png", "b.png"]})) == [Path("a.png"), Path("b.png")]


def test_pictures_in_memory_are_a_dataset_with_a_content_identity() -> None:
    images = [np.full((4, 5, 3), value, np.uint8) for value in (1, 2, 1)]
    dataset = make_picture_dataset(images, ("a", "b"))
    assert dataset.ids.tolist() == ["0", "1", "2"] and (dataset.labels == -1).all()
    assert (dataset.pictures.read(1) == 2).all()
    one, two, again = (dataset.pictures.identity(np.array([row])) for row in range(3))
    assert one == again != two and (dataset.select_rows(np.array([1])).pictures.read(0) == 2).all()

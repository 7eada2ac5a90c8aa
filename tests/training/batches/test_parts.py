"""Parts of a batch hold its rows, each once, and know the whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from phoropter.data.images.pixels import Pixels
from phoropter.training.augmentation.pipeline import Augmentation
from phoropter.training.batches.loading import Batch, FeatureLoader, PixelLoader
from phoropter.training.batches.parts import ShareLoader, cut_batch
from phoropter.training.candidates.recipe import LossSpec, Recipe
from phoropter.training.loop.losses import Criterion, DistillationLoss

CPU = torch.device("cpu")


@dataclass
class Third:
    """Owns rows 3 to 5 of each batch, or none of a short one."""

    device: torch.device = CPU

    def find_share(self, rows: int) -> slice:
        return slice(min(3, rows), min(6, rows))


def make_batch(features: bool = False) -> Batch:
    torch.manual_seed(0)
    inputs: Any = torch.randn(7, 3, 2, 2)
    inputs = (inputs[:, 0], inputs[:, 1]) if features else inputs
    return Batch(np.arange(7), inputs, torch.arange(7) % 3, torch.randperm(7), torch.rand(7), torch.randn(7, 3))


def join_inputs(parts: list[Batch]) -> list[torch.Tensor]:
    branches = [part.inputs if isinstance(part.inputs, tuple) else (part.inputs,) for part in parts]
    return [torch.cat(each) for each in zip(*branches, strict=True)]


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("most", [1, 2, 3, 6, 7])
def test_parts_are_the_batch(features: bool, most: int) -> None:
    batch = make_batch(features)
    parts = cut_batch(batch, most)
    for found, expected in zip(join_inputs(parts), join_inputs([batch]), strict=True):
        assert torch.equal(found, expected)
    assert torch.equal(torch.cat([part.own_labels for part in parts]), batch.labels)
    assert batch.teacher_logits is not None
    assert torch.equal(
        torch.cat([part.teacher_logits for part in parts if part.teacher_logits is not None]), batch.teacher_logits
    )
    assert max(len(part.own_labels) for part in parts) <= most and [p.first_row for p in parts] == list(range(0, 7, most))
    assert all(len(part.rows) == 7 and part.labels is batch.labels for part in parts)  # of the whole batch


def test_a_part_of_a_part_counts_from_the_batch() -> None:
    share = cut_batch(make_batch(), 4)[1]
    first, second = cut_batch(share, 2)
    assert isinstance(share.inputs, torch.Tensor) and isinstance(second.inputs, torch.Tensor)
    assert (first.first_row, second.first_row) == (4, 6) and torch.equal(second.inputs, share.inputs[2:])
    assert cut_batch(share, 0) == [share] and cut_batch(share, 3) == [share]


@pytest.mark.parametrize("loss", [LossSpec(), LossSpec(smoothing=0.2), LossSpec(kind="focal")])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("light", [False, True])
def test_losses_of_parts_add_up_to_that_of_the_batch(loss: LossSpec, weighted: bool, light: bool) -> None:
    batch, weights = make_batch(), torch.tensor([0.2, 1.0, 3.0]) if weighted else None
    logits, row_weights = torch.randn(7, 3), torch.rand(7) if light else None
    criterion = Criterion(loss, weights)
    mixing = (batch.mix_index, batch.mix_lambda)
    whole = criterion(logits, batch.labels, *mixing, row_weights=row_weights)
    parts = cut_batch(batch, 3)
    found = [criterion(logits[p.part], batch.labels, *mixing, row_weights=row_weights, part=p.part) for p in parts if p.part]
    assert len(found) == 3
    torch.testing.assert_close(sum(found), whole)


@pytest.mark.parametrize("kind", ["hard", "soft", "hard+soft", "token"])
def test_a_teacher_s_part_adds_up_too(kind: Any) -> None:
    batch = make_batch()
    loss = DistillationLoss(Criterion(LossSpec(), torch.tensor([0.2, 1.0, 3.0])), kind, 0.7, 2.0)
    logits, token = torch.randn(7, 3), torch.randn(7, 3) if kind == "token" else None
    mixing = (batch.mix_index, batch.mix_lambda)
    assert batch.teacher_logits is not None
    whole = loss(logits, batch.labels, batch.teacher_logits, *mixing, token=token)
    found = torch.zeros(())
    for p in cut_batch(batch, 2):
        assert p.part is not None and p.teacher_logits is not None
        own = None if token is None else token[p.part]
        found = found + loss(logits[p.part], batch.labels, p.teacher_logits, *mixing, token=own, part=p.part)
    torch.testing.assert_close(found, whole)


@pytest.mark.parametrize("steps", [[], ["hflip", {"random-crop": {"padding": 2}}], ["hflip", "cutmix"]])
def test_a_share_shows_what_its_rows_show_in_the_batch(few_digits: Any, steps: Any) -> None:
    dataset, pixels = few_digits
    source = PixelLoader(dataset, pixels, Augmentation(Recipe(augment=steps).augment, 0) if steps else None, CPU)
    rows = np.arange(20, 28, dtype=np.int64)
    whole, share = source.batch(rows, 1, 2), ShareLoader(source, dataset, Third()).batch(rows, 1, 2)
    assert isinstance(whole.inputs, torch.Tensor) and isinstance(share.inputs, torch.Tensor)
    assert torch.equal(share.inputs, whole.inputs[3:6]) and share.part == slice(3, 6)
    assert torch.equal(share.labels, whole.labels) and np.array_equal(share.rows, rows)
    assert (share.mix_index is None) == (whole.mix_index is None)
    assert share.mix_index is None or whole.mix_index is None or torch.equal(share.mix_index, whole.mix_index)


def test_pictures_that_stand_alone_are_read_for_the_share_alone(few_digits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, pixels = few_digits
    read: list[int] = []
    original = Pixels.batch

    def note_rows(self: Pixels, rows: Any, out: Any = None) -> Any:
        read.extend(rows.tolist())
        return original(self, rows, out)

    monkeypatch.setattr(Pixels, "batch", note_rows)
    ShareLoader(PixelLoader(dataset, pixels, None, CPU), dataset, Third()).batch(np.arange(8, dtype=np.int64), 0, 0)
    assert read == [3, 4, 5]


def test_the_first_row_stands_in_where_a_process_has_none(few_digits: Any) -> None:
    dataset, _ = few_digits
    source = FeatureLoader(dataset, [[np.arange(300, dtype=np.float32).reshape(150, 2)]], CPU)
    share = ShareLoader(source, dataset, Third()).batch(np.array([5, 9]), 0, 0)
    assert share.part == slice(0, 1) and isinstance(share.inputs, tuple) and share.inputs[0].tolist() == [[10.0, 11.0]]

"""What a pass took is kept with its features, counted once, and scaled to all images where it was resumed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from phoropter.data.splits.protocol import make_splits
from phoropter.data.splits.spec import KFold
from phoropter.models.classifier import Classifier
from phoropter.training import feature_cache
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.presets import PRESETS
from phoropter.training.costs.pass_cost import PASS_FILE, PassCost, collect_pass_costs, read_pass_cost
from phoropter.training.feature_cache import extract_features
from phoropter.training.fit import TrainingTask, build_model

CPU = torch.device("cpu")


def made_task(few_digits: Any, cache: Path) -> TrainingTask:
    dataset, pixels = few_digits
    entry = {"backbone": "test_resnet", "weights": "random", "size": 32, "frozen": True, "recipe": "probe"}
    return TrainingTask(
        parse_candidates([entry], PRESETS["scratch"])[0],
        make_splits(dataset, KFold(2, seeds=[0]))[0],
        dataset,
        pixels,
        CPU,
        cache,
    )


def ticking(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """A clock that goes on by `seconds` between two looks at it."""
    ticks: Iterator[float] = (seconds * i for i in range(10**6))
    monkeypatch.setattr("phoropter.training.feature_cache.time.perf_counter", lambda: next(ticks))


def test_a_pass_notes_its_seconds_images_and_batch(few_digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = made_task(few_digits, tmp_path)
    monkeypatch.setattr(feature_cache, "choose_inference_batch", lambda side, device: 32)
    ticking(monkeypatch, 0.5)
    features = extract_features(build_model(task), task.pixels, tmp_path, CPU)
    (cost,) = collect_pass_costs(features).values()
    count = len(task.pixels)
    assert (cost.images, cost.batch, cost.device) == (count, 32, "cpu")
    assert cost.setup_seconds == 0.5  # of the network, once
    assert cost.seconds == pytest.approx(0.5 + 0.5 * -(-count // 32))  # half a second for each block
    assert cost.seconds_per_further_image == pytest.approx((cost.seconds - 0.5) / count)
    assert cost.seconds_per_image == pytest.approx(cost.seconds / count)
    assert cost.peak_memory_bytes > 50 * 2**20
    again = extract_features(build_model(task), task.pixels, tmp_path, CPU)  # from the cache
    assert collect_pass_costs(again) == collect_pass_costs(features)
    assert len(collect_pass_costs([*features, *features])) == 1  # a backbone that is named twice was asked once


def test_a_resumed_pass_is_scaled_to_all_images_and_a_lost_note_is_measured_again(
    few_digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = made_task(few_digits, tmp_path)
    monkeypatch.setattr(feature_cache, "choose_inference_batch", lambda side, device: 16)
    count = len(task.pixels)

    def killed(done: int, total: int) -> None:
        if done >= total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_features(build_model(task), task.pixels, tmp_path, CPU, killed)
    ticking(monkeypatch, 0.5)
    features = extract_features(build_model(task), task.pixels, tmp_path, CPU)
    (cost,) = collect_pass_costs(features).values()
    assert cost.seconds == pytest.approx(0.5 + 0.5 * count / 16, rel=0.2)  # and not of the half computed now
    (file,) = (tmp_path / "features").glob(f"*/{PASS_FILE}")
    file.unlink()
    (lost,) = collect_pass_costs(extract_features(build_model(task), task.pixels, tmp_path, CPU)).values()
    assert lost.seconds == pytest.approx(0.5 + 0.5 * count / 16) and lost.images == count
    file.write_text("{}")
    assert read_pass_cost(file.parent) is None


def test_the_batch_does_not_depend_on_where_a_pass_was_interrupted(
    few_digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[int] = []
    task = made_task(few_digits, tmp_path)
    forward = Classifier.forward_features

    def counted(model: Classifier, pictures: torch.Tensor, only: int | None = None) -> Any:
        shown.append(len(pictures))
        return forward(model, pictures, only)

    monkeypatch.setattr(feature_cache, "choose_inference_batch", lambda side, device: 64)
    monkeypatch.setattr(Classifier, "forward_features", counted)  # of the copy, too, whose norms are folded
    extract_features(build_model(task), task.pixels, tmp_path, CPU)
    count = len(task.pixels)
    assert shown == [min(64, count - start) for start in range(0, count, 64)]


def test_arrays_that_are_in_no_cache_owe_nothing() -> None:
    assert collect_pass_costs([np.zeros((3, 2), dtype=np.float32)]) == {}
    assert PassCost(seconds=2.0, images=4, batch=2, peak_memory_bytes=1, device="cpu").seconds_per_image == 0.5

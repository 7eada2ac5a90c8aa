"""Memory and sizes of a plan against sums by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from phoropter.core.files import format_bytes
from phoropter.models import catalog
from phoropter.study.forecasts import memory_forecast as forecast
from phoropter.study.plan import Plan, plan_study
from phoropter.study.spec import read_study

STUDY = """\
name: tiny
data: {digits: true, size: 48, max_samples: 60}
protocol: {split: stratified-k-fold, folds: 3, seeds: [0]}
candidates:
"""
NETWORK = "backbone: test_resnet, weights: random"


def count_weights() -> int:
    count = catalog.find_architecture("test_resnet").parameters
    assert count is not None
    return count


def planned(tmp_path: Path, *candidates: str) -> Plan:
    file = tmp_path / "study.yaml"
    file.write_text(STUDY + "".join(f"  - {{{c}}}\n" for c in candidates))
    return plan_study(read_study(file)[0], tmp_path / "cache")


@pytest.mark.parametrize(
    ("candidate", "copies", "images", "each"),
    [
        ("frozen: true, recipe: probe", 1, 128, 100),  # at 64 pixels, 128 images a batch
        ("recipe: {preset: scratch, epochs: 1, batch_size: 64}", 4, 64, 640),
        ("recipe: {preset: scratch, epochs: 1, batch_size: 2}", 4, 128, 100),  # predictions need more than training
        ("frozen: true, recipe: {preset: probe, augment: [hflip], batch_size: 512}", 1, 512, 100),  # new views in each epoch
    ],
)
def test_memory_is_libraries_weights_and_activations(tmp_path: Path, candidate: str, copies: int, images: int, each: int) -> None:
    expected = 620 * 2**20 + 4 * (copies * count_weights() + images * 64**2 * each)
    assert forecast.estimate_peak_memory(planned(tmp_path, f"name: a, {NETWORK}, size: 64, {candidate}")) == expected


def test_a_baseline_needs_what_the_process_holds(tmp_path: Path) -> None:
    network = f"name: a, {NETWORK}, size: 64, frozen: true, recipe: probe"
    assert forecast.estimate_peak_memory(planned(tmp_path, "baseline: mean-image")) == 620 * 2**20
    assert forecast.estimate_peak_memory(planned(tmp_path, network, "baseline: mean-image")) == forecast.estimate_peak_memory(
        planned(tmp_path, network)
    )


def test_branches_follow_one_another_where_they_are_frozen_and_add_up_where_they_are_trained(tmp_path: Path) -> None:
    def peak(recipe: str, *seeds: int) -> int:
        parts = [f"{{name: test_resnet, weights: random, size: 64, seed: {seed}}}" for seed in seeds]
        entry = f"fuse: [{', '.join(parts)}], {recipe}" if len(parts) > 1 else f"{NETWORK}, size: 64, {recipe}"
        return forecast.estimate_peak_memory(planned(tmp_path, f"name: a, {entry}"))

    weights = 4 * count_weights()
    frozen, trained = "frozen: true, recipe: probe", "recipe: {preset: scratch, epochs: 1, batch_size: 64}"
    assert peak(frozen, 1, 2) == peak(frozen, 1) + weights
    assert peak(trained, 1, 2) == 2 * peak(trained, 1) - forecast.PROCESS_BYTES


def test_a_study_needs_what_its_largest_candidate_needs(tmp_path: Path) -> None:
    small, large = f"name: a, {NETWORK}, size: 32", f"name: b, {NETWORK}, size: 96"
    each = [forecast.estimate_peak_memory(planned(tmp_path, entry)) for entry in (small, large)]
    assert forecast.estimate_peak_memory(planned(tmp_path, small, large)) == max(each) > min(each)


def test_sizes_are_told_where_they_differ(tmp_path: Path) -> None:
    plan = planned(
        tmp_path, f"name: a, {NETWORK}, size: 96", f"name: b, {NETWORK}", f"name: c, {NETWORK}, size: 96, recipe: probe"
    )
    assert forecast.describe_shown_sizes(plan) == ["images are stored at 48, shown at 96: a, c"]
    assert forecast.describe_shown_sizes(planned(tmp_path, f"name: b, {NETWORK}")) == []


def test_a_plan_says_what_computing_activations_again_would_save(tmp_path: Path) -> None:
    """Of the candidate that needs most, where it is trained and needs gigabytes; the forecast then is the one of that recipe."""
    trained = f"name: a, {NETWORK}, size: 224, recipe: {{preset: scratch, batch_size: 64%s}}"
    plain, again = planned(tmp_path, trained % ""), planned(tmp_path, trained % ", grad_checkpointing: true")
    left = 620 * 2**20 + 4 * (4 * count_weights() + 64 * 224**2 * 220)
    assert forecast.estimate_peak_memory(again) == left < forecast.estimate_peak_memory(plain)
    said = forecast.describe_memory_saving(plain)
    assert said is not None and said.startswith(f"'a' needs most, and about {format_bytes(left)} with grad_checkpointing: true")
    assert forecast.describe_memory_saving(again) is None
    assert forecast.describe_memory_saving(planned(tmp_path, f"name: a, {NETWORK}, size: 64")) is None  # little in all
    assert forecast.describe_memory_saving(planned(tmp_path, "baseline: mean-image")) is None

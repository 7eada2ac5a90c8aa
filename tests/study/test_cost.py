"""Estimates of a plan's cost against numbers computed by hand."""

from __future__ import annotations

from pathlib import Path

from phoropter.models import catalog
from phoropter.models.spec import BackboneSpec
from phoropter.results.store import Store
from phoropter.study.cost import ResourceEstimate, estimate_macs, estimate_resources, update_measured_speed
from phoropter.study.plan import plan_study
from phoropter.study.spec import read_study

STUDY = """\
name: tiny
data: {digits: true, size: 32, max_samples: 120}
protocol: {split: stratified-k-fold, folds: 3, seeds: [0, 1]}
candidates:
"""


def told(tmp_path: Path, candidates: str) -> ResourceEstimate:
    file = tmp_path / "study.yaml"
    file.write_text(STUDY + candidates)
    return estimate_resources(plan_study(read_study(file)[0], tmp_path / "cache"), Store(tmp_path / "out"), tmp_path / "cache")


def test_cached_views_are_counted_in_images_bytes_and_time(tmp_path: Path) -> None:
    probe = "  - {name: a, backbone: test_resnet, frozen: true, weights: random, recipe: {preset: probe, epochs: 5"
    live = told(tmp_path, probe + ", augment: [hflip]}}\n")
    clean = told(tmp_path, probe + "}}\n")
    kept = told(tmp_path, probe + ", augment: [hflip], cached_views: 4, feature_dtype: float16}}\n")
    width = catalog.find_architecture("test_resnet").num_features
    assert width is not None
    assert (live.feature_images, live.feature_bytes) == (0, 0)
    assert (clean.feature_images, clean.feature_bytes) == (2 * 120, 2 * 120 * width * 4)  # a random backbone for each seed
    assert (kept.feature_images, kept.feature_bytes) == (2 * 120 * 5, 2 * 120 * 5 * width * 2)  # four views and the clean one
    each = kept.seconds / (2 * 120 * 5)
    assert abs(live.seconds / each - 6 * (80 * 5 + 40)) < 1e-6  # every epoch of every fold, and the rows to be tested
    assert abs(clean.seconds / each - 2 * 120) < 1e-6
    both = told(
        tmp_path,
        probe
        + ", augment: [hflip], cached_views: 4}}\n"
        + probe.replace("name: a", "name: b")
        + ", augment: [hflip], cached_views: 5}}\n",
    )
    assert both.feature_images == 2 * 120 * 6  # the larger pool holds the smaller one


def test_compiling_is_suggested_only_for_runs_long_enough_to_gain(tmp_path: Path) -> None:
    passes = 21 * 80 * 3 + 20  # 21 epochs of 80 rows, forward and backward, and half of the 40 that are tested
    update_measured_speed(
        tmp_path / "cache", "cpu", estimate_macs(BackboneSpec(name="test_resnet", weights="random"), 32) * passes * 0.1 / 75
    )  # so that it saves 75 s
    entry = "  - {name: %s, backbone: test_resnet, weights: random, size: 32, recipe: {preset: scratch, epochs: %d%s}}\n"
    long, brief, compiled = entry % ("long", 21, ""), entry % ("brief", 20, ""), entry % ("compiled", 21, ", compile: true")
    probe = long.replace("long", "probe").replace("size: 32", "size: 32, frozen: true")
    assert told(tmp_path, long + brief + compiled + probe).worth_compiling == ("long",)
    two = entry.replace("backbone: test_resnet, weights: random, size: 32", "fuse: [%s, %s]")
    one = "{name: test_resnet, weights: random, size: 32, seed: %d}"
    assert told(tmp_path, two % ("two", one % 1, one % 2, 20, "")).worth_compiling == ()  # twice as long, of two networks
    assert told(tmp_path, two % ("two", one % 1, one % 2, 21, "")).worth_compiling == ("two",)

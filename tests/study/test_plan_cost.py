"""What a plan says it would take, beside numbers computed by hand."""

from __future__ import annotations

from pathlib import Path

from phoropter.models import catalog
from phoropter.results.store import Store
from phoropter.study.plan import Cost, cost, plan
from phoropter.study.spec import read

STUDY = """\
name: tiny
data: {digits: true, size: 32, rows: 120}
protocol: {split: stratified-k-fold, folds: 3, seeds: [0, 1]}
candidates:
"""


def told(tmp_path: Path, candidates: str) -> Cost:
    file = tmp_path / "study.yaml"
    file.write_text(STUDY + candidates)
    return cost(plan(read(file)[0], tmp_path / "cache"), Store(tmp_path / "out"), tmp_path / "cache")


def test_fixed_views_are_counted_in_pictures_bytes_and_time(tmp_path: Path) -> None:
    probe = "  - {name: a, backbone: test_resnet, frozen: true, weights: random, recipe: {preset: probe, epochs: 5"
    live = told(tmp_path, probe + ", augment: [flip]}}\n")
    clean = told(tmp_path, probe + "}}\n")
    kept = told(tmp_path, probe + ", augment: [flip], fixed_views: 4, features: float16}}\n")
    width = catalog.entry("test_resnet").width
    assert width is not None
    assert (live.feature_pictures, live.feature_bytes) == (0, 0)
    assert (clean.feature_pictures, clean.feature_bytes) == (2 * 120, 2 * 120 * width * 4)  # a random backbone for each seed
    assert (kept.feature_pictures, kept.feature_bytes) == (2 * 120 * 5, 2 * 120 * 5 * width * 2)  # four views and the clean one
    each = kept.seconds / (2 * 120 * 5)
    assert abs(live.seconds / each - 6 * (80 * 5 + 40)) < 1e-6  # every epoch of every fold, and the rows to be tested
    assert abs(clean.seconds / each - 2 * 120) < 1e-6
    both = told(
        tmp_path,
        probe
        + ", augment: [flip], fixed_views: 4}}\n"
        + probe.replace("name: a", "name: b")
        + ", augment: [flip], fixed_views: 5}}\n",
    )
    assert both.feature_pictures == 2 * 120 * 6  # the larger pool holds the smaller one

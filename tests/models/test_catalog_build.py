"""Measuring an architecture: counts by hand, and the shipped catalogue's line for a small network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from phoropter.models import catalog
from phoropter.models.catalog_build import count_macs, format_catalog_line, measure_architecture, measure_non_timm


def test_multiply_adds_are_those_counted_by_hand() -> None:
    with torch.device("meta"):
        net = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 16 * 16, 7))
    net.requires_grad_(False)
    assert count_macs(net, 16) == 16 * 16 * 5 * (3 * 3 * 3) + 5 * 16 * 16 * 7


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_the_catalogue_holds_what_is_measured(name: str) -> None:
    facts = measure_architecture(name)
    known = catalog._load_catalog()["architectures"][name]
    assert format_catalog_line(name, facts)[:8] == known[:8]
    side = facts["tags"][0]["side"]
    assert catalog.find_architecture(name).side == side and facts["least"] <= side


def test_the_networks_that_are_not_timm_s_have_their_published_sizes() -> None:
    found = dict(measure_non_timm())
    assert found["alexnet"]["parameters"] == 61_100_840  # torchvision's table of models
    assert {f["width"] for f in found.values()} == {4096}
    assert found["alexnet"]["body"] == found["alexnet"]["parameters"] - (4096 + 1) * 1000

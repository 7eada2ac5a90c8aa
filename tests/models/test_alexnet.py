"""AlexNet of 2012 has the layers of the paper."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from phoropter.models.alexnet import AlexNet2012, ResponseNorm


@pytest.mark.parametrize(("groups", "count"), [(1, 62_378_344), (2, 60_965_224)])
def test_parameter_count_is_that_of_the_paper(groups: int, count: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in AlexNet2012(groups=groups).parameters()) == count


def test_every_feature_map_has_the_shape_given_in_the_paper() -> None:
    with torch.device("meta"):
        model, x = AlexNet2012(groups=2), torch.empty(1, 3, 224, 224)
        shapes = []
        for layer in model.features:
            x = layer(x)
            if isinstance(layer, (nn.Conv2d, nn.MaxPool2d)):
                shapes.append(tuple(x.shape[1:]))
    assert shapes == [
        (96, 55, 55),
        (96, 27, 27),
        (256, 27, 27),
        (256, 13, 13),
        (384, 13, 13),
        (384, 13, 13),
        (256, 13, 13),
        (256, 6, 6),
    ]


def test_with_two_groups_layers_two_four_and_five_see_half_the_maps() -> None:
    with torch.device("meta"):
        seen = [layer.weight.shape[1] for layer in AlexNet2012(groups=2).features if isinstance(layer, nn.Conv2d)]
    assert seen == [3, 48, 256, 192, 192]


def test_response_normalisation_follows_the_first_two_convolutions_only_and_pools_overlap() -> None:
    with torch.device("meta"):
        kinds = [type(layer).__name__ for layer in AlexNet2012().features]
        pools = [layer for layer in AlexNet2012().features if isinstance(layer, nn.MaxPool2d)]
    assert kinds[:8] == ["Conv2d", "ReLU", "ResponseNorm", "MaxPool2d"] * 2
    assert kinds.count("ResponseNorm") == 2
    assert [(p.kernel_size, p.stride) for p in pools] == [(3, 2)] * 3


def test_response_normalisation_equals_the_formula_in_a_literal_loop() -> None:
    a = torch.randn(2, 9, 3, 2, generator=torch.Generator().manual_seed(0)).double() * 50
    n, k, alpha, beta = 5, 2.0, 1e-4, 0.75
    expected = torch.empty_like(a)
    for b in range(2):
        for y in range(3):
            for x in range(2):
                for i in range(9):
                    around = range(max(0, i - n // 2), min(9 - 1, i + n // 2) + 1)
                    total = sum(float(a[b, j, y, x]) ** 2 for j in around)
                    expected[b, i, y, x] = float(a[b, i, y, x]) / (k + alpha * total) ** beta
    torch.testing.assert_close(ResponseNorm()(a), expected)


def test_initial_weights_are_those_of_the_paper() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AlexNet2012(num_classes=10)
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert [float(m.bias.unique().item()) for m in layers if m.bias is not None] == [0, 1, 0, 1, 1, 1, 1, 0]
    for m in layers:
        weight = m.weight.detach()
        assert abs(float(weight.std()) - 0.01) < 2e-4 and abs(float(weight.mean())) < 2e-4


def test_the_mean_of_the_last_map_is_the_identity_at_224() -> None:
    x = torch.rand(1, 256, 6, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(AlexNet2012(num_classes=2).features[-1](x), x)

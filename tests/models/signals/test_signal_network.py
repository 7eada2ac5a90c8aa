"""The network on samples: its size, its weights by the seed alone, and its convolutions against torch's one-dimensional ones."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from phoropter.models.signals.signal_network import SignalNetwork
from phoropter.training.candidates.table_spec import SIGNAL_MACS


def test_it_has_about_100_000_parameters_and_takes_windows_of_any_length() -> None:
    network = SignalNetwork(2, 3, seed=0).eval()
    assert 80_000 < sum(p.numel() for p in network.parameters()) < 120_000
    for samples in (1, 40, 256, 1024):
        assert network(torch.zeros(2, 2, samples)).shape == (2, 3)


def test_its_multiply_adds_are_those_of_the_forecast() -> None:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        SignalNetwork(2, 2, seed=0).eval()(torch.zeros(1, 2, 1024))
    assert pytest.approx(counter.get_total_flops() / 2, rel=0.05) == SIGNAL_MACS


def test_its_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = SignalNetwork(1, 2, seed=5).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    again, other = SignalNetwork(1, 2, seed=5).state_dict(), SignalNetwork(1, 2, seed=6).state_dict()
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def plain_forward(network: SignalNetwork, samples: Tensor) -> Tensor:
    """(B, K, T) → (B, C), by torch's one-dimensional functions and the network's numbers."""

    def convolve(part: nn.Sequential, x: Tensor) -> Tensor:
        convolution, norm = part[0], part[1]
        weight = convolution.weight[:, :, 0]
        x = F.conv1d(x, weight, stride=convolution.stride[1], padding=weight.shape[2] // 2)
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)

    body = network.body
    x = F.max_pool1d(F.relu(convolve(body[0], samples)), 2, ceil_mode=True)
    for block in (body[3], body[4], body[5]):
        inner = F.relu(convolve(block.convolutions[0], x))
        inner = F.relu(convolve(block.convolutions[2], inner))
        x = F.relu(convolve(block.convolutions[4], inner) + convolve(block.shortcut, x))
    return F.linear(x.mean(2), network.head.weight, network.head.bias)


def test_its_two_dimensions_compute_what_one_dimension_does() -> None:
    network = SignalNetwork(2, 4, seed=0)
    samples = torch.randn(6, 2, 300, generator=torch.Generator().manual_seed(0))
    network(samples)  # in training mode, so that the running statistics are not those of the start
    with torch.inference_mode():
        torch.testing.assert_close(network.eval()(samples), plain_forward(network, samples), rtol=1e-4, atol=1e-5)


def test_norms_and_biases_do_not_decay_and_no_part_is_frozen() -> None:
    network = SignalNetwork(1, 2, seed=0)
    named = dict([*network.backbone_parameters(), *network.head_parameters()])
    assert sum(p.numel() for p in named.values()) == sum(p.numel() for p in network.parameters())
    assert not network.uses_weight_decay("head.bias", named["head.bias"]) and network.uses_weight_decay("", named["head.weight"])
    network.freeze("all")
    with pytest.raises(AssertionError):
        network.freeze("head")

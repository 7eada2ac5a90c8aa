"""What the conclusion says of baselines: that they lead, that they are not behind, or nothing where a network is ahead."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from phoropter.report.baseline_sentence import describe_simple_baselines
from phoropter.results.metrics.registry import METRICS


@dataclass
class Candidate:
    name: str
    value: float
    table_kind: str = ""
    is_complete: bool = True
    reads_samples: bool = False
    member_names: tuple[str, ...] = ()
    values: dict[str, float] = field(default_factory=dict)

    @property
    def base_name(self) -> str:
        return self.name.partition(" · ")[0]

    def metric_mean(self, metric: str) -> float:
        return self.value


NETWORK, OTHER = Candidate("resnet50", 0.812), Candidate("vit", 0.7)
SIMPLE, MEAN = Candidate("colour-texture", 0.8, "baseline"), Candidate("mean-image", 0.79, "baseline")


def sentence(candidates: list[Candidate], *pairs: tuple[str, str, str]) -> str:
    summary: Any = SimpleNamespace(candidates=candidates, metrics=("accuracy",), ranking_metric=METRICS["accuracy"])
    found: Any = SimpleNamespace(pairs=[SimpleNamespace(a=a, b=b, verdict=verdict) for a, b, verdict in pairs])
    return describe_simple_baselines(summary, found)


def test_a_baseline_that_cannot_be_told_from_the_best_network_is_named() -> None:
    words = sentence([NETWORK, SIMPLE, OTHER], ("resnet50", "colour-texture", "cannot tell"))
    assert words == (
        "Without a network, the baseline colour-texture (80.0 % accuracy) is not shown to be behind: resnet50, the best of the "
        "networks, reaches 81.2 % accuracy."
    )


@pytest.mark.parametrize("pair", [("colour-texture", "resnet50", "ahead"), ("resnet50", "colour-texture", "behind")])
def test_a_baseline_that_leads_is_said_to(pair: tuple[str, str, str]) -> None:
    assert "colour-texture (80.0 % accuracy) is ahead of every network: resnet50" in sentence([SIMPLE, NETWORK], pair)


def test_a_baseline_that_leads_the_best_network_alone_is_not_ahead_of_every_network() -> None:
    best, other = ("colour-texture", "resnet50", "ahead"), ("colour-texture", "vit", "cannot tell")
    words = sentence([SIMPLE, NETWORK, OTHER], best, other)
    assert words.endswith("is ahead of resnet50, the best of the networks, which reaches 81.2 % accuracy.")
    assert "is ahead of every network" in sentence([SIMPLE, NETWORK, OTHER], best, (*other[:2], "ahead"))


def test_nothing_is_said_where_the_network_is_ahead_or_there_is_no_pair() -> None:
    assert sentence([NETWORK, SIMPLE], ("resnet50", "colour-texture", "ahead")) == ""
    assert sentence([NETWORK, OTHER]) == "" and sentence([SIMPLE, MEAN]) == "" and sentence([NETWORK, SIMPLE]) == ""


def test_an_average_with_a_baseline_is_no_network() -> None:
    mixed = Candidate("both", 0.85, member_names=("colour-texture", "resnet50"))
    pair = ("resnet50", "colour-texture", "cannot tell")
    assert sentence([mixed, NETWORK, SIMPLE], pair, ("both", "colour-texture", "ahead")) == sentence([NETWORK, SIMPLE], pair)
    swept = Candidate("colour-texture · size 32", 0.8, "baseline")  # members are named without what a sweep adds
    assert sentence([mixed, swept], ("both", swept.name, "cannot tell")) == ""
    networks = Candidate("two", 0.85, member_names=("vit", "resnet50"))
    assert sentence([networks, NETWORK, SIMPLE, OTHER], pair, ("two", "colour-texture", "ahead")) == ""


def test_several_share_a_sentence() -> None:
    pairs = (("resnet50", "colour-texture", "cannot tell"), ("resnet50", "mean-image", "practically the same"))
    words = sentence([NETWORK, SIMPLE, MEAN], *pairs)
    assert "the baseline colour-texture (80.0 % accuracy) and the baseline mean-image (79.0 % accuracy) are not" in words


def test_a_network_on_samples_is_a_baseline_and_still_a_network() -> None:
    samples = Candidate("signal-1d", 0.8, "baseline", reads_samples=True)
    words = sentence([NETWORK, samples], ("resnet50", "signal-1d", "cannot tell"))
    assert words.startswith("Without a network of pictures, the baseline signal-1d (80.0 % accuracy) is not shown to be behind: ")
    assert words.endswith("resnet50, the best of the networks of pictures, reaches 81.2 % accuracy.")

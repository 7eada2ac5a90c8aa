"""Values and differences of metrics in words."""

from __future__ import annotations

import pytest

from phoropter.report.render.metric_format import MetricFormat


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.018, "1.8 points of accuracy"),
        (0.0102, "1.0 point of accuracy"),
        (-0.01, "\u22121.0 points of accuracy"),
        (-0.0001, "0.0 points of accuracy"),
    ],
)
def test_a_gain_has_sign_unit_and_metric(value: float, words: str) -> None:
    assert MetricFormat("Accuracy", percent=True).describe_gain(value) == words


def test_a_gain_of_a_metric_without_percent_has_three_digits() -> None:
    assert MetricFormat("Log loss").describe_gain(0.0521) == "0.052 in log loss"
    assert MetricFormat("AUC", is_proper_name=True).describe_gain(-0.0521) == "\u22120.052 in AUC"

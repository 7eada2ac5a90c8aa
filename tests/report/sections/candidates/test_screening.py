"""The rounds of a ladder, each by its own metric."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from phoropter.report.render.table import Table
from phoropter.report.sections.candidates.screening import screening_section


def test_the_lowest_loss_and_the_highest_accuracy_come_first() -> None:
    rounds: list[dict[str, Any]] = [
        {
            "rung": 1,
            "tried": ["a", "b", "c"],
            "kept": ["c", "a"],
            "metric": "inner log-loss",
            "scores": {"a": 0.4, "b": 0.9, "c": 0.2},
        },
        {"rung": 2, "tried": ["a", "c"], "kept": ["a", "c"], "metric": "accuracy", "scores": {"a": 0.95, "c": 0.9}},
    ]
    section = screening_section(cast("Any", SimpleNamespace(summary=SimpleNamespace(study={"screening": rounds}))))
    assert section is not None
    (table,) = [part for part in section.blocks if isinstance(part, Table)]
    assert [row.values[2] for row in table.rows] == ["c", "a", "b", "a", "c"]

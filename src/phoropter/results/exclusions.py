"""The flow of exclusions: what a source held, what was left out at each step and why, and what was kept (CONSORT, STARD)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from phoropter.core.errors import StoreError, cut_message


@dataclass(frozen=True)
class ExclusionStep:
    """One step from what a source holds to the rows of a study. Raises ValueError unless found = kept + left out.

    unit:     what is counted, in the plural: recordings, windows or pictures
    found:    before the step
    left_out: (reason, count) of those that go, without counts of 0
    kept:     after the step
    groups:   different groups (people) of those that are kept; None where rows have none
    """

    unit: str
    found: int
    left_out: tuple[tuple[str, int], ...]
    kept: int
    groups: int | None = None

    def __post_init__(self) -> None:
        if self.found != self.kept + self.total_left_out or min((count for _, count in self.left_out), default=1) < 1:
            raise ValueError(f"of {self.found} {self.unit} {self.total_left_out} were left out, and {self.kept} cannot be kept")

    @property
    def total_left_out(self) -> int:
        """How many go, for all reasons together."""
        return sum(count for _, count in self.left_out)

    def plain(self) -> dict[str, Any]:
        """As study.json holds it."""
        return {**asdict(self), "left_out": [list(pair) for pair in self.left_out]}


def make_step(unit: str, kept: int, left_out: Mapping[str, int], groups: int | None = None) -> ExclusionStep:
    """The step that keeps so many and leaves out the others. left_out: reason → count, 0 where it left out none"""
    pairs = tuple((reason, count) for reason, count in left_out.items() if count)
    return ExclusionStep(unit, kept + sum(count for _, count in pairs), pairs, kept, groups)


def count_analysed(dataset: Mapping[str, Any]) -> tuple[int, int | None]:
    """Of `dataset` in study.json: (rows after the last step, their groups, None where they have none)."""
    steps = read_steps(dataset.get("exclusions") or ())
    rows, groups = int(dataset.get("rows") or 0), dataset.get("groups")
    if not steps:
        return rows, groups
    return steps[-1].kept, groups if steps[-1].groups is None else steps[-1].groups


def read_steps(written: Iterable[Mapping[str, Any]]) -> tuple[ExclusionStep, ...]:
    """The steps of a study.json. Raises StoreError for others than `plain` writes, and where counts do not add up."""
    try:
        return tuple(
            ExclusionStep(
                str(step["unit"]),
                int(step["found"]),
                tuple((str(reason), int(count)) for reason, count in step["left_out"]),
                int(step["kept"]),
                None if step.get("groups") is None else int(step["groups"]),
            )
            for step in written
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"study.json is damaged: dataset.exclusions: {cut_message(error)}; run the study again") from None

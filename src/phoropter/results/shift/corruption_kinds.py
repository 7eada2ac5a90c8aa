"""The corruptions there are: in which unit their levels are, which levels are allowed, and which are tried by default."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

VERSION = 1  # raise it when the same corruption would give other rows than before
DRAWN = frozenset({"noise", "dropout_s", "baseline_wander", "powerline"})  # kinds that draw random numbers


@dataclass(frozen=True)
class CorruptionKind:
    """title: of its panel and column · unit: of the axis · words: a level of it in a sentence, after `at`
    clean: the level that changes nothing, where there is one · low, high: bounds of a level · levels: the default ones, of
    `dropout_s` shares of a window · percent: whether a level is a share, shown × 100 · falls: whether lower levels harm more
    """

    title: str
    unit: str
    words: str
    clean: float | None
    low: float
    high: float
    levels: tuple[float, ...]
    percent: bool = False
    falls: bool = False

    def order_levels(self, levels: Iterable[float]) -> tuple[list[float], int]:
        """Levels from harmless to harmful, and the place of the rows as they are among them (0: before all levels)."""
        ordered = sorted(levels, reverse=self.falls)
        clean = float("inf") if self.clean is None else self.clean
        return ordered, sum((level > clean) if self.falls else (level < clean) for level in ordered)

    def format_level(self, level: float) -> str:
        """A level in the unit of the axis."""
        return f"{level * 100 if self.percent else level:g}"

    def describe_level(self, level: float) -> str:
        """`a blur of 2 px`"""
        return self.words.format(self.format_level(level))


KINDS: Mapping[str, CorruptionKind] = {
    "blur": CorruptionKind("Gaussian blur", "standard deviation, pixels", "a blur of {} px", 0.0, 0.0, 100.0, (1.0, 2.0, 4.0)),
    "jpeg": CorruptionKind("JPEG compression", "quality", "JPEG quality {}", None, 1.0, 100.0, (50.0, 30.0, 10.0), falls=True),
    "brightness": CorruptionKind("Brightness", "factor", "brightness × {}", 1.0, 0.0, 10.0, (0.5, 0.75, 1.5)),
    "contrast": CorruptionKind("Contrast", "factor", "contrast × {}", 1.0, 0.0, 10.0, (0.75, 0.5, 0.25), falls=True),
    "noise": CorruptionKind(
        "Noise", "standard deviation, % of the range", "noise of {} % of the range", 0.0, 0.0, 10.0, (0.05, 0.1, 0.2), True
    ),
    "dropout_s": CorruptionKind(
        "Signal lost", "seconds in each window", "{} s lost in each window", 0.0, 0.0, 1e6, (0.05, 0.1, 0.2)
    ),
    "baseline_wander": CorruptionKind(
        "Baseline wander",
        "standard deviation, % of the range",
        "baseline wander of {} % of the range",
        0.0,
        0.0,
        10.0,
        (0.1, 0.2, 0.4),
        True,
    ),
    "powerline": CorruptionKind(
        "Mains hum",
        "standard deviation, % of the range",
        "mains hum of {} % of the range",
        0.0,
        0.0,
        10.0,
        (0.05, 0.1, 0.2),
        True,
    ),
}


@dataclass(frozen=True)
class Corruption:
    """One corruption at one level. seed: of its draws · hum_hz: of mains hum · every_s: of `dropout_s`, the length of a window"""

    kind: str
    level: float
    seed: int = 0
    hum_hz: int = 0
    every_s: float = 0.0

    @property
    def key(self) -> str:
        """What names its answers: everything that decides the corrupted rows."""
        return f"{self.kind} {self.level:g} seed {self.seed} hum {self.hum_hz} every {self.every_s:g} version {VERSION}"

    @property
    def words(self) -> str:
        """`a blur of 2 px`"""
        return KINDS[self.kind].describe_level(self.level)

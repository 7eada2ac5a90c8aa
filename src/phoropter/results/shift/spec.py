"""What a study writes under `shift:`: on which corrupted versions of the test rows its finished classifiers are evaluated."""

from __future__ import annotations

from math import isfinite
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from phoropter.core.spec import Spec
from phoropter.results.shift.corruption_kinds import DRAWN, KINDS, CorruptionKind

MAX_LEVELS = 20  # of one corruption


def _accept_one_level(value: Any) -> Any:
    """`blur: 2` stands for `blur: [2]`. Raises ValueError for what is neither a level nor a list of levels."""
    if value is None or value is True:
        return value
    levels = list(value) if isinstance(value, (list, tuple)) else [value]
    if wrong := [v for v in levels if isinstance(v, bool) or not isinstance(v, (int, float)) or not isfinite(v)]:
        raise ValueError(f"{wrong[0]!r} is no level; expected true, a number or a list of numbers")
    return levels


Levels = Annotated[Literal[True] | tuple[float, ...] | None, BeforeValidator(_accept_one_level)]


class ShiftSpec(Spec):
    """Corruptions of the test rows, each `true` for its default levels or a list of levels. None named: all that fit the data.

    blur:            of pictures: standard deviation of a Gaussian blur, in pixels of the stored picture
    jpeg:            of pictures: quality of a JPEG in which they are stored and read again, 1 to 100
    brightness:      of pictures: factor of all values
    contrast:        of pictures: factor of the distance from the mean grey
    noise:           standard deviation of white noise, as a share of the range: of 0 to 255, or of a recording's own
    dropout_s:       of recordings: seconds that are lost in each window
    baseline_wander: of one-channel recordings: standard deviation of slow waves, as a share of the recording's range
    powerline:       of one-channel recordings: standard deviation of mains hum, as a share of the recording's range
    powerline_hz:    frequency of the mains hum
    seed:            of the draws of noise, dropouts, wander and hum
    """

    blur: Levels = None
    jpeg: Levels = None
    brightness: Levels = None
    contrast: Levels = None
    noise: Levels = None
    dropout_s: Levels = None
    baseline_wander: Levels = None
    powerline: Levels = None
    powerline_hz: Literal[50, 60] = 50
    seed: int = Field(default=0, ge=0)

    @property
    def named(self) -> dict[str, Literal[True] | tuple[float, ...]]:
        """The corruptions that were named, with their levels."""
        return {kind: levels for kind in KINDS if (levels := getattr(self, kind)) is not None}

    @model_validator(mode="after")
    def _check_levels(self) -> ShiftSpec:
        for name, levels in self.named.items():
            if levels is not True:
                _check_kind_levels(name, KINDS[name], levels)
        if self.named and not self.named.keys() & DRAWN and "seed" in self.model_fields_set:
            draw = "draws" if len(self.named) == 1 else "draw"
            raise ValueError(f"seed has no effect on {' and '.join(self.named)}, which {draw} nothing; leave it out")
        if self.named and "powerline" not in self.named and "powerline_hz" in self.model_fields_set:
            raise ValueError("powerline_hz belongs to powerline, which is not named; name it, or leave powerline_hz out")
        return self


def _check_kind_levels(name: str, kind: CorruptionKind, levels: tuple[float, ...]) -> None:
    """Raises ValueError for levels that are out of bounds, doubled, or that change nothing."""
    if not 1 <= len(levels) <= MAX_LEVELS:
        raise ValueError(f"{name} has {len(levels)} levels, expected 1 to {MAX_LEVELS}")
    if len({f"{level:g}" for level in levels}) < len(levels):  # as the key of its answers writes a level
        raise ValueError(f"{name} names a level twice; name it once")
    for level in levels:
        if level == kind.clean:
            raise ValueError(f"{name}: {level:g} changes nothing; leave it out: the rows as they are are always shown")
        if not kind.low <= level <= kind.high:
            raise ValueError(f"{name} is {level:g}, expected {kind.low:g} to {kind.high:g}")
        if name == "jpeg" and level != int(level):
            raise ValueError(f"jpeg is {level:g}, expected a whole number from 1 to 100")

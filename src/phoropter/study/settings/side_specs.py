"""What a study file says of side runs: shares of the training part for a learning curve, and values that are tuned inside it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from phoropter.core.errors import SpecError
from phoropter.core.spec import Spec
from phoropter.results.metrics.registry import get_metric


class LearningCurveSpec(Spec):
    """A learning curve: every candidate is also trained on shares of the training part and tested on the same rows.

    shares: of the training part, above 0 and below 1; the complete one (1) is there in any case and may be named
    of:     what a share is of: `rows`, drawn class by class, or `groups` (people); default: groups where splits keep them apart
    """

    shares: tuple[Annotated[float, Field(gt=0, le=1)], ...]
    of: Literal["rows", "groups"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _expand_list(cls, value: Any) -> Any:
        return {"shares": value} if isinstance(value, (list, tuple)) else value

    @field_validator("shares")
    @classmethod
    def _sort_shares(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        smaller = tuple(sorted(share for share in shares if share < 1))
        if not smaller:
            raise ValueError("a learning curve needs a share below 1, as in [0.1, 0.2, 0.5, 1.0]")
        if twice := next((share for share in smaller if smaller.count(share) > 1), None):
            raise ValueError(f"the share {twice:g} is named twice; name it once")
        return smaller


class TuneSpec(Spec):
    """Values chosen inside the training part of every split, by its inner folds; the candidate is then trained on all of it.

    grid:       key → values, such as `{recipe.lr: [1e-4, 3e-4]}`; every combination is tried. May be written as keys of `tune`
    folds:      inner folds of the training part, by the rule of the protocol for groups
    metric:     by which values are chosen, over all inner rows; default: the study's first
    candidates: names of the candidates that are tuned; default: all that some key affects
    """

    grid: dict[str, list[Any]]
    folds: int = Field(default=3, ge=2, le=20)
    metric: str | None = None
    candidates: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _gather_grid(cls, value: Any) -> Any:
        """Keys with a dot are keys of the grid, so that `tune: {recipe.lr: [1e-4, 3e-4]}` can be written."""
        if not isinstance(value, dict):
            return value
        dotted = {key: values for key, values in value.items() if "." in str(key)}
        if not dotted:
            return value
        rest = {key: each for key, each in value.items() if key not in dotted}
        return {**rest, "grid": {**dict(rest.get("grid") or {}), **dotted}}

    @field_validator("grid")
    @classmethod
    def _check_grid(cls, grid: dict[str, list[Any]]) -> dict[str, list[Any]]:
        if not grid:
            raise ValueError("there is nothing to choose; name a key and its values, as in recipe.lr: [1e-4, 3e-4]")
        if lone := next((key for key, values in grid.items() if len(values) < 2), None):
            raise ValueError(f"{lone} has nothing to choose from; give it two values or more, as in recipe.lr: [1e-4, 3e-4]")
        for key, values in grid.items():
            if twice := [value for place, value in enumerate(values) if value in values[:place]]:
                raise ValueError(f"{key} has the value {twice[0]} twice; name it once")
        return grid

    @field_validator("candidates")
    @classmethod
    def _check_candidates(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"the candidate '{twice}' is named twice; name it once")
        return names

    @field_validator("metric")
    @classmethod
    def _check_metric(cls, name: str | None) -> str | None:
        if name is None:
            return None
        try:
            return get_metric(name).name
        except SpecError as error:
            raise ValueError(str(error)) from None

"""The splits that candidates are planned on: those of the protocol and, for a learning curve, shares of their training parts."""

from __future__ import annotations

from dataclasses import dataclass

from phoropter.core.errors import SpecError
from phoropter.data.dataset import Dataset
from phoropter.data.splits.inner_splits import ShareUnit, keeps_groups_apart, shrink_training_part
from phoropter.data.splits.protocol import Split
from phoropter.study.spec import StudySpec


@dataclass(frozen=True, eq=False)
class SplitShare:
    """A split, and the share of its training part that it has."""

    split: Split
    share: float = 1.0


def list_shares(study: StudySpec, dataset: Dataset, splits: list[Split]) -> list[SplitShare]:
    """The splits as they are, then each share of each. Raises SpecError, and SplitError for a share that cannot be trained on."""
    whole = [SplitShare(split) for split in splits]
    if study.learning_curve is None:
        return whole
    of = resolve_share_unit(study, dataset, splits)
    found: list[SplitShare] = []
    for share in study.learning_curve.shares:
        parts = [SplitShare(shrink_training_part(dataset, split, share, of), share) for split in splits]
        if found and _is_equal(found[-len(parts) :], parts):
            where = study.source.describe_location(("learning_curve",))
            raise SpecError(f"{where}: shares {found[-1].share:g} and {share:g} are the same {of} in every split; leave one out")
        found += parts
    return whole + found


def _is_equal(smaller: list[SplitShare], larger: list[SplitShare]) -> bool:
    """Whether two shares are of the same rows in every split; they are where they are as many, since shares are nested."""
    return all(len(a.split.train) == len(b.split.train) for a, b in zip(smaller, larger, strict=True))


def resolve_share_unit(study: StudySpec, dataset: Dataset, splits: list[Split]) -> ShareUnit:
    """What the shares of a learning curve are of. Raises SpecError where it names groups and rows have none."""
    stated = study.learning_curve.of if study.learning_curve else None
    if stated == "groups" and dataset.groups is None:
        where = study.source.describe_location(("learning_curve",))
        raise SpecError(f"{where}: of: groups needs groups, and {dataset.name} names none; say of: rows, or name the groups")
    return stated or ("groups" if all(keeps_groups_apart(dataset, split) for split in splits) else "rows")

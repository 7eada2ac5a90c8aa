"""The class that a study looks for: of two classes by its name, of more as one against all others."""

from __future__ import annotations

from phoropter.core.errors import DataError, did_you_mean, join_words
from phoropter.core.spec import ClassName, Spec
from phoropter.data.dataset import Dataset
from phoropter.data.subset import find_class


class OneVsRest(Spec):
    """One class against all others.

    one_vs_rest: the name of the class
    """

    one_vs_rest: ClassName


def find_positive(dataset: Dataset, positive: str | OneVsRest | None) -> str | None:
    """The positive class as the dataset spells it; None where none is stated.

    Raises DataError for a class that the dataset does not have, and for a bare name where there are more than two classes.
    """
    if positive is None:
        return None
    if dataset.is_multi_label:
        raise DataError(
            f"positive: rows of {dataset.name} have several labels, each of which has figures of its own; leave positive out"
        )
    against_rest = isinstance(positive, OneVsRest)
    name = find_class(positive.one_vs_rest if isinstance(positive, OneVsRest) else positive, dataset.classes)
    if name not in dataset.classes:
        there = did_you_mean(name, dataset.classes) or f"; it has {join_words(list(dataset.classes), 10)}"
        raise DataError(f"positive: {dataset.name} has no class '{name}'{there}")
    if len(dataset.classes) > 2 and not against_rest:
        raise DataError(
            f"positive: '{name}' is one of {len(dataset.classes)} classes of {dataset.name}, and a positive class is one of two; "
            f"write positive: {{one_vs_rest: '{name}'}} to set it against all others, or keep two by `classes`"
        )
    return name

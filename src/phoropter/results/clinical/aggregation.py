"""One answer from several: the probabilities of the windows of a recording, or of the rows of a person, by a stated rule.

    mean    the mean of their probabilities
    vote    the share of rows in which each class is the likeliest, a row with several such classes voting for each in part; where
            classes lead with equal shares, the one with the highest mean probability is ahead by a billionth
    max     the row with the highest probability of the positive class
    top-K   the mean over the K rows with the highest probability of the positive class; of fewer rows, over all

The same function serves the study and `predict`, so that a bundle answers as its study was evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import SpecError
from phoropter.results.metrics.sufficient_sums import Floats, Ints

_PATTERN = re.compile(r"mean|vote|max|top-[1-9][0-9]{0,3}")
_TIE = 1e-9  # far below a vote among as many rows as there are, far above rounding
_WORDS = {"mean": "the mean of the probabilities", "vote": "the share of the answers", "max": "the highest probability"}


def check_rule(rule: str) -> str:
    """The rule itself. Raises ValueError for what is none."""
    if not _PATTERN.fullmatch(rule):
        raise ValueError(f"{rule!r} is no rule; expected mean, vote, max, or top-K with a number, as in top-3")
    return rule


def describe_rule(rule: str) -> str:
    """In words that `of its windows` may follow."""
    return _WORDS.get(rule, f"the mean of the {rule.removeprefix('top-')} highest probabilities")


def needs_positive(rule: str) -> bool:
    """Whether the rule looks at the probability of one class."""
    return rule not in ("mean", "vote")


def aggregate_probabilities(probabilities: NDArray[Any], owners: Ints, rule: str, positive: int | None = None) -> Floats:
    """(N, C) probabilities of rows → (O, C) of their owners. owners: (N,) 0..O-1, each of which has rows.

    positive: the column of the positive class. Raises SpecError where the rule needs one and none is given.
    """
    values, count = np.asarray(probabilities, dtype=np.float64), int(owners.max(initial=-1)) + 1
    if rule == "mean":
        return _mean_by_owner(values, owners, count)
    if rule == "vote":
        likeliest = values == values.max(axis=1, keepdims=True)
        shares = _mean_by_owner(likeliest / likeliest.sum(axis=1, keepdims=True), owners, count)
        return _settle_ties(shares, _mean_by_owner(values, owners, count))
    if positive is None:
        raise SpecError(
            f"aggregate: '{rule}' looks at the probability of the positive class, and of {values.shape[1]} classes none is; "
            "name it by data: {positive: {one_vs_rest: NAME}}, or choose mean or vote"
        )
    kept = np.concatenate([*_highest_rows(values[:, positive], owners, 1 if rule == "max" else int(rule[4:]))])
    return _mean_by_owner(values[kept], owners[kept], count)


def _settle_ties(shares: Floats, means: Floats) -> Floats:
    """(O, C) shares of votes, where several classes lead, with the one of the highest mean ahead; all else as it is.

    The order of the classes, by which the first of equal ones is the answer, is nobody's opinion.
    """
    leads = shares >= shares.max(axis=1, keepdims=True) - _TIE / 2  # sums in another order are not an advantage
    rows = np.flatnonzero(leads.sum(axis=1) > 1)
    settled = shares.copy()
    settled[rows] -= _TIE * leads[rows] / leads[rows].sum(axis=1, keepdims=True)
    settled[rows, np.where(leads, means, -1.0)[rows].argmax(axis=1)] += _TIE
    return settled


def _mean_by_owner(values: Floats, owners: Ints, count: int) -> Floats:
    sums = np.zeros((count, values.shape[1]))
    np.add.at(sums, owners, values)
    return sums / np.bincount(owners, minlength=count)[:, None]


def _highest_rows(scores: Floats, owners: Ints, most: int) -> Iterator[Ints]:
    """Of each owner, the rows with the highest scores; of equal ones the first."""
    order = np.lexsort((-scores, owners))  # stable: equal scores keep the order of the rows
    ends = np.cumsum(np.bincount(owners))
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        yield order[start : min(end, start + most)]

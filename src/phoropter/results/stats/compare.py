"""Comparison of candidates: which paired test fits the protocol, and what may be concluded from it.

    folds, repeated or not           corrected resampled t over the splits
    one group a split                Wilcoxon signed-rank over the groups, bootstrap interval of their mean difference
    one test set, several rows
      or runs a unit                 unit-swap permutation, paired bootstrap interval over the units
    one test set of independent
      cases, one run                 accuracy: exact McNemar · AUC of two classes: DeLong · else as the line above
    the same with over 500 units     paired z from the units' influences, DeLong's idea for every metric

A candidate is `ahead` only where its adjusted p and its interval agree. Two are `practically the same` only where the complete
interval lies within a margin that was set beforehand. Every other verdict is `cannot tell`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import SpecError, did_you_mean
from phoropter.core.seeds import named_generator
from phoropter.results.intervals.bootstrap import RESAMPLES, Bootstrap, UnitRows
from phoropter.results.intervals.interval_rules import MIN_UNITS, stretched_percentiles
from phoropter.results.metrics.registry import get_metric
from phoropter.results.metrics.sufficient_sums import Floats
from phoropter.results.stats.paired_tests import (
    NAN,
    PairedTest,
    adjust_holm,
    corrected_resampled_ttest,
    delong_test,
    is_equivalent,
    mcnemar_test,
    minimum_detectable_effect,
    paired_z_test,
    wilcoxon_signed_rank,
)
from phoropter.results.stats.permutation import unit_swap_test
from phoropter.results.store import Predictions

MIN_CONSTANT_SPLITS = 5  # splits that must agree to the last digit before t = ∞ is accepted; scores of small folds are coarse
NORMAL_LAW_UNITS = 500  # above, the normal law serves as well as permutations and resamples

Verdict = Literal["ahead", "behind", "cannot tell", "practically the same"]
SplitKey = tuple[Hashable, int]  # a name of the test rows and the seed of the run; equal names mean equal rows


@dataclass(frozen=True)
class Design:
    """How the splits of a study relate.

    kind: `folds` share training rows · `groups` are one left-out group each · `one test set` is the same rows for every run
    test_to_train: rows tested / rows trained on, for folds: 1/(k-1) from the full split, not from an under-sampled training part
    margin: a difference of the metric that does not matter (0.01 of accuracy is one point), where one was set beforehand
    """

    kind: Literal["folds", "groups", "one test set"]
    test_to_train: float = NAN
    margin: float | None = None
    level: float = 0.95
    seed: int = 0


@dataclass(frozen=True, eq=False)
class CandidateScores:
    """One candidate's results. predictions are needed for `one test set` only, and may be a mapping that reads lazily."""

    name: str
    scores: Mapping[SplitKey, float]
    predictions: Mapping[SplitKey, Predictions] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """a against b by one metric.

    difference, low, high: a - b and its interval, in the unit of the metric
    p, p_adjusted:  before and after Holm's correction for the family
    n_units:        the splits, groups or samples that the test treats as independent
    effect, effect_kind: see PairedTest
    detectable:     the true difference that this protocol detects with a power of 80 %
    n_left_out:     splits and seeds where not both have a defined score
    verdict:        about a · note: why there is no result
    """

    a: str
    b: str
    metric: str
    difference: float
    low: float
    high: float
    p: float
    test: str
    n_units: int
    effect: float
    effect_kind: str
    verdict: Verdict
    p_adjusted: float
    detectable: float
    n_left_out: int
    note: str = ""


def compare_pair(a: CandidateScores, b: CandidateScores, name: str, design: Design) -> Comparison:
    """One pair, without correction for a family. Raises SpecError for an unknown metric."""
    get_metric(name)
    found = _run_comparison(a, b, name, design)
    return _assign_verdict(found, found.p, design)


def compare_all_pairs(
    contenders: Iterable[CandidateScores], name: str, design: Design, pairs: Iterable[tuple[str, str]] | None = None
) -> list[Comparison]:
    """Every pair, or the named ones, as one family.

    Pairs selected by their scores (the leader against each) belong to the family of all pairs: compute all and show a few.
    Raises SpecError for an unknown metric or name.
    """
    get_metric(name)
    given = list(contenders)
    known = {t.name: t for t in given}
    if len(known) < len(given):
        raise SpecError(f"{len(given)} candidates share {len(known)} names: to compare them, give each its own")
    requested = list(combinations(known, 2) if pairs is None else pairs)
    for word in (w for pair in requested for w in pair):
        if word not in known:
            raise SpecError(f"there is no candidate '{word}' among the {len(known)} compared{did_you_mean(word, known)}")
    found = [_run_comparison(known[a], known[b], name, design) for a, b in requested]
    adjusted = adjust_holm([c.p for c in found])
    return [_assign_verdict(c, float(p), design) for c, p in zip(found, adjusted, strict=True)]


def ensemble_predictions(members: Iterable[Predictions]) -> Predictions:
    """The mean probabilities of several runs over the rows that all have, as logits."""
    each = list(members)
    ids = each[0].ids
    for other in each[1:]:
        ids = np.intersect1d(ids, other.ids)
    rows = [_find_rows(p, ids) for p in each]
    mean = np.mean([p.probabilities[r] for p, r in zip(each, rows, strict=True)], axis=0)
    logits = np.log(np.maximum(mean, np.finfo(np.float32).tiny)).astype(np.float32)
    first, r = each[0], rows[0]
    groups, sites = (None if column is None else column[r] for column in (first.groups, first.sites))
    return Predictions(first.ids[r], first.labels[r], logits, groups, sites)


def _run_comparison(a: CandidateScores, b: CandidateScores, name: str, design: Design) -> Comparison:
    common = [k for k in a.scores if k in b.scores and not np.isnan(a.scores[k] - b.scores[k])]
    left_out = len({*a.scores, *b.scores}) - len(common)
    differences = _differences_by_split(a, b, common)
    if design.kind == "groups":
        test = _test_over_groups(differences, design)
    elif design.kind == "folds" and len(differences) > 1:
        test = _test_over_folds(differences, design)
    else:
        test = _test_on_one_set(a, b, common, name, design)
    if np.isnan(test.difference) and len(differences):
        test = replace(test, difference=float(np.mean(differences)))
    detectable = minimum_detectable_effect(test.se, test.df, alpha=1 - design.level)
    note = test.note or ("" if not np.isnan(test.low) else f"no interval from {test.n_units} units")
    return Comparison(
        a.name,
        b.name,
        name,
        test.difference,
        test.low,
        test.high,
        test.p,
        test.test,
        test.n_units,
        test.effect,
        test.effect_kind,
        "cannot tell",
        test.p,
        detectable,
        left_out,
        note,
    )


def _assign_verdict(found: Comparison, p: float, design: Design) -> Comparison:
    """The comparison with its verdict, for which p and interval must agree."""
    verdict: Verdict = "cannot tell"
    if design.margin is not None and is_equivalent(found.low, found.high, design.margin):
        verdict = "practically the same"
    elif p <= 1 - design.level and (found.low > 0 or found.high < 0):
        verdict = "ahead" if (found.low > 0) == get_metric(found.metric).higher_is_better else "behind"
    return replace(found, verdict=verdict, p_adjusted=p)


def _differences_by_split(a: CandidateScores, b: CandidateScores, common: list[SplitKey]) -> Floats:
    """One difference per split. Runs that differ only in the seed are averaged, because they have the same test rows."""
    each: dict[Hashable, list[float]] = {}
    for key in common:
        each.setdefault(key[0], []).append(a.scores[key] - b.scores[key])
    return np.array([np.mean(d) for d in each.values()], dtype=np.float64)


def _test_over_folds(differences: Floats, design: Design) -> PairedTest:
    test = corrected_resampled_ttest(differences, design.test_to_train, design.level)
    if test.se == 0 and test.difference and test.n_units < MIN_CONSTANT_SPLITS:
        note = f"the same difference in all {test.n_units} splits may be chance, and leaves no spread to test by"
        return replace(test, p=NAN, low=NAN, high=NAN, note=note)
    return test


def _test_over_groups(differences: Floats, design: Design) -> PairedTest:
    test, n = wilcoxon_signed_rank(differences), len(differences)
    if n < MIN_UNITS:
        return test
    drawn = named_generator(design.seed, "bootstrap").integers(0, n, (RESAMPLES, n))
    return _add_interval(test, differences[drawn].mean(axis=1), design.level)


def _add_interval(test: PairedTest, drawn: Floats, level: float) -> PairedTest:
    low, high = stretched_percentiles(test.difference, drawn, test.n_units, level)
    return replace(test, low=low, high=high, level=level, se=float(np.std(drawn, ddof=1)), df=max(test.n_units - 1, 1))


def _test_on_one_set(a: CandidateScores, b: CandidateScores, common: list[SplitKey], name: str, design: Design) -> PairedTest:
    sheets = [_align_rows(a.predictions[k], b.predictions[k]) for k in common if k in a.predictions and k in b.predictions]
    if not sheets:
        return PairedTest("none", NAN, NAN, note=f"{len(common)} splits in common and no predictions of both: nothing to test")
    labels, units, pa, pb = (np.concatenate(column) for column in zip(*sheets, strict=True))
    once = len(np.unique(units)) == len(units)
    if once and name == "accuracy":
        return mcnemar_test(pa.argmax(axis=1) == labels, pb.argmax(axis=1) == labels, level=design.level)
    if once and name == "roc_auc" and pa.shape[1] == 2:
        return delong_test(labels == 1, pa[:, 1], pb[:, 1], design.level)
    runs = np.repeat(np.arange(len(sheets)), [len(s[0]) for s in sheets]) if len(sheets) > 1 else None
    rows, metric = UnitRows(labels, units, runs), get_metric(name)
    if metric.unavailable:
        return PairedTest("none", NAN, NAN, n_units=rows.count, note=metric.unavailable)
    if rows.count > NORMAL_LAW_UNITS or (metric.max_exact_rows is not None and len(labels) > metric.max_exact_rows):
        return paired_z_test(name, rows, pa, pb, design.level)
    test = unit_swap_test(name, labels, pa, pb, units, runs, seed=design.seed)
    draws = Bootstrap(labels, units, runs, seed=design.seed)
    values = draws.compute_replicates(name, pa).paired_values(draws.compute_replicates(name, pb))
    known = values[~np.isnan(values)]
    return _add_interval(test, known, design.level) if rows.count >= MIN_UNITS and len(known) > len(values) / 2 else test


def _align_rows(a: Predictions, b: Predictions) -> tuple[NDArray[Any], NDArray[Any], Floats, Floats]:
    """Labels, units (groups where known, else ids) and both probabilities of the rows both have, in the same order."""
    units = a.ids if a.groups is None else a.groups
    if np.array_equal(a.ids, b.ids):
        return a.labels, units, a.probabilities, b.probabilities
    ids = np.intersect1d(a.ids, b.ids)
    ra, rb = _find_rows(a, ids), _find_rows(b, ids)
    return a.labels[ra], units[ra], a.probabilities[ra], b.probabilities[rb]


def _find_rows(predictions: Predictions, ids: NDArray[Any]) -> NDArray[np.int64]:
    """(len(ids),) the row of each id, in the order of the sorted ids."""
    order = np.argsort(predictions.ids, kind="stable")
    return order[np.searchsorted(predictions.ids[order], np.sort(ids))]

"""The study in one or two plain sentences, never stronger than its numbers.

Every claim rests on a verdict of results/statistics.py, which asks the corrected p and the interval to agree; where there is none
the sentence says that this protocol cannot tell, not that there is no difference.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from phoropter.report import tables
from phoropter.report.comparisons import Comparisons
from phoropter.report.evidence import Evidence
from phoropter.report.figures import Scale
from phoropter.results.statistics import Comparison, Design

NAMED = 2  # candidates listed by name before the rest are counted


def conclusion(evidence: Evidence, found: Comparisons) -> tuple[list[str], list[str]]:
    """The sentences of the conclusion, and those in small print beside it."""
    guessing = _no_better_than_chance(evidence, found.design)
    sentences = [_qualified(_first(evidence, found, guessing), evidence)]
    if guessing and guessing not in sentences[0]:
        sentences.append(f"No candidate is {guessing}.")
    return sentences, [s for s in (_standing(evidence), _power(evidence, found)) if s]


def where(evidence: Evidence) -> str:
    """On whom: what the protocol kept apart."""
    word = str((evidence.study.get("dataset") or {}).get("group_word") or "group") + "s"
    if evidence.grouped and evidence.protocol.get("allow_group_overlap"):
        return f"on unseen rows of {word} that were partly trained on"
    if evidence.protocol.get("split") == "sites" and not any(e.unseen for e in evidence.entrants):
        return "on unseen sites"  # with folds inside the training sites, the unseen ones are reported beside
    return f"on unseen {word}" if evidence.grouped else "on unseen rows"


def _first(evidence: Evidence, found: Comparisons, guessing: str) -> str:
    leader = evidence.entrants[0].name
    value = Scale.of(evidence.metric).text(evidence.entrants[0].mean(evidence.metrics[0]))
    title = Scale.of(evidence.metric).in_text
    if not found.of_leader:
        return f"{leader} reaches {value} {title} {where(evidence)}; there is no other candidate to compare it with."
    beaten = [c for c in found.of_leader if c.verdict == "ahead"]
    others = [c for c in found.of_leader if c.verdict != "ahead"]
    if not beaten:
        return _nothing(evidence, found)
    if guessing:
        return f"This protocol finds no candidate ahead: {leader} comes first {where(evidence)}, but is not {guessing}."
    against = beaten[0]
    ahead = f"{leader} is ahead of {against.b} by {amount(against, evidence)} {where(evidence)}"
    if not others:
        rest = len(beaten) - 1
        return f"{ahead}" + (f", and ahead of the other {rest} candidate{'s' if rest > 1 else ''} too." if rest else ".")
    same = [c for c in others if c.verdict == "practically the same"]
    open_ = [c for c in others if c.verdict != "practically the same"]
    ahead += _and_of(beaten[1:])
    text = [f"{ahead}; "]
    text += [f"practically the same as {_names(same)}" + ("; " if open_ else ".")] if same else []
    text += [f"whether it differs from {_names(open_)}, this protocol cannot tell."] if open_ else []
    return "".join(text)


def _nothing(evidence: Evidence, found: Comparisons) -> str:
    """The leader is ahead of nobody."""
    leader, second = evidence.entrants[0].name, found.of_leader[0]
    same = [c for c in found.of_leader if c.verdict == "practically the same"]
    if len(same) == len(found.of_leader):
        return f"All {len(evidence.entrants)} candidates are practically the same {where(evidence)}."
    if all(np.isnan(c.p) for c in found.of_leader):
        return (
            f"{leader} comes first {where(evidence)}, but its lead cannot be tested: {second.note or 'there are too few splits'}."
        )
    if len(found.of_leader) == 1:
        apart = f"they differ by {amount(second, evidence)} {where(evidence)}"
        return f"{leader} and {second.b} cannot be told apart by this protocol: {apart}."
    others = len(found.of_leader)
    text = (
        f"This protocol finds no candidate ahead: {leader} comes first {where(evidence)}, but cannot be told apart from any of "
    )
    return f"{text}the {others} others; from {second.b}, the next, it differs by {amount(second, evidence)}."


def amount(found: Comparison, evidence: Evidence) -> str:
    """How much better the first is, with its interval: `1.8 points of accuracy (95 % interval 0.4 to 3.1)`."""
    sign = 1 if evidence.metric.higher_is_better else -1
    factor = 100 if evidence.metric.percent else 1
    values = sorted((sign * found.low * factor, sign * found.high * factor))
    digits = 1 if evidence.metric.percent else 3
    value = sign * found.difference * factor
    unit = f"point{'' if f'{value:.{digits}f}' == '1.0' else 's'} of " if evidence.metric.percent else "in "
    bounds = " to ".join(f"{v:.{digits}f}".replace("-", "\u2212") for v in values)
    interval = f" (95 % interval {bounds})" if np.isfinite(values).all() else ""
    return f"{value:.{digits}f} ".replace("-", "\u2212") + unit + Scale.of(evidence.metric).in_text + interval


def _and_of(beaten: Sequence[Comparison]) -> str:
    return f", and ahead of {_names(beaten)}" if beaten else ""


def _names(found: Sequence[Comparison]) -> str:
    """`a, b and 3 more`."""
    names = [c.b for c in found]
    if len(names) > NAMED + 1:
        return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _qualified(sentence: str, evidence: Evidence) -> str:
    """With what must be known before it is believed."""
    words = []
    if evidence.study.get("scale"):
        words.append("in this small stand-in for the study")
    if evidence.finished < evidence.planned:
        words.append(f"after {evidence.finished:,} of {evidence.planned:,} runs")
    start = ", ".join(words)
    return f"{start[:1].upper()}{start[1:]}: {sentence}" if start else sentence


def _no_better_than_chance(evidence: Evidence, design: Design) -> str:
    """What the leader is not, `clearly better than …`; empty where it is, or where guessing has no known value.

    The leader was picked among all candidates, so its bound is that of a level that allows for all of them (Bonferroni).
    Resampling rows does not know that the models of different folds share training rows, and on labels that are noise it is too
    sure; so over splits the distance to the bound grows as Nadeau & Bengio's correction lets the variance of k folds grow, from
    1/k to 1/k + 1/(k-1). How often noise passes is in docs/statistics.md.
    """
    name, first = evidence.metrics[0], evidence.entrants[0]
    base = _OF_GUESSING.get(name, tables.baseline(evidence).get(name))
    if base is None or first.replicates is None:
        return ""
    found = first.replicates.interval(1 - (1 - design.level) / len(evidence.entrants))
    shared = 0.0 if np.isnan(design.test_to_train) else design.test_to_train
    longer = 1.0 if design.kind == "one test set" else float(np.sqrt(2 + shared))
    words = "chance" if name in _OF_GUESSING else "always answering the commonest class"
    return "" if found.estimate - longer * (found.estimate - found.low) > base else f"clearly better than {words}"


_OF_GUESSING = {"roc_auc": 0.5, "mcc": 0.0, "kappa": 0.0}  # whatever the classes' shares


def _standing(evidence: Evidence) -> str:
    scale, first = Scale.of(evidence.metric), evidence.entrants[0]
    bounds = tables.interval(first)
    text = f"{first.name} has {scale.text(first.mean(evidence.metrics[0]))} {Scale.of(evidence.metric).in_text}"
    if np.isfinite(bounds.low):
        unit = "groups" if evidence.grouped else "rows"
        text += f" (95 % interval {scale.text(bounds.low)} to {scale.text(bounds.high)}, over {evidence.units:,} {unit})"
    base = tables.baseline(evidence).get(evidence.metrics[0])
    text += f"; always answering the commonest class has {scale.text(base)}." if base is not None else "."
    if first.unseen is None:
        return text
    found = first.unseen.interval
    bounds_there = f" (95 % interval {scale.text(found.low)} to {scale.text(found.high)})" if np.isfinite(found.low) else ""
    return f"{text} On sites never trained on, its models averaged have {scale.text(found.estimate)}{bounds_there}."


def _power(evidence: Evidence, found: Comparisons) -> str:
    detectable = found.of_leader[0].detectable if found.of_leader else float("nan")
    if not np.isfinite(detectable) or not detectable > 0:
        return ""
    size = f"{detectable * 100:.1f} points" if evidence.metric.percent else f"{detectable:.3f}"
    return (
        f"Between the first two, one comparison under this protocol would have found a true difference of {size} 8 times in 10."
    )

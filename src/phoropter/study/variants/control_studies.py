"""The negative controls of a study as studies of their own: one candidate, the same rows, other labels or other pictures.

labels-permuted, blank-pictures and time-shuffled are run on the folds of the study. The classes of predict-site and predict-group
are others, and so are their folds: of sites such that every site is on both sides and groups are kept apart, of groups such that
every group is on both sides, in blocks of time where there are recordings.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from phoropter.core.errors import DataError, SpecError, SplitError, did_you_mean
from phoropter.data.controls.changed_rows import apply_control, permute_labels
from phoropter.data.controls.control_kinds import CONTROL_FOLDS, SHORTCUTS, ControlName
from phoropter.data.dataset import Dataset
from phoropter.data.splits.protocol import Split, make_splits
from phoropter.data.splits.spec import ProtocolSpec
from phoropter.study.spec import StudySpec
from phoropter.training.candidates.candidate import Candidate

SHORTCUT_METRIC = "balanced_accuracy"  # at guessing 1 / classes, however unequal sites or groups are


def choose_controlled(study: StudySpec) -> Candidate:
    """The candidate whose controls are computed: the named one, else the first frozen network, else the first network.

    Raises SpecError for another name, for a candidate without a network of pictures, and for a student: where nothing can be
    learnt its teacher is near guessing, and such a teacher is refused.
    """
    candidates, where = study.parsed_candidates, study.source.describe_location(("controls",))
    networks = [c for c in candidates if c.table is None and not c.is_ensemble and not _is_taught(c, candidates)]
    named = study.controls and study.controls.candidate
    if named:
        found = next((c for c in candidates if c.name == named), None)
        if found is None:
            known = [c.name for c in candidates]
            raise SpecError(f"{where}: candidate: '{named}' is no candidate of this study{did_you_mean(named, known)}")
        if found.table is not None or any(each.table is not None for each in _with_needed(found, candidates)):
            what = "looks at no pictures" if found.table is not None else "averages a candidate that looks at no pictures"
            raise SpecError(f"{where}: candidate: '{named}' {what}; name a candidate of networks of pictures")
        if _is_taught(found, candidates):
            raise SpecError(
                f"{where}: candidate: '{named}' learns from a teacher, who is refused where nothing can be learnt; name the "
                "teacher"
            )
        return found
    if not networks:
        raise SpecError(f"{where}: controls are of a network of pictures, and the study has none; add one, or leave controls out")
    return next((c for c in networks if c.frozen), networks[0])


def make_control_study(
    study: StudySpec, kind: ControlName, dataset: Dataset, size: int, folds_file: Path | None = None
) -> StudySpec:
    """The study of one control.

    dataset: of the study, as it is · size: side at which its pictures are stored · folds_file: with its splits, for
    labels-permuted, whose folds would be others by other labels; None: planned by the study's own
    """
    changes: dict[str, Any] = {"size": size, "control": kind, "subgroups": ()}
    protocol = study.protocol
    if kind in SHORTCUTS:
        changes["positive"] = None
        protocol = _make_shortcut_protocol(study.protocol, kind, dataset)
    elif kind == "labels-permuted" and folds_file is not None:
        protocol = ProtocolSpec(split="file", folds_file=folds_file, seeds=study.protocol.seeds)
    elif kind == "labels-permuted":
        changes["control"] = None
    kept = ("aggregate", "metrics", "recipe")
    fields = {name: getattr(study, name) for name in kept} | ({"metrics": (SHORTCUT_METRIC,)} if kind in SHORTCUTS else {})
    control = StudySpec(
        name=f"{study.name[:60]}-{kind}",
        data=study.data.with_changes(**changes),
        protocol=protocol,
        candidates=_with_needed(choose_controlled(study), study.parsed_candidates),
        save_models="none",
        leakage="allow",
        **fields,
    )
    context = study.context
    return control.with_context(source=context.source, base=context.base)


def check_controls(study: StudySpec, dataset: Dataset, splits: Sequence[Split]) -> None:
    """Raises SpecError for a control that makes no sense for these rows or folds, before anything is computed."""
    if study.controls is None:
        return
    where = study.source.describe_location(("controls",))
    if study.protocol.split == "test-only":
        raise SpecError(f"{where}: controls are trained like the study, and split: test-only trains nothing; leave controls out")
    choose_controlled(study)
    for kind in study.controls.kinds:
        try:
            if kind == "labels-permuted":
                _check_permuted_labels(dataset, splits)
            elif kind in SHORTCUTS:
                make_splits(apply_control(dataset, kind), _make_shortcut_protocol(study.protocol, kind, dataset))
            else:
                apply_control(dataset, kind)
        except (DataError, SplitError) as error:
            words = str(error)
            if kind not in words:  # of folds, which do not know for what they are
                words = f"the folds of {kind}: {words}; or leave {kind} out of 'controls'"
            raise SpecError(f"{where}: {words}") from None


def _check_permuted_labels(dataset: Dataset, splits: Sequence[Split]) -> None:
    permuted = permute_labels(dataset)
    if np.array_equal(permuted, dataset.labels):
        raise DataError(f"labels-permuted exchanges nothing in {dataset.name}: it has too few rows; leave it out of 'controls'")
    if dataset.is_multi_label:
        return
    for split in splits:
        gone = np.setdiff1d(permuted[np.concatenate([split.train, split.test])], permuted[split.train])
        if len(gone):
            raise DataError(
                f"labels-permuted leaves no row of '{dataset.classes[gone[0]]}' to train on in {split.name}: there are too few "
                "groups of it; leave it out of 'controls'"
            )


def _make_shortcut_protocol(stated: ProtocolSpec, kind: ControlName, dataset: Dataset) -> ProtocolSpec:
    shared: dict[str, Any] = {"seeds": stated.seeds, "val_size": stated.val_size}
    if kind == "predict-group":
        in_time = dataset.spans is not None and dataset.recordings is not None
        split = "block-k-fold" if in_time else "stratified-k-fold"
        return ProtocolSpec(split=split, folds=CONTROL_FOLDS, allow_group_overlap=True, **shared)
    return ProtocolSpec(
        split="stratified-k-fold" if dataset.groups is None else "stratified-group-k-fold",
        folds=_count_site_folds(dataset),
        **shared,
    )


def _count_site_folds(dataset: Dataset) -> int:
    """As many folds as keep each site on both sides. Raises DataError for a site with one group, or one row."""
    assert dataset.sites is not None
    known = dataset.labelled
    units = dataset.ids if dataset.groups is None else dataset.groups
    fewest, site = min((len(np.unique(units[known & (dataset.sites == s)])), str(s)) for s in np.unique(dataset.sites[known]))
    if fewest < 2:
        raise DataError(
            f"predict-site needs each site on both sides of its folds, and '{site}' of {dataset.name} has one "
            f"{'row' if dataset.groups is None else 'group'}; leave it out of 'controls'"
        )
    return min(CONTROL_FOLDS, fewest)


def _is_taught(candidate: Candidate, candidates: Sequence[Candidate]) -> bool:
    """Whether it is a student, or needs one."""
    return any(each.distillation is not None and each.needs for each in _with_needed(candidate, candidates))


def _with_needed(candidate: Candidate, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidate after all that it needs: its members, its teacher, and what these need."""
    by_name = {c.name: c for c in candidates}
    found: dict[str, Candidate] = {}

    def add(each: Candidate) -> None:
        for need in each.needs:
            add(by_name[need])
        found[each.name] = each

    add(candidate)
    return list(found.values())

"""Takes the finished runs of one results folder into another of the same study: one half computed here, one there.

A run is copied whole and checked before it counts, and afterwards is the same bytes as in its source. What both folders hold is
compared; the target's stays. Answers on corrupted rows, which lie beside a run, follow it.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from phoropter.core.errors import StoreError
from phoropter.core.files import atomic_write_folder, make_folder
from phoropter.results.shift.answer_file import take_shift_answers
from phoropter.results.store import Predictions, Store


@dataclass
class MergeOutcome:
    """Keys of runs. taken: copied · same, other: in both, with equal and with other predictions · damaged: left in the source ·
    unplanned: finished there, and not in the target's plan · busy: computed by another process now"""

    taken: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    unplanned: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)


def merge_results(target: Path, source: Path) -> MergeOutcome:
    """Copies the finished runs of `source` that the plan of `target` has and `target` lacks.

    Raises StoreError where one is no results folder, both are the same, or no run of one is in the plan of the other: another
    study, or the same with other data, weights or phoropter.
    """
    into, taken_from = Store(target), Store(source)
    planned = set(into.planned_keys)
    if target.resolve() == source.resolve():
        raise StoreError(f"{target} and {source} are the same folder: name two results folders of one study")
    if planned.isdisjoint(taken_from.planned_keys):
        raise StoreError(
            f"{source} ({taken_from.study['name']}) has no run in common with {target} ({into.study['name']}): merge takes two "
            "results folders of one study, with the same data, weights and phoropter"
        )
    outcome = MergeOutcome()
    for folder in sorted((source / "runs").glob("[0-9a-f]*/")):
        key = folder.name
        if taken_from.find_run_damage(key) is not None:
            outcome.damaged.append(key)
        elif key not in planned:
            outcome.unplanned.append(key)
        elif key in into:
            outcome.same.append(key) if _has_same_predictions(into, taken_from, key) else outcome.other.append(key)
        else:
            outcome.taken.append(key) if _copy_run(into, folder) else outcome.busy.append(key)
        if key in outcome.taken or key in outcome.same:
            take_shift_answers(source, target, key, Predictions.load(folder / "predictions.npz").logits)
    return outcome


def _copy_run(into: Store, folder: Path) -> bool:
    """Copies a run folder, bundle and all; False where another process computes the run now."""
    with into.hold_lease(folder.name) as mine:
        if not mine:
            return False
        target = into.run(folder.name).folder
        make_folder(target.parent)
        with atomic_write_folder(target) as aside:
            shutil.copytree(folder, aside, dirs_exist_ok=True)
        if folder.name not in into:
            raise StoreError(f"{target} is not what {folder} is: the disk may be failing; merge again")
        into.forget_failure(folder.name)
        into.clear_work(folder.name)
    return True


def _has_same_predictions(one: Store, other: Store, key: str) -> bool:
    files = [store.run(key).folder / "predictions.npz" for store in (one, other)]
    return files[0].read_bytes() == files[1].read_bytes()

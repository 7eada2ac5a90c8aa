"""The results folder: all that running writes and all that reporting reads. A run exists when its folder is there and sound.

    DIR/study.json            study, dataset, plan (every run with its key), audit, versions
    DIR/runs/KEY/             one finished run, moved here when it is complete
        record.json           candidate, split, seed, recipe, cost, versions, digests
        history.csv           one row per epoch
        predictions.npz       id, label, logits and, where known, group, site, start_s, stop_s, features: the held-out rows
        validation.npz        the same for the inner validation part, where there is one
        external.npz          the same for unseen sites, where there are any
        pictures.npz          small JPEGs of the most confident mistakes
        checksums.json        of all these files; compared before a run counts as done
        bundle/               the trained classifier, if it is kept
    DIR/damaged/KEY/          a run whose files were damaged, moved here when it was made again
    DIR/failed/KEY.json       why a run failed; the next call tries it again
    DIR/work/KEY/             checkpoints of a run in progress, and `now.json`, its state
    DIR/locks/KEY.lock        held by the process that computes KEY; free when that process dies
    DIR/locks/looking.lock    held for a moment by a process that only inspects the locks

No torch, no pickle: arrays are read with allow_pickle=False and bounded in size.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import filelock

from phoropter.core.errors import StoreError
from phoropter.core.files import atomic_write, atomic_write_folder, file_lock, make_folder, remove_leftovers, remove_unfinished
from phoropter.core.storage.checksums import describe_file_state, print_notice, remove_path, set_aside, write_checksums
from phoropter.core.storage.sealed_json import read_json_object
from phoropter.results.record_shapes import (
    FailureShape,
    OtherFormatError,
    ProgressShape,
    StudyShape,
    check_shape,
    read_record_file,
    write_record_file,
)
from phoropter.results.remote_store import RemoteStore, find_remote
from phoropter.results.run_folder import Predictions, Run, RunWriter, explain_no_study, write_image_archive

__all__ = ["Predictions", "Run", "RunState", "RunWriter", "Store", "write_image_archive", "write_progress_note"]

RunState = Literal["done", "running", "failed", "damaged", "missing"]
_KEY_PATTERN = re.compile(r"[0-9a-f]{32}")
_STUDY_WAY_OUT = "run the same study with the same -o again, which writes it anew and keeps the finished runs"


class Store:
    """A results folder. Reading needs no lock; writing a run requires its lease."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._study: tuple[tuple[int, ...], dict[str, Any]] = ((), {})
        self._sound: dict[str, tuple[int, ...]] = {}  # key → state of its record on the disk when the run was found sound

    @cached_property
    def remote(self) -> RemoteStore | None:
        """The object store that this folder mirrors; None for a folder of its own."""
        return find_remote(self.folder)

    @property
    def study(self) -> dict[str, Any]:
        """study.json. Raises StoreError where the folder holds no study, or a damaged one."""
        path = self.folder / "study.json"
        if not path.exists():
            raise StoreError(explain_no_study(self.folder))
        state = describe_file_state(path)
        if self._study[0] != state:
            self._study = (state, read_record_file(path, StudyShape, _STUDY_WAY_OUT))
        return dict(self._study[1])

    def read_earlier_study(self) -> dict[str, Any]:
        """study.json of an earlier call, for one that will write it anew; nothing where there is none.

        A damaged one is renamed, which is said. Raises StoreError for one of another format.
        """
        path = self.folder / "study.json"
        if not path.exists():
            return {}
        try:
            return self.study
        except OtherFormatError:
            raise
        except StoreError as error:
            with file_lock(self.folder / "locks" / "study.lock"):  # several processes may find it at once
                if path.exists():
                    aside = set_aside(path)
                    print_notice(f"{str(error).partition(';')[0]}: it was renamed to {aside.name} and is written anew")
        return {}

    def write_study(self, study: Mapping[str, Any]) -> None:
        """Writes study.json, replacing the one of an earlier call."""
        write_record_file(self.folder / "study.json", study)
        if self.remote is not None:
            self.remote.upload_file(self.folder / "study.json")

    def runs(self) -> Iterator[Run]:
        """Every finished and sound run of the plan, in its order and under its names; runs of earlier plans are left out."""
        planned = [(str(p["key"]), str(p.get("candidate", ""))) for p in self.study["plan"]]
        return (replace(self.run(key), planned_name=name) for key, name in planned if key in self)

    @property
    def planned_rows(self) -> list[dict[str, Any]]:
        """Of every run that the study computes: those that are compared (`plan` of study.json), then side runs (`side_plan`)."""
        study = self.study
        return [*study["plan"], *study.get("side_plan", ())]

    @property
    def planned_keys(self) -> list[str]:
        """Key of every run that the study computes, in the order of `planned_rows`."""
        return [str(row["key"]) for row in self.planned_rows]

    def count_finished_runs(self) -> int:
        """Finished and sound runs, side runs among them."""
        return sum(key in self for key in self.planned_keys)

    def find_unplanned_runs(self) -> list[str]:
        """Names of the folders under runs/ that are of no run of the plan: of earlier plans, or copied. Nothing reads them."""
        return sorted(self.list_run_folders() - set(self.planned_keys))

    def list_run_folders(self) -> set[str]:
        """Names of all folders of runs, sound or not, by one look at the folder that they are in."""
        with suppress(FileNotFoundError), os.scandir(self.folder / "runs") as entries:
            return {entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()}
        return set()

    def run(self, key: str) -> Run:
        return Run(self._run_folder(key))

    def __contains__(self, key: str) -> bool:
        """Whether a run is finished and sound."""
        return self._run_folder(key).is_dir() and self.find_run_damage(key) is None

    def find_run_damage(self, key: str) -> str | None:
        """What is wrong with a run's folder, in words; None where the run is sound or not there.

        All its files are read once by this object; afterwards a run counts as sound while its record stays the same file.
        """
        folder = self._run_folder(key)
        with suppress(OSError):
            if self._sound.get(key) == describe_file_state(folder / "record.json"):
                return None
        if not folder.is_dir():
            return None
        damage = self.run(key).find_damage()
        if damage is None:
            self._sound[key] = describe_file_state(folder / "record.json")
        return damage

    def read_damage(self) -> dict[str, str]:
        """Key → what is wrong, for the runs of the plan whose folders are damaged."""
        return {key: damage for key in self.planned_keys if (damage := self.find_run_damage(key)) is not None}

    def set_aside_damaged(self, key: str) -> None:
        """Moves the folder of a damaged run to DIR/damaged and says so. The caller holds the lease."""
        if (damage := self.find_run_damage(key)) is None:
            return
        target = self.folder / "damaged" / key
        make_folder(target.parent)
        remove_path(target)
        self._run_folder(key).rename(target)
        print_notice(f"{self._run_folder(key)} is damaged ({damage}): it was moved to {target} and is made again")

    def read_failures(self, damaged: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
        """Key → failure note, for runs of the plan that failed, and for the damaged ones, those of `read_damage`."""
        planned = {str(row["key"]): row for row in self.planned_rows}
        found = {}
        for path in sorted((self.folder / "failed").glob("*.json")):
            if path.stem in planned and path.stem not in self:
                found[path.stem] = self._read_failure(path, planned[path.stem])
        for key, damage in (self.read_damage() if damaged is None else damaged).items():
            words = f"runs/{key}: {damage}: run the study again, which makes this run again"
            found[key] = {**_describe_planned(planned[key]), "error": words, "kind": "DamagedRun", "trace": []}
        return found

    def _read_failure(self, path: Path, planned: Mapping[str, Any]) -> dict[str, Any]:
        """A note; of one that is damaged, what the plan knows."""
        try:
            note = read_record_file(path, FailureShape, "the run is tried again")
        except StoreError as error:
            return {
                **_describe_planned(planned),
                "error": f"why it failed is not known: {error}",
                "kind": "StoreError",
                "trace": [],
            }
        return {name: value for name, value in note.items() if name != "format"}

    def record_failure(self, key: str, note: Mapping[str, Any]) -> None:
        """Writes a failure note in place of a result."""
        write_record_file(self.folder / "failed" / f"{_validate_key(key)}.json", note)

    def forget_failure(self, key: str) -> None:
        """Deletes the failure note of a run that is finished by now."""
        (self.folder / "failed" / f"{_validate_key(key)}.json").unlink(missing_ok=True)

    @contextmanager
    def hold_lease(self, key: str) -> Iterator[bool]:
        """Yields True while only this process may compute `key`; False when another computes it, or the run is finished.

        A damaged folder of the run is moved out of the way first.
        """
        lock = file_lock(self.folder / "locks" / f"{_validate_key(key)}.lock")
        if not self._try_lease(lock):
            yield False
            return
        try:
            self.set_aside_damaged(key)
            with self._hold_remote_claim(key) as free:
                yield free and key not in self
        finally:
            lock.release()

    @contextmanager
    def _hold_remote_claim(self, key: str) -> Iterator[bool]:
        """Yields whether nobody else computes the run, in the store that this folder mirrors; a run that is there is fetched."""
        if self.remote is None or key in self or self.remote.fetch_run(key, self._run_folder(key)):
            yield True
            return
        with self.remote.hold_claim(key) as mine:
            if mine:  # it may have been finished before the claim was ours
                self.remote.fetch_run(key, self._run_folder(key))
            yield mine

    def is_leased(self, key: str) -> bool:
        """Whether a process is computing `key` now."""
        path = self.folder / "locks" / f"{_validate_key(key)}.lock"
        if not path.exists():
            return False
        # Only Linux tells who holds a lock without taking it. So it is taken for a moment; a worker that meets that tries again.
        with self._hold_looking_lock():
            lock = file_lock(path)
            if not _try_acquire(lock):
                return True
            lock.release()
        return False

    def _try_lease(self, lock: filelock.FileLock) -> bool:
        """Tries again while nobody inspects the locks, because the first holder may only have been inspecting."""
        if _try_acquire(lock):
            return True
        with self._hold_looking_lock():
            return _try_acquire(lock)

    @contextmanager
    def _hold_looking_lock(self) -> Iterator[None]:
        """Excludes other inspecting processes; waits at most a second, in case one was suspended."""
        inspection = file_lock(self.folder / "locks" / "looking.lock")
        acquired = _try_acquire(inspection, 1.0)
        try:
            yield
        finally:
            if acquired:
                inspection.release()

    @contextmanager
    def create_run(self, key: str) -> Iterator[RunWriter]:
        """A folder to fill; it becomes runs/KEY on leaving without an error. The caller holds the lease."""
        target = self._run_folder(key)
        make_folder(target.parent)
        remove_leftovers(target)
        self.set_aside_damaged(key)  # else the new folder could not take its name, and the run would be made for ever
        with atomic_write_folder(target) as aside:
            yield RunWriter(aside)
            write_checksums(aside)
        self.forget_failure(key)
        if self.remote is not None:
            self.remote.upload_run(target)

    def work_folder(self, key: str) -> Path:
        """The folder for the checkpoints of a run in progress; removed when the run is finished."""
        folder = self.folder / "work" / _validate_key(key)
        make_folder(folder)
        remove_unfinished(folder)
        return folder

    def clear_work(self, key: str) -> None:
        shutil.rmtree(self.folder / "work" / _validate_key(key), ignore_errors=True)

    def read_run_states(self) -> dict[str, RunState]:
        """Key → state of every planned run.

        A run is running while a process holds its lock. Its progress note is not enough, because a killed process leaves it.
        """
        damaged, folders = self.read_damage(), self.list_run_folders()
        failures = self.read_failures(damaged)

        def find_state(key: str) -> RunState:
            if key in folders and key not in damaged:
                return "done"
            if self.is_leased(key):
                return "running"
            return "damaged" if key in damaged else "failed" if key in failures else "missing"

        return {key: find_state(key) for key in self.planned_keys}

    def read_progress_notes(self) -> dict[str, dict[str, Any]]:
        """Key → what each running run last noted (candidate, split, epoch, epochs, …), and `silent_s`, the note's age in seconds.

        A note that cannot be read is left out: it is being replaced, or the run has just finished.
        """
        notes = {}
        for path in sorted((self.folder / "work").glob("*/now.json")):
            with suppress(StoreError, OSError):
                if self.is_leased(path.parent.name):
                    age = max(0.0, time.time() - path.stat().st_mtime)
                    note, _ = read_json_object(path, StoreError)
                    check_shape(note, ProgressShape, str(path), "it is written again")
                    notes[path.parent.name] = {**note, "silent_s": age}
        return notes

    def _run_folder(self, key: str) -> Path:
        return self.folder / "runs" / _validate_key(key)


def _try_acquire(lock: filelock.FileLock, wait_s: float = 0) -> bool:
    try:
        lock.acquire(timeout=wait_s, poll_interval=0.005)
    except filelock.Timeout:
        return False
    return True


def _describe_planned(planned: Mapping[str, Any]) -> dict[str, Any]:
    return {"candidate": planned.get("candidate", ""), "split": planned.get("split", ""), "seed": planned.get("seed", 0)}


def write_progress_note(folder: Path, note: Mapping[str, Any]) -> None:
    """Writes the state of a run in progress, for `status`; replaces the last one."""
    with atomic_write(folder / "now.json") as aside:
        aside.write_text(json.dumps(dict(note)), encoding="utf-8")


def _validate_key(key: str) -> str:
    if not _KEY_PATTERN.fullmatch(key):
        raise StoreError(f"'{key}' is not a run key: expected 32 hexadecimal digits")
    return key

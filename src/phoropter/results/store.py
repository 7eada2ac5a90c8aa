"""The results folder: all that running writes and all that reporting reads. A run exists when its folder does.

    DIR/study.json            study, dataset, plan (every run with its key), audit, versions
    DIR/runs/KEY/             one finished run, moved here when it is complete
        record.json           candidate, split, seed, recipe, cost, versions, digests
        history.csv           one row per epoch
        predictions.npz       id, label, logits and, where known, group, site, start_s, stop_s, features: the held-out rows
        validation.npz        the same for the inner validation part, where there is one
        external.npz          the same for unseen sites, where there are any
        pictures.npz          small JPEGs of the most confident mistakes
        bundle/               the trained classifier, if it is kept
    DIR/failed/KEY.json       why a run failed; the next call tries it again
    DIR/work/KEY/             checkpoints of a run in progress, and `now.json`, its state
    DIR/locks/KEY.lock        held by the process that computes KEY; free when that process dies
    DIR/locks/looking.lock    held for a moment by a process that only inspects the locks

No torch, no pickle: arrays are read with allow_pickle=False and bounded in size.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import filelock
import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import StoreError
from phoropter.core.files import atomic_write, atomic_write_folder, file_lock, read_json, remove_unfinished, write_json
from phoropter.results.metrics.registry import softmax

FORMAT_VERSION = 1
MAX_JSON_BYTES = 200_000_000
RunState = Literal["done", "running", "failed", "missing"]
_KEY_PATTERN = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions of one run on rows it was not trained on.

    ids (n,) str · labels (n,) int64 · logits (n, C) float32 · groups, sites (n,) str or None ·
    spans (n, 2) seconds in the recording or None · features (n, D) float16, penultimate, or None
    """

    ids: NDArray[np.str_]
    labels: NDArray[np.int64]
    logits: NDArray[np.float32]
    groups: NDArray[np.str_] | None = None
    sites: NDArray[np.str_] | None = None
    spans: NDArray[np.float64] | None = None
    features: NDArray[np.float16] | None = None

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """(n, C) softmax of the logits, in float64."""
        return softmax(self.logits)

    def save(self, path: Path) -> None:
        """Writes an npz file whose bytes depend only on the arrays."""
        optional: dict[str, Any] = {column: getattr(self, name) for name, column in _OPTIONAL_COLUMNS.items()}
        with path.open("wb") as file:
            arrays = {k: v for k, v in optional.items() if v is not None}
            np.savez(file, id=self.ids, label=self.labels, logits=self.logits, **arrays)

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Reads a file written by `save`. Raises StoreError for any other."""
        try:
            columns = _load_arrays(path)
            return cls(
                columns["id"], columns["label"], columns["logits"], **{f: columns.get(n) for f, n in _OPTIONAL_COLUMNS.items()}
            )
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise StoreError(
                f"{path} is not a predictions file ({error}): delete its run folder and run the study again"
            ) from None


_OPTIONAL_COLUMNS = {"groups": "group", "sites": "site", "spans": "span", "features": "features"}


@dataclass(frozen=True, eq=False)
class Run:
    """One finished run; its folder is read lazily."""

    folder: Path

    @property
    def key(self) -> str:
        return self.folder.name

    @cached_property
    def record(self) -> dict[str, Any]:
        """record.json: candidate, split, seed, recipe, cost, versions, digests."""
        return dict(read_bounded_json(self.folder / "record.json"))

    @property
    def candidate_name(self) -> str:
        return str(self.record["candidate"]["name"])

    @cached_property
    def history(self) -> list[dict[str, float | str]]:
        """One row per epoch; numbers as float."""
        path = self.folder / "history.csv"
        if not path.exists():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            return [{k: _parse_number(v) for k, v in row.items()} for row in csv.DictReader(file)]

    def load_predictions(self, part: str = "predictions") -> Predictions | None:
        """The predictions of one part (`predictions`, `validation`, `external`); None where there is none. Not cached."""
        path = self.folder / f"{part}.npz"
        return Predictions.load(path) if path.exists() else None

    def load_pictures(self) -> dict[str, bytes]:
        """Sample id → JPEG bytes of the most confident mistakes."""
        path = self.folder / "pictures.npz"
        if not path.exists():
            return {}
        try:
            columns = _load_arrays(path)
            ends = np.cumsum(columns["length"])
            data = columns["jpeg"].tobytes()
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise StoreError(f"{path} cannot be read ({error}): delete its run folder and run the study again") from None
        return {str(i): data[end - n : end] for i, n, end in zip(columns["id"], columns["length"], ends, strict=True)}

    @property
    def bundle_folder(self) -> Path | None:
        """The folder of the trained classifier; None where it was not kept."""
        return self.folder / "bundle" if (self.folder / "bundle").is_dir() else None


class RunWriter:
    """Writes the files of a run; the run exists once the `with` of `Store.create_run` is left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write_record(self, record: Mapping[str, Any]) -> None:
        write_json(self.folder / "record.json", {"format": FORMAT_VERSION, **record})

    def write_history(self, rows: Iterable[Mapping[str, Any]]) -> None:
        rows = list(rows)
        names = list(dict.fromkeys(name for row in rows for name in row))
        with (self.folder / "history.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)

    def write_predictions(self, predictions: Predictions, part: str = "predictions") -> None:
        predictions.save(self.folder / f"{part}.npz")

    def write_pictures(self, jpegs: Mapping[str, bytes]) -> None:
        """Sample id → JPEG bytes."""
        write_image_archive(self.folder / "pictures.npz", jpegs)


def write_image_archive(path: Path, jpegs: Mapping[str, bytes]) -> None:
    """Sample id → JPEG bytes, as one npz that `Run.load_pictures` reads."""
    with path.open("wb") as file:
        np.savez(
            file,
            id=np.array(list(jpegs), dtype=np.str_),
            length=np.array([len(j) for j in jpegs.values()], dtype=np.int64),
            jpeg=np.frombuffer(b"".join(jpegs.values()), dtype=np.uint8),
        )


class Store:
    """A results folder. Reading needs no lock; writing a run requires its lease."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    @property
    def study(self) -> dict[str, Any]:
        """study.json. Raises StoreError where the folder holds no study."""
        path = self.folder / "study.json"
        if not path.exists():
            raise StoreError(f"{self.folder} is not a results folder (no study.json in it): name the folder given to `run -o`")
        return dict(read_bounded_json(path))

    def write_study(self, study: Mapping[str, Any]) -> None:
        """Writes study.json, replacing the one of an earlier call."""
        write_json(self.folder / "study.json", {"format": FORMAT_VERSION, **study})

    def runs(self) -> Iterator[Run]:
        """Every finished run of the plan, in its order; runs of earlier plans are left out."""
        planned = [str(p["key"]) for p in self.study["plan"]]
        return (self.run(key) for key in planned if key in self)

    def run(self, key: str) -> Run:
        return Run(self.folder / "runs" / _validate_key(key))

    def __contains__(self, key: str) -> bool:
        return (self.folder / "runs" / _validate_key(key) / "record.json").exists()

    def read_failures(self) -> dict[str, dict[str, Any]]:
        """Key → failure note, for runs of the plan that failed and have not succeeded since."""
        planned = {str(p["key"]) for p in self.study["plan"]}
        notes = sorted((self.folder / "failed").glob("*.json"))
        return {n.stem: dict(read_bounded_json(n)) for n in notes if n.stem in planned and n.stem not in self}

    def record_failure(self, key: str, note: Mapping[str, Any]) -> None:
        """Writes a failure note in place of a result."""
        write_json(self.folder / "failed" / f"{_validate_key(key)}.json", dict(note))

    @contextmanager
    def hold_lease(self, key: str) -> Iterator[bool]:
        """Yields True while only this process may compute `key`; False when another computes it, or the run is finished."""
        held = file_lock(self.folder / "locks" / f"{_validate_key(key)}.lock")
        if not self._try_lease(held):
            yield False
            return
        try:
            yield key not in self
        finally:
            held.release()

    def is_leased(self, key: str) -> bool:
        """Whether a process is computing `key` now."""
        path = self.folder / "locks" / f"{_validate_key(key)}.lock"
        if not path.exists():
            return False
        # Only Linux tells who holds a lock without taking it. So it is taken for a moment; a worker that meets that tries again.
        with self._hold_looking_lock():
            held = filelock.FileLock(path)
            if not _try_acquire(held):
                return True
            held.release()
        return False

    def _try_lease(self, held: filelock.FileLock) -> bool:
        """Tries again while nobody inspects the locks, because the first holder may only have been inspecting."""
        if _try_acquire(held):
            return True
        with self._hold_looking_lock():
            return _try_acquire(held)

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
        target = self.folder / "runs" / _validate_key(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        for stale in target.parent.glob(f".{key}.aside-*"):
            shutil.rmtree(stale, ignore_errors=True)
        with atomic_write_folder(target) as aside:
            yield RunWriter(aside)
        (self.folder / "failed" / f"{key}.json").unlink(missing_ok=True)

    def work_folder(self, key: str) -> Path:
        """The folder for the checkpoints of a run in progress; removed when the run is finished."""
        folder = self.folder / "work" / _validate_key(key)
        folder.mkdir(parents=True, exist_ok=True)
        remove_unfinished(folder)
        return folder

    def clear_work(self, key: str) -> None:
        shutil.rmtree(self.folder / "work" / _validate_key(key), ignore_errors=True)

    def read_run_states(self) -> dict[str, RunState]:
        """Key → state of every planned run.

        A run is running while a process holds its lock. Its progress note is not enough, because a killed process leaves it.
        """
        failures = self.read_failures()
        return {
            key: "done" if key in self else "running" if self.is_leased(key) else "failed" if key in failures else "missing"
            for key in (str(planned["key"]) for planned in self.study["plan"])
        }

    def read_progress_notes(self) -> dict[str, dict[str, Any]]:
        """Key → what each running run last noted (candidate, split, epoch, epochs, …), and `silent_s`, the note's age in seconds.

        A note that cannot be read is left out: it is being replaced, or the run has just finished.
        """
        notes = {}
        for path in sorted((self.folder / "work").glob("*/now.json")):
            with suppress(StoreError, OSError):
                if self.is_leased(path.parent.name):
                    age = max(0.0, time.time() - path.stat().st_mtime)
                    notes[path.parent.name] = {**read_bounded_json(path), "silent_s": age}
        return notes


def _try_acquire(held: filelock.FileLock, wait_s: float = 0) -> bool:
    try:
        held.acquire(timeout=wait_s, poll_interval=0.005)
    except filelock.Timeout:
        return False
    return True


def _load_arrays(path: Path) -> dict[str, Any]:
    """Every array of an npz file; pickled objects are refused, and the file is closed in any case."""
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        return dict(file)


def read_bounded_json(path: Path) -> Any:
    """Reads a JSON file. Raises StoreError when it is missing, larger than MAX_JSON_BYTES or malformed."""
    return read_json(path, MAX_JSON_BYTES, StoreError)


def write_progress_note(folder: Path, note: Mapping[str, Any]) -> None:
    """Writes the state of a run in progress, for `status`; replaces the last one."""
    with atomic_write(folder / "now.json") as aside:
        aside.write_text(json.dumps(dict(note)), encoding="utf-8")


def _validate_key(key: str) -> str:
    if not _KEY_PATTERN.fullmatch(key):
        raise StoreError(f"'{key}' is not a run key: expected 32 hexadecimal digits")
    return key


def _parse_number(text: str | None) -> float | str:
    try:
        return float(text or "nan")
    except ValueError:
        return text or ""

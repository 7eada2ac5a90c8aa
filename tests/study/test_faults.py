"""Faults of a disk and of a clock in the middle of a study: nothing finished is lost, and the end has the same bytes.

The disk is a real one: a small file system in memory, which is filled to its last byte when a kind of file is to be written.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from phoropter.cli import main
from phoropter.core.errors import DiskError
from phoropter.data.images import cache as pixel_cache
from phoropter.results import store as stores
from phoropter.results.run_folder import RunWriter
from phoropter.results.store import Store
from phoropter.study import worker
from phoropter.study.executors import execute_study
from phoropter.study.progress import ProgressEvent
from phoropter.study.records import run_record
from phoropter.study.spec import read_study
from phoropter.study.worker import ComputeOptions
from phoropter.training.array_cache import CachedArray
from phoropter.training.loop.checkpoint import Checkpoints
from small_study import FOUR_KINDS, all_predictions

DISK_MIB = 64


def compute(folder: Path, out: Path, follow: Callable[[ProgressEvent], None] = lambda event: None) -> Store:
    """Computes the study of `folder` into `out`, with its cache beside it, and a checkpoint after each step that may have one."""
    study = read_study(folder / "study.yaml")[0]
    options = ComputeOptions("cpu", threads=1, checkpoint_s=0)
    return execute_study(study, out, follow, options=options, cache=out.parent / "cache")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.yaml").write_text(FOUR_KINDS)
    return folder


@pytest.fixture(scope="module")
def expected(study: Path) -> dict[str, bytes]:
    store = compute(study, study / "out")
    assert store.read_failures() == {}
    return all_predictions(store)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of DISK_MIB; the test is skipped, and says so, where none can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "none", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system in memory can be mounted here, which takes the rights of root ({error})")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill_disk(disk: Path) -> None:
    """Writes until not a byte more fits."""
    with (disk / "filler").open("ab", buffering=0) as file:
        for block in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(bytes(block))
            except OSError:
                continue


# What is written → the function that writes it
WRITES: dict[str, tuple[Any, str]] = {
    "pixels": (pixel_cache, "_decode_to_cache"),
    "features and logits of a teacher": (CachedArray, "_compute_blocks"),
    "checkpoint": (Checkpoints, "save"),
    "bundle": (run_record, "save_bundle"),
    "predictions": (RunWriter, "write_predictions"),
    "history": (RunWriter, "write_history"),
    "pictures": (RunWriter, "write_pictures"),
    "record": (RunWriter, "write_record"),
    "checksums": (stores, "write_checksums"),
    "study.json": (worker, "describe_study"),
}


@pytest.mark.parametrize("kind", WRITES)
def test_a_disk_that_fills_at_any_write_costs_no_finished_run_and_no_byte(
    kind: str, study: Path, expected: dict[str, bytes], disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name = WRITES[kind]
    write, filled = getattr(owner, name), list[str]()

    def fill_and_write(*arguments: Any, **keywords: Any) -> Any:
        if not filled:
            filled.append(name)
            fill_disk(disk)
        return write(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fill_and_write)
        with pytest.raises(DiskError, match=r"disk is full|free some") as caught:
            compute(study, disk / "out")
    assert filled and caught.value.exit_code == 3 and str(disk) in str(caught.value)
    finished = all_predictions(Store(disk / "out")) if (disk / "out" / "study.json").exists() else {}
    assert finished.items() <= expected.items()
    (disk / "filler").unlink()
    store = compute(study, disk / "out")
    assert all_predictions(store) == expected and store.read_failures() == {}
    assert not list(disk.rglob("*.aside-*"))


def test_a_disk_that_is_read_only_is_refused_and_the_study_goes_on_afterwards(
    study: Path, expected: dict[str, bytes], disk: Path
) -> None:
    def remount(mode: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{mode}", str(disk)], check=True)

    def stop_after_first(event: ProgressEvent) -> None:
        if event.kind == "done":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compute(study, disk / "out", stop_after_first)
    remount("ro")
    with pytest.raises(DiskError, match="its file system is read-only") as caught:
        compute(study, disk / "out")
    assert caught.value.exit_code == 3
    refused = CliRunner().invoke(main, ["run", str(study / "study.yaml"), "-o", str(disk / "out"), "--device", "cpu"])
    assert refused.exit_code == 3 and "Traceback" not in refused.output
    shown = CliRunner().invoke(main, ["status", str(disk / "out")])
    assert shown.exit_code == 0 and "1 of 4 runs done" in shown.output, shown.output
    remount("rw")
    assert all_predictions(compute(study, disk / "out")) == expected


def test_a_clock_that_is_moved_back_changes_no_byte(
    study: Path, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, hours = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: now() - 3600 * hours[0])
    notes: list[dict[str, Any]] = []

    def go_back(event: ProgressEvent) -> None:
        if event.kind == "epoch":
            hours[0] += 30.0
            notes.extend(Store(tmp_path / "out").read_progress_notes().values())

    store = compute(study, tmp_path / "out", go_back)
    assert hours[0] > 60 and all_predictions(store) == expected and store.read_failures() == {}
    assert all(note["silent_s"] >= 0 for note in notes)

"""Files are whole or absent, locks exclude, digests see contents and nothing else."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import filelock
import numpy as np
import pytest

from phoropter.core import files
from phoropter.core.errors import DiskError


def test_a_file_appears_only_when_finished(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.txt"
    with files.atomic_write(target) as aside:
        aside.write_text("half")
        assert not target.exists()
    assert target.read_text() == "half"
    assert os.listdir(target.parent) == ["file.txt"]


def test_a_file_in_a_folder_that_is_unfinished_becomes_whole_with_it(tmp_path: Path) -> None:
    with files.atomic_write_folder(tmp_path / "folder") as aside:
        files.write_text(aside / "file.txt", "text")
        assert os.listdir(aside) == ["file.txt"] and os.listdir(tmp_path) == [aside.name]
    assert (tmp_path / "folder" / "file.txt").read_text() == "text"
    with pytest.raises(RuntimeError), files.atomic_write_folder(tmp_path / "other") as aside, files.atomic_write(aside / "half"):
        raise RuntimeError
    assert os.listdir(tmp_path) == ["folder"]


def test_leftovers_are_those_of_one_folder(tmp_path: Path) -> None:
    for name in ("one", ".one.aside-x-1", ".one.aside-y-2", ".other.aside-x-1"):
        (tmp_path / name).mkdir()
    files.remove_leftovers(tmp_path / "one")
    assert sorted(os.listdir(tmp_path)) == [".other.aside-x-1", "one"]


def test_a_failure_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    files.write_text(target, "old")
    with pytest.raises(RuntimeError), files.atomic_write(target) as aside:
        aside.write_text("new")
        raise RuntimeError
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["file.txt"]


def test_a_folder_is_whole_or_absent_and_the_first_one_stays(tmp_path: Path) -> None:
    target = tmp_path / "run"
    with files.atomic_write_folder(target) as aside:
        (aside / "a").write_text("first")
        assert not target.exists()
    with files.atomic_write_folder(target) as aside:
        (aside / "a").write_text("second")
    assert (target / "a").read_text() == "first" and os.listdir(tmp_path) == ["run"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EACCES, "may not write"),
        (errno.EROFS, "file system is read-only: choose"),
    ],
)
def test_a_full_or_forbidden_disk_is_one_sentence(tmp_path: Path, number: int, words: str) -> None:
    with pytest.raises(DiskError, match=words), files.atomic_write(tmp_path / "x"):
        raise OSError(number, os.strerror(number))


def test_a_folder_in_the_place_of_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(DiskError, match=r"a\.csv could not be written because it is a folder: rename or remove it, or choose"):
        files.write_text(tmp_path / "a.csv", "1")
    assert os.listdir(tmp_path) == ["a.csv"]


def test_too_little_space_is_refused_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(DiskError, match=r"the pixels needs 1.0 KiB .* where 10 B are free"):
        files.require_space(tmp_path / "not" / "there", 1024, "the pixels")


def test_a_lock_excludes_another_process_and_dies_with_it(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    held = f"held = filelock.FileLock({str(path)!r}); held.acquire()"
    code = f"import filelock, time; {held}\nprint('held', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(filelock.Timeout):
            files.file_lock(path).acquire(timeout=0)
    finally:
        other.kill()
        other.wait()
        other.stdout.close()  # type: ignore[union-attr]
    with files.file_lock(path).acquire(timeout=5):
        pass


def test_digest_sees_contents_not_the_order_of_keys() -> None:
    assert files.digest({"a": 1, "b": [1, 2]}) == files.digest({"b": [1, 2], "a": 1})
    assert files.digest([1, 2]) != files.digest([2, 1]) and len(files.digest(None)) == 32


def test_array_digest_sees_kind_shape_and_values() -> None:
    a = np.arange(6, dtype=np.int64)
    digests = {files.digest_array(x) for x in (a, a.astype(np.int32), a.reshape(2, 3), a[::-1], a.astype(str))}
    assert len(digests) == 5
    assert files.digest_array(a[::2]) == files.digest_array(a[::2].copy())


def test_stale_pieces_of_killed_processes_are_swept(tmp_path: Path) -> None:
    (tmp_path / ".x.aside-1-ab").mkdir()
    (tmp_path / ".y.aside-1-ab").write_text("half")
    (tmp_path / "kept").write_text("whole")
    files.remove_unfinished(tmp_path)
    assert os.listdir(tmp_path) == ["kept"]


def test_nan_is_refused_in_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        files.write_json(tmp_path / "x.json", {"a": float("nan")})
    assert os.listdir(tmp_path) == []


def test_what_a_killed_process_left_is_removed_and_what_another_is_writing_stays(tmp_path: Path) -> None:
    old, young, whole = tmp_path / ".a.csv.aside-1-ab", tmp_path / ".b.csv.aside-2-cd", tmp_path / "a.csv"
    for file in (old, young, whole):
        file.write_text("x")
    os.utime(old, (time.time() - 700, time.time() - 700))
    files.remove_unfinished(tmp_path, older_than_s=600)
    assert sorted(tmp_path.iterdir()) == sorted([young, whole])
    files.remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == [whole]
    files.remove_unfinished(tmp_path / "nowhere", older_than_s=0)


def test_a_folder_that_may_not_be_written_is_told_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.require_writable(tmp_path / "new" / "results")
    assert (tmp_path / "new" / "results").is_dir() and not os.listdir(tmp_path / "new" / "results")
    (tmp_path / "file").touch()
    with pytest.raises(
        DiskError, match="is a file, and a folder is needed there: choose another folder with -o, or with PHOROPTER"
    ):
        files.require_writable(tmp_path / "file")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(DiskError, match="this user may not write there: choose another folder with -o, or with PHOROPTER_CACHE"):
        files.require_writable(tmp_path / "new")


def test_a_place_where_nothing_can_be_written_is_told_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.require_writable_place(tmp_path / "new" / "results" / "p.csv")
    assert not os.listdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match=r"p\.csv could not be written because \S*file is a file, and a folder is needed"):
        files.require_writable_place(tmp_path / "file" / "p.csv")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(DiskError, match="this user may not write there"):
        files.require_writable_place(tmp_path / "new" / "p.csv")


def test_a_read_only_disk_is_told_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=os.ST_RDONLY))
    with pytest.raises(DiskError, match="its file system is read-only"):
        files.require_writable(tmp_path)


DIES = """
import os, signal, sys
from pathlib import Path
from phoropter.core import files

print(files.make_temporary_folder("test"), flush=True)
with files.atomic_write(Path(sys.argv[1]) / "a.csv") as aside:
    aside.write_text("half")
    with files.atomic_write_folder(Path(sys.argv[1]) / "maps") as other:
        (other / "1.png").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_next_start_removes_what_a_killed_process_left_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, temporary = tmp_path / "work", tmp_path / "tmp"
    work.mkdir()
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", DIES, str(work)], env={**os.environ, "TMPDIR": str(temporary)}, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL and Path(done.stdout.strip()).is_dir() and len(os.listdir(work)) == 2
    ours = files._temporary_path(work / "b.csv")  # of a process that is alive
    others = [".b.csv.aside-0123abcd-1-ff", ".b.csv.aside-1-ff", "kept.csv"]  # of another machine, of an older version
    for name in (ours.name, *others):
        (work / name).touch()
    for name in ("phoropter-x-0123abcd-1-ff", "phoropter-catalog.jsonl"):
        (temporary / name).touch()
    monkeypatch.setattr(files, "_swept", set())
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with files.atomic_write(work / "c.csv") as aside:
        aside.write_text("whole")
    with files.temporary_folder("test") as made:
        assert made.parent == temporary and sorted(os.listdir(temporary)) == sorted(
            [made.name, "phoropter-x-0123abcd-1-ff", "phoropter-catalog.jsonl"]
        )
    assert sorted(os.listdir(work)) == sorted([ours.name, *others, "c.csv"]) and not made.exists()

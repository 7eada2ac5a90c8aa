"""Which commands compute into a results folder now, and asking them to stop, from any machine that sees the folder.

    DIR/locks/commands/HOST-PID-NUMBER.lock    held by a command while it computes; free when that command dies
    DIR/cancel.json                            the last request to stop: it is for the commands that run when it is made

A request needs no clean-up: a command compares the file with what it was when the command began.
"""

from __future__ import annotations

import os
import platform
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import filelock

from phoropter.core.files import file_lock, write_json

LOOK_INTERVAL_S = 1.0  # how often a command looks whether it is asked to stop


@contextmanager
def announce_command(folder: Path, on_cancel: Callable[[], None]) -> Iterator[None]:
    """Within it, this process is one of the commands that compute in `folder`. on_cancel: called once, in another thread

    Folders that were made for it and are empty afterwards are removed.
    """
    before = _read_request(folder)  # first: a request that meets the lock below must be newer than this
    places = [folder, folder / "locks", folder / "locks" / "commands"]
    made = [place for place in places if not place.exists()]
    host = re.sub(r"[^A-Za-z0-9.]+", "-", platform.node()) or "host"
    lock = file_lock(places[-1] / f"{host}-{os.getpid()}-{secrets.token_hex(3)}.lock")
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(LOOK_INTERVAL_S):
            if (request := _read_request(folder)) and request != before:
                on_cancel()
                return

    try:
        with lock:
            watcher = threading.Thread(target=watch, daemon=True)
            watcher.start()
            try:
                yield
            finally:
                ended.set()
                watcher.join()
    finally:
        with suppress(OSError):
            Path(lock.lock_file).unlink(missing_ok=True)
            for place in reversed(made):
                place.rmdir()  # fails where it holds anything


def list_running_commands(folder: Path) -> list[str]:
    """The commands that compute in `folder` now, as `HOST-PID`."""
    return sorted(path.stem.rpartition("-")[0] for path in (folder / "locks" / "commands").glob("*.lock") if _is_held(path))


def request_stop(folder: Path) -> None:
    """Asks every command that computes in `folder` now to stop as after SIGTERM: with a checkpoint, nothing finished lost."""
    when = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(folder / "cancel.json", {"request": secrets.token_hex(8), "when": when})


def _read_request(folder: Path) -> bytes:
    try:
        return (folder / "cancel.json").read_bytes()
    except OSError:
        return b""


def _is_held(path: Path) -> bool:
    """Whether a process holds the lock. The lock of a dead command is removed."""
    lock = file_lock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    with suppress(OSError):
        path.unlink(missing_ok=True)
    lock.release()
    return False

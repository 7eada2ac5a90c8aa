"""What a study does before its first run, and between runs, for `status` and the live page: `work/preparing.json`."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from phoropter.core.durations import format_duration
from phoropter.core.errors import PhoropterError
from phoropter.core.files import atomic_write, read_json

_FILE = Path("work") / "preparing.json"
_MAX_BYTES = 10_000
_SILENT_S = 60.0


class PreparationNote:
    """Writes what is being prepared in a results folder: every change of words, and of what goes on at most once a second."""

    interval_s = 1.0

    def __init__(self, folder: Path) -> None:
        self.path = folder / _FILE
        self._written, self._words = 0.0, ""

    def write_progress(self, words: str, done: int = 0, total: int = 0) -> None:
        """words: what is being done · done, total: of how many; a total of 0 is not shown.

        A note that cannot be written is left out.
        """
        if words == self._words and time.monotonic() - self._written < self.interval_s:
            return
        self._written, self._words = time.monotonic(), words
        with suppress(PhoropterError, OSError), atomic_write(self.path) as aside:
            aside.write_text(json.dumps({"doing": words, "done": done, "total": total}), encoding="utf-8")

    def remove(self) -> None:
        """Removes the note where one was written: what it says is done."""
        if self._words:
            self._words = ""
            with suppress(OSError):
                self.path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Removes the note in any case, and an empty results folder if the study did not get as far as its plan."""
        work, results = self.path.parent, self.path.parent.parent
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
            if not (results / "study.json").exists():
                work.rmdir()  # fails where it holds anything
                results.rmdir()


def describe_preparation(folder: Path) -> str:
    """What is being prepared in a results folder, in words; empty where nothing is."""
    path = folder / _FILE
    try:
        silent = time.time() - path.stat().st_mtime
        note: Any = read_json(path, _MAX_BYTES, PhoropterError)
        words, done, total = str(note["doing"])[:200], int(note["done"]), int(note["total"])
    except (PhoropterError, OSError, KeyError, TypeError, ValueError):
        return ""
    counted = f"{words}: {done:,} of {total:,}" if total else words
    return f"{counted} (no progress for {format_duration(silent)})" if silent > _SILENT_S else counted

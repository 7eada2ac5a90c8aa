"""Recordings that are loaded when first used, once a process, and left behind when a dataset is pickled."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

from phoropter.core.files import digest, digest_array
from phoropter.signals.recording import LoadedRecordings, Recording

MAX_MEMOIZED = 2  # sets of recordings a process keeps


class LazyRecordings:
    """Recordings and how to load them: `load(*args)` runs at the first use, and again in a process they were pickled to.

    memo: results that are costly to compute (digests, tables of windows), shared by the variants of a sweep
    """

    def __init__(self, load: Callable[..., LoadedRecordings], *args: Any) -> None:
        self.loader, self.args = load, args
        self.memo: dict[str, Any] = {}
        self._loaded: LoadedRecordings | None = None
        self._lock = threading.Lock()

    @property
    def loaded(self) -> LoadedRecordings:
        """The recordings and the problems of those that could not be read."""
        with self._lock:
            if self._loaded is None:
                self._loaded = self.loader(*self.args)
            return self._loaded

    def digest_recording(self, recording: Recording) -> str:
        """A digest of a recording's samples, channels, rate and subject."""
        name = f"digest of {recording.id}"
        if name not in self.memo:
            self.memo[name] = digest([digest_array(recording.samples), recording.channels, recording.rate_hz, recording.subject])
        return str(self.memo[name])

    def __reduce__(self) -> Any:
        return LazyRecordings, (self.loader, *self.args)


def memoize_recordings(key: Hashable, root: Path | None, load: Callable[..., LoadedRecordings], *args: Any) -> LazyRecordings:
    """The recordings `load(*args)` gave earlier in this process under `key`, unless a file beside them or `root` has changed."""
    with _memo_lock:
        if key in _memoized and _memoized[key][1] == _stamp_files(root, _memoized[key][0]):
            _memoized.move_to_end(key)
            return _memoized[key][0]
        lazy = LazyRecordings(load, *args)
        lazy.loaded  # noqa: B018  loaded now, so that the stamp belongs to the files that were read
        _memoized[key] = lazy, _stamp_files(root, lazy)
        while len(_memoized) > MAX_MEMOIZED:
            _memoized.popitem(last=False)
        return lazy


_memoized: OrderedDict[Hashable, tuple[LazyRecordings, Any]] = OrderedDict()
_memo_lock = threading.Lock()


def _stamp_files(root: Path | None, lazy: LazyRecordings) -> Any:
    if root is None:
        return None
    folders = {r.source.parent for r in lazy.loaded.recordings if r.source is not None} | {root if root.is_dir() else root.parent}
    return [
        sorted((entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in folder.iterdir())
        for folder in sorted(folders)
        if folder.is_dir()
    ]

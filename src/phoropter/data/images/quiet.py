"""Silence of packages that decode: their warnings and logs go nowhere, in all threads, while any thread decodes."""

from __future__ import annotations

import logging
import threading
import warnings


class QuietPackages:
    """A context that suppresses warnings raised in some modules, and the log of some packages.

    Filters belong to the process, so the first thread that enters sets them and the last one that leaves restores them; a
    `catch_warnings` in each thread would leave them changed.

    modules: a regular expression for the names of modules · loggers: names of packages
    """

    def __init__(self, modules: str, *loggers: str) -> None:
        self.modules, self.loggers = modules, [logging.getLogger(name) for name in loggers]
        self._lock = threading.Lock()
        self._depth = 0
        self._saved_filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._depth += 1
            if self._depth == 1:
                self._saved_filters = warnings.catch_warnings()
                self._saved_filters.__enter__()
                warnings.filterwarnings("ignore", module=self.modules)
                for logger in self.loggers:
                    logger.addFilter(_drop_record)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._saved_filters.__exit__(None, None, None)
                for logger in self.loggers:
                    logger.removeFilter(_drop_record)


def _drop_record(record: logging.LogRecord) -> bool:
    return False

"""`phoropter serve` in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class ServedProcess:
    """line: the first it said, with its address · process: killed at the end, where it has not ended by itself"""

    line: str
    address: str
    process: subprocess.Popen[str]


@contextmanager
def serve_in_process(arguments: Sequence[str]) -> Iterator[ServedProcess]:
    """Waits until it says where it serves. arguments: after `phoropter serve`; the port is a free one."""
    command = [sys.executable, "-m", "phoropter", "serve", *arguments, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+/", line)
            assert found, line
            yield ServedProcess(line, found[0], process)
        finally:
            process.kill()

"""One Python that has loaded torch and phoropter, and forks every command of the tests that signal, kill or time it.

A command of its own loads for six seconds before it does anything; a forked one begins at once, so that signals meet work and not
imports, and a test may send many. The server is a process without threads, since only such a process forks safely. Workers of
`-j 2` are started as ever, by a new interpreter each.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

LOADED = (
    "matplotlib.figure",
    "sklearn.datasets",
    "sklearn.model_selection",
    "torch._dynamo",
    "phoropter.cli",
    "phoropter.report.page",
)
COMMAND_LINE = "from phoropter.cli import main\nmain(args={!r}, prog_name='phoropter')\n"


class WarmPython:
    """The side of the tests: starts the server, and ends it by closing its input."""

    def __init__(self) -> None:
        self.n_commands = 0
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.server = subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, **threads},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C in the terminal of the tests is for the tests
        )

    def run_command_line(self, arguments: list[str], folder: Path, environment: dict[str, str] | None = None) -> WarmCommand:
        """`phoropter ARGUMENTS` in a folder and a session of its own; its output goes to a file in FOLDER."""
        return self.run_code(COMMAND_LINE.format(arguments), folder, environment)

    def run_code(self, code: str, folder: Path, environment: dict[str, str] | None = None) -> WarmCommand:
        self.n_commands += 1
        log = folder.resolve() / f"command-{self.n_commands}.log"
        request = {"code": code, "folder": str(folder.resolve()), "environment": environment or {}, "log": str(log)}
        return WarmCommand(self, self.ask_server(request), log)

    def ask_server(self, request: dict[str, Any]) -> Any:
        """The answer to {"code": …}: a process id; to {"pid": …}: its exit code, None while it runs."""
        assert self.server.stdin is not None and self.server.stdout is not None
        print(json.dumps(request), file=self.server.stdin, flush=True)
        answer = self.server.stdout.readline()
        assert answer, "the warm Python has ended; what it wrote stands above"
        return json.loads(answer)

    def close(self) -> None:
        self.server.communicate(timeout=60)


class WarmCommand:
    """A running command, with the methods of `subprocess.Popen` that tests use."""

    def __init__(self, warm: WarmPython, pid: int, log: Path) -> None:
        self.warm, self.pid, self.log = warm, pid, log
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative after a signal; None while it runs."""
        if self.returncode is None:
            self.returncode = self.warm.ask_server({"pid": self.pid})
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code. Raises TimeoutError."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"process {self.pid} still runs after {timeout} s")
            time.sleep(0.02)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def read_log(self) -> str:
        """What it has written so far, errors included."""
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        self.wait(timeout)
        return self.read_log(), None


def serve_requests() -> None:
    """The side of the server: a line of JSON for each request, until the input is closed."""
    load_everything()
    names = {task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm") if task.parent.name != str(os.getpid())}
    assert names <= {"jemalloc_bg_thd"}, f"a process with threads must not fork: {names}"  # jemalloc takes care of forks itself
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        if "code" in request:
            answer = os.fork()
            if answer == 0:
                become_command(request)
        else:
            pid, status = os.waitpid(request["pid"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        print(json.dumps(answer), flush=True)


def load_everything() -> None:
    from phoropter.models.timm_compat import import_timm

    import_timm()
    for name in LOADED:
        importlib.import_module(name)


def become_command(request: dict[str, Any]) -> NoReturn:
    """Runs the code as `python -c` would, and leaves with its exit code."""
    code = 1
    try:
        os.setsid()
        os.chdir(request["folder"])
        os.environ.update(request["environment"])
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT)
        for number, target in ((0, os.open(os.devnull, os.O_RDONLY)), (1, log), (2, log)):
            os.dup2(target, number)
        exec(compile(request["code"], "<command>", "exec"), {"__name__": "__main__"})
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve_requests()

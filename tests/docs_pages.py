"""Runs the code blocks of a documentation page in order, in one process and one folder, at the smallest scale.

What a page may hold:

    ```sh       commands; `phoropter …` runs in this process, `phoropter serve …` beside it, the rest in bash
    ```python   statements; all blocks of a page share their names
    ```yaml     a study, if it has a name and candidates, else keys of one; where the first line is `# FILE`, FILE is written
    ```text     output, or the layout of a file: not run

`<!-- not run: REASON -->` before a block leaves it out. `<!-- given in python: … -->` and `<!-- given in sh: … -->` hold what a
reader has and the page does not show. Networks, image sizes, folds and seeds are replaced by the smallest (`SMALL`).
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RUN_LANGUAGES = ("sh", "python", "yaml")
SHOWN_LANGUAGES = ("text", "{toctree}", "{eval-rst}")
# What a page says → what runs in its place.
SMALL: tuple[tuple[str, str], ...] = (
    (r"\bresnet50\b", "test_resnet"),
    (r"\befficientnet_b0\b", "test_efficientnet"),
    (r"\bvit_small_patch16_224(\.\w+)?", "test_vit"),
    (r"\bsize(: |=)224\b", r"size\g<1>32"),
    (r"\bfolds: (5|10)\b", "folds: 2"),
    (r"\bKFold\(5\b", "KFold(2"),
    (r"\bseeds(: |=)\[0, 1(, 2)?\]", r"seeds\1[0]"),
    (r" -j \d+", ""),
    (r"\bdigits\.images, digits\.target\b", "digits.images[:60], digits.target[:60]"),
    (r"\bsubjects: 10\b", "subjects: 4"),
    (r"\brecords: 60\b", "records: 12"),
    (r"\bepochs(: |\": |=)\d+", r"epochs\g<1>1"),
)
_FENCE = re.compile(
    r"(?:<!-- (?P<not_run>not run: [^>]*?) -->\n)?^```(?P<language>\S*)[^\n]*\n(?P<text>.*?)^```$"
    r"|^<!-- given in (?P<given>sh|python):\n(?P<hidden>.*?)^-->$",
    re.S | re.M,
)


@dataclass(frozen=True)
class Block:
    """A block of code of a page. line: where it begins · not_run: why it does not run; None: it runs."""

    line: int
    language: str
    text: str
    not_run: str | None

    @property
    def file(self) -> str | None:
        """The file that a block of YAML is written to, if it names one."""
        found = re.match(r"# ([\w./-]+\.yaml)\n", self.text) if self.language == "yaml" else None
        return found[1] if found else None


def read_blocks(page: str) -> list[Block]:
    """The blocks of a page in order."""
    found = []
    for match in _FENCE.finditer(page):
        line = page.count("\n", 0, match.start()) + 1
        if match["given"]:
            found.append(Block(line, match["given"], match["hidden"], None))
        else:
            found.append(Block(line, match["language"], match["text"], match["not_run"]))
    return found


def make_small(text: str) -> str:
    for pattern, replacement in SMALL:
        text = re.sub(pattern, replacement, text)
    return text


def split_commands(text: str) -> list[str]:
    """The lines of a block of commands: comments and empty lines left out, continued lines joined."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def run_page(page: Path) -> None:
    """Runs the blocks of a page in the current folder. Raises what a block raises, after a line that names it."""
    blocks = [b for b in read_blocks(page.read_text(encoding="utf-8")) if b.not_run is None and b.language in RUN_LANGUAGES]
    commands = [c for b in blocks if b.language == "sh" for c in split_commands(b.text)]
    servers = [ServerProcess() for c in commands if re.match(r"phoropter serve", c)]  # forked now, while no thread runs
    shell = PageShell(servers)
    names: dict[str, Any] = {"__name__": "__main__"}
    try:
        for block in blocks:
            print(f"== {page.name}, line {block.line}", flush=True)
            text = make_small(block.text)
            if block.language == "sh":
                for command in split_commands(text):
                    shell.run_command(command)
            elif block.language == "python":
                exec(compile(text, f"{page.name}, line {block.line}", "exec"), names)
            elif block.file:
                Path(block.file).write_text(text, encoding="utf-8")
    finally:
        for server in servers:
            server.stop()


class PageShell:
    """Runs the commands of a page, one after another."""

    def __init__(self, servers: list[ServerProcess]) -> None:
        self.waiting = list(servers)
        self.ports: dict[str, int] = {}  # the port that a page says → the free one that stands for it

    def run_command(self, command: str) -> None:
        """Raises AssertionError where it ends with an error."""
        for written, free in self.ports.items():
            command = command.replace(f":{written}/", f":{free}/")
        print("$", command, flush=True)
        words = shlex.split(command, comments=True)
        with _environment(words):
            if words[:1] == ["export"]:
                os.environ.update([word.split("=", 1) for word in words[1:]])
            elif words[0] == "phoropter" and words[1].startswith("serve"):
                self._start_server(words[1:])
            elif words[0] == "phoropter":
                self._run_phoropter(words[1:])
            else:
                command = re.sub(r"^curl ", "curl --silent --fail-with-body --output answer ", command)
                subprocess.run(["bash", "-euc", command], check=True)

    def _run_phoropter(self, words: list[str]) -> None:
        from phoropter.cli import main

        filters = []
        if "|" in words:
            at = words.index("|")
            words, filters = words[:at], words[at + 1 :]
        output = io.StringIO()
        with contextlib.redirect_stdout(output) if filters else contextlib.nullcontext():
            try:
                main(args=[str(Path(w).expanduser()) if w.startswith("~") else w for w in words], prog_name="phoropter")
            except SystemExit as end:
                assert end.code in (0, None), f"phoropter {shlex.join(words)} ended with {end.code}"
        if filters:
            done = subprocess.run(filters, input=output.getvalue(), text=True, check=True, stdout=subprocess.PIPE)
            assert done.stdout.strip(), f"{filters} printed nothing of {output.getvalue()[:300]}"

    def _start_server(self, words: list[str]) -> None:
        written = words[words.index("--port") + 1] if "--port" in words else "8360"
        words = words[: words.index("--port")] if "--port" in words else words
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            free = probe.getsockname()[1]
        self.ports[written] = free
        self.waiting.pop(0).start([*words, "--port", str(free)], free)


@contextlib.contextmanager
def _environment(words: list[str]) -> Iterator[None]:
    """`NAME=VALUE command`: takes the assignments off the words, and makes them hold inside."""
    before = {}
    while re.match(r"[A-Z_]+=", words[0]):
        name, value = words.pop(0).split("=", 1)
        before[name] = os.environ.get(name)
        os.environ[name] = value
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


class ServerProcess:
    """A forked process that waits for the command line of a server, runs it, and is ended by SIGTERM."""

    def __init__(self) -> None:
        read, self.write = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(read)
            return
        os.close(self.write)
        with os.fdopen(read) as pipe:
            command = pipe.readline()  # not until its end: servers forked later hold the other side open
        code = 0
        if command:
            from phoropter.cli import main

            try:
                main(args=shlex.split(command), prog_name="phoropter")
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
        os._exit(code)

    def start(self, words: list[str], port: int) -> None:
        """Returns when the port answers. Raises AssertionError where the server ends, or does not answer in two minutes."""
        with os.fdopen(self.write, "w") as pipe:
            print(shlex.join(words), file=pipe)
        self.write = -1
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            assert os.waitpid(self.pid, os.WNOHANG) == (0, 0), f"phoropter {shlex.join(words)} has ended"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            time.sleep(0.05)
        raise AssertionError(f"phoropter {shlex.join(words)} does not answer")

    def stop(self) -> None:
        if self.write >= 0:
            os.close(self.write)
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGTERM)
            os.waitpid(self.pid, 0)

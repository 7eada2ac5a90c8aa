"""The Dockerfile, read line by line: it builds by the Makefile, runs as nobody, and copies nothing but the package."""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
from pathlib import Path

import pytest

from phoropter.cli import main

ROOT = Path(__file__).parents[1]
LINES = [
    line.strip()
    for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]


def instructions(name: str) -> list[str]:
    return [line.partition(" ")[2].strip() for line in LINES if line.partition(" ")[0].upper() == name]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


def test_every_run_line_is_a_target_of_the_makefile() -> None:
    runs = instructions("RUN")
    assert runs
    for run in runs:
        word, target = run.split()
        assert word == "make" and target in make_targets(), run


@pytest.mark.parametrize("run", instructions("RUN"))
def test_make_knows_how(run: str) -> None:
    done = subprocess.run([*run.split(), "-n"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "pip install" in done.stdout and "[dev]" not in done.stdout


def test_it_runs_as_nobody_and_fetches_nothing() -> None:
    last_stage = LINES[max(i for i, line in enumerate(LINES) if line.startswith("FROM ")) :]
    users = [line.split()[1].partition(":")[0] for line in last_stage if line.startswith("USER ")]
    assert users and users[-1] not in ("root", "0")
    assert instructions("ADD") == [] and not any("http:" in line and "127.0.0.1" not in line for line in LINES)
    assert not any(re.search(r"https:|curl|wget|apt", line) for line in LINES)
    settings = dict(word.split("=", 1) for line in instructions("ENV") for word in line.split())
    assert settings["HF_HUB_OFFLINE"] == "1" and settings["HOME"] == "/tmp"
    assert settings["PHOROPTER_CACHE"].startswith("/tmp/"), "the root file system is read-only"


def test_its_command_is_one_of_ours() -> None:
    (entry,) = (json.loads(line) for line in instructions("ENTRYPOINT"))
    assert entry[:2] == ["phoropter", "serve"] and "--token-file" in entry
    known = {option for parameter in main.commands["serve"].params for option in parameter.opts}
    assert {word for word in entry if word.startswith("--")} <= known
    assert instructions("EXPOSE") == [entry[entry.index("--port") + 1]]
    (check,) = instructions("HEALTHCHECK")
    compile(json.loads(check.removeprefix("CMD "))[2], "healthcheck", "exec")


def test_what_it_copies_is_there_and_nothing_else_is_sent() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    assert rules[0] == "*"
    sent = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {word for line in instructions("COPY") if not line.startswith("--from") for word in line.split()[:-1]}
    assert copied == sent
    for name in copied:
        assert (ROOT / name).exists()
        assert not any(fnmatch.fnmatch(name, rule) for rule in rules[1:] if not rule.startswith("!"))


def test_pip_is_given_all_that_pyproject_names() -> None:
    """A missing file would end the build where nobody tries it."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    named = set(re.findall(r'readme = "(.+?)"', text)) | set(re.findall(r'license-files = \["(.+?)"\]', text))
    assert named <= {word for line in instructions("COPY") for word in line.split()}

"""`nox`: the tests on every Python that pyproject.toml claims, and on the next; `nox -- -k folds` passes words on to pytest."""

from __future__ import annotations

from pathlib import Path

import nox

PYTHONS = ["3.11", "3.12", "3.13"]
nox.options.default_venv_backend = "venv"


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    session.env["PIP_CONSTRAINT"] = str(Path("constraints.txt").resolve())
    session.install("-e", ".[dev]")
    session.env["OMP_NUM_THREADS"] = "1"
    session.run("python", "-m", "pytest", "-n", "2", "--dist", "worksteal", *session.posargs)

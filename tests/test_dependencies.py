"""What pyproject.toml declares is what the package imports, and docs/dependencies.md says why."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import phoropter

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
IMPORTED_BY_NAME = {"timm", "torchvision"}  # models/timm_compat.py, by importlib
COMES_WITH_PYDANTIC = {"pydantic-core"}  # which fixes its version
COMES_WITH_FASTAPI = {"starlette"}


def distribution_name(requirement: str) -> str:
    return re.split(r"[\[<>=~ ]", requirement)[0].lower().replace("_", "-")


CORE = {distribution_name(r) for r in PROJECT["dependencies"]}
OPTIONAL = ("signals", "medical", "hdf5", "deploy", "ray", "slurm", "s3", "track")
EXTRAS = {distribution_name(r) for extra in OPTIONAL for r in PROJECT["optional-dependencies"][extra]}


def test_the_install_page_has_every_extra() -> None:
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    told = {name for row in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE) for name in re.findall(r"`([a-z0-9]+)`", row)}
    assert told == set(OPTIONAL) == set(PROJECT["optional-dependencies"]) - {"docs", "dev"}


def imported_distributions() -> set[str]:
    """Distributions of the third-party packages that any module imports, lazily too; packages not installed keep their name."""
    names: set[str] = set()
    for path in Path(phoropter.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
    third_party = names - set(sys.stdlib_module_names) - {"phoropter"}
    known = packages_distributions()
    return {distribution_name(known.get(name, [name])[0]) for name in third_party}


def test_every_imported_package_is_declared() -> None:
    assert imported_distributions() - CORE - EXTRAS - COMES_WITH_PYDANTIC - COMES_WITH_FASTAPI == set()


def test_every_declared_package_is_imported() -> None:
    assert CORE - imported_distributions() - IMPORTED_BY_NAME == set()


def test_every_declared_package_has_a_reason() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8").lower()
    declared = CORE | {distribution_name(r) for extra in PROJECT["optional-dependencies"].values() for r in extra}
    named_otherwise = {"phoropter", "pytest-timeout", "pytest-xdist", "pandas-stubs", "types-pyyaml"}
    assert [name for name in sorted(declared - named_otherwise) if name not in page] == []


def test_only_pythons_of_noxfile_are_claimed() -> None:
    tested = set(re.findall(r'"(3\.\d+)"', (ROOT / "noxfile.py").read_text(encoding="utf-8")))
    claimed = {c.rsplit(" ", 1)[1] for c in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", c)}
    assert claimed and claimed <= tested

"""The plan of the house, held by reading the imports: lower ranks only, torch and torchvision behind their doors."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import phoropter

SOURCE = Path(phoropter.__file__).parent
RANKS = {
    "core": 0,
    "signals": 1,
    "results": 1,
    "data": 2,
    "models": 2,
    "training": 3,
    "study": 4,
    "report": 4,
    "deploy": 4,
    "console": 5,
    "api": 5,
    "study_parts": 6,
    "cli": 7,
    "__main__": 8,
}
TORCH_ROOMS = {"models", "training", "deploy"}
TORCH_FREE = {"models/__init__.py", "models/spec.py", "models/catalog.py", "training/__init__.py", "deploy/__init__.py"}
TORCH_FREE |= {f"training/candidates/{p.name}" for p in (SOURCE / "training" / "candidates").glob("*.py")}
TORCH_FREE |= {"training/augmentation/spec.py", "training/augmentation/custom_step.py", "training/trained_on.py"}
TORCH_ALSO = {f"study/{name}.py" for name in ("worker", "compute", "executors", "records/run_record", "records/study_record")}


def modules() -> list[Path]:
    return sorted(p for p in SOURCE.rglob("*.py") if p.name != "__init__.py" or p.parent != SOURCE)


def imports(path: Path, *, top_level: bool = False) -> Iterator[str]:
    """The modules a file imports, those under TYPE_CHECKING left out."""
    tree = ast.parse(path.read_text())
    ignored = {
        id(n)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for n in ast.walk(block)
    }
    for node in tree.body if top_level else ast.walk(tree):
        if id(node) in ignored:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_to_lower_ranks_only(path: Path) -> None:
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "phoropter" and len(parts) > 1 and parts[1] in RANKS and parts[1] != room(path):
            assert RANKS[parts[1]] < RANKS[room(path)], f"{path.relative_to(SOURCE)} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_torch_stays_behind_its_doors(path: Path) -> None:
    relative = path.relative_to(SOURCE).as_posix()
    allowed = (room(path) in TORCH_ROOMS and relative not in TORCH_FREE) or relative in TORCH_ALSO
    loaded = {n.split(".")[0] for n in imports(path)}
    assert allowed or "torch" not in loaded, relative
    assert relative == "models/vision.py" or not loaded & {"torchvision", "timm"}, relative


HEAVY = ("scipy", "sklearn", "pandas", "matplotlib", "pyarrow", "wfdb", "pyedflib", "pywt", "rich", "jinja2")


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_heavy_packages_are_imported_where_they_are_used(path: Path) -> None:
    if path.name == "estimator.py":  # its base class is scikit-learn's; it is itself imported when first used
        return
    at_top = {n.split(".")[0] for n in imports(path, top_level=True)}
    assert not at_top & set(HEAVY), path


def loaded_after(code: str) -> set[str]:
    """The top-level modules a fresh interpreter holds after running this."""
    script = f"import sys\n{code}\nprint(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    return set(done.stdout.splitlines()[-1].split())


def test_a_fresh_import_loads_nothing_heavy() -> None:
    assert not loaded_after("import phoropter, phoropter.cli") & {
        "torch",
        "numpy",
        "pydantic",
        "scipy",
        "sklearn",
        "pandas",
        "rich",
    }


def test_planning_loads_no_torch(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from phoropter.study.spec import read_study; from phoropter.study.plan import plan_study\n"
        f"assert len(plan_study(read_study('digits')[0], Path({str(tmp_path)!r})).runs) == 40"
    )
    assert not loaded_after(code) & {"torch", "torchvision", "timm"}


def test_public_names_are_what_the_package_shows() -> None:
    for name in phoropter.__all__:
        assert getattr(phoropter, name) is not None
    assert set(phoropter.__all__) <= set(dir(phoropter))
    with pytest.raises(AttributeError, match="no attribute 'Studdy'"):
        phoropter.Studdy  # noqa: B018

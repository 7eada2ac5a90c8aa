"""The digest of code: it follows what a function was made with, and stays where nothing changed."""

from __future__ import annotations

import functools
import importlib.util
import linecache
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phoropter.core.source_digest import digest_value


def make_scaler(factor: Any) -> Any:
    def scale(x: Any) -> Any:
        return factor(x) if callable(factor) else x * factor

    return scale


def make_with_default(factor: Any) -> Any:
    def scale(x: Any, by: Any = factor) -> Any:
        return x * by

    return scale


def make_with_keyword_default(factor: Any) -> Any:
    def scale(x: Any, *, by: Any = factor) -> Any:
        return x * by

    return scale


class Scaler:
    def __init__(self, factor: Any) -> None:
        self.factor = factor

    def __call__(self, x: Any) -> Any:
        return x * self.factor

    @functools.cached_property
    def doubled(self) -> Any:
        return self.factor * 2


class SlottedScaler:
    __slots__ = ("factor",)

    def __init__(self, factor: Any) -> None:
        self.factor = factor


def make_method(factor: Any) -> Any:
    return Scaler(factor).__call__


def make_partial(factor: Any) -> Any:
    return functools.partial(pow, factor)


def make_decorated(factor: Any) -> Any:
    inner = make_scaler(factor)

    @functools.wraps(inner)
    def outer(x: Any) -> Any:
        return inner(x)

    return outer


MAKERS = [
    make_scaler,
    make_with_default,
    make_with_keyword_default,
    Scaler,
    SlottedScaler,
    make_method,
    make_partial,
    make_decorated,
    lambda factor: functools.lru_cache(make_scaler(factor)),
    lambda factor: [{"factor": make_scaler(factor)}],
]
VALUES: list[tuple[Any, Any]] = [
    (1, 2),
    (1, 1.0),
    ((1, "a"), (1, "b")),
    ({"a": 1}, {"a": 2}),
    (np.arange(2000), np.where(np.arange(2000) == 1000, 0, np.arange(2000))),
    (np.float32(1), np.float64(1)),
    (Path("a"), Path("b")),
]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(("one", "other"), VALUES)
def test_what_a_function_was_made_with_is_part_of_it(make: Any, one: Any, other: Any) -> None:
    assert digest_value(make(one)) == digest_value(make(one)) != digest_value(make(other))


def test_a_function_inside_is_followed() -> None:
    inner = [make_scaler(make_with_default(value)) for value in (1, 1, 2)]
    assert digest_value(inner[0]) == digest_value(inner[1]) != digest_value(inner[2])


def test_tensors_count_by_their_bytes() -> None:
    import torch

    for dtype in (torch.float32, torch.bfloat16, torch.bool):
        one, other = torch.zeros(2, 3, dtype=dtype), torch.ones(2, 3, dtype=dtype)
        assert digest_value(Scaler(one)) == digest_value(Scaler(one.clone())) != digest_value(Scaler(other))
    assert digest_value(torch.tensor(1.0)) != digest_value(torch.tensor(2.0))


def test_cycles_and_deep_nests_end() -> None:
    one, other = Scaler(1), Scaler(1)
    one.factor, other.factor = [one, 1], [other, 2]
    assert digest_value(one) != digest_value(other)

    def recurse(x: int) -> int:
        return x and recurse(x - 1)

    assert digest_value(recurse) == digest_value(recurse)
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    assert digest_value(deep) == digest_value([deep])  # only the first levels count
    wide: Any = 1
    for _ in range(30):
        wide = [wide, wide]
    assert digest_value(wide) == digest_value(wide)  # each object once, not 2³⁰ times


def test_what_is_only_kept_to_save_time_does_not_count() -> None:
    used, path = Scaler(3), Path("a") / "b"
    before = digest_value([used, path])
    assert used.doubled == 6 and str(path) == "a/b"
    assert digest_value([used, path]) == before
    assert digest_value(Path("a/b")) == digest_value(path) != digest_value(Path("a/c"))


def test_it_is_the_same_in_another_process() -> None:
    code = (
        f"import sys, logging, torch; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_source_digest as t\n"
        "print(t.digest_value([t.Scaler({'b', 'a', 'c'}), t.make_scaler(object()), logging.getLogger('x'), abs, torch.relu]))"
    )
    digests = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert len(digests) == 1


MODULE = """
import math

SCALE = 2

def helper(x):
    return x * SCALE

class Base:
    def start(self):
        return 1

class Layer(Base):
    def forward(self, x):
        return helper(x) + math.pi

def unrelated(x):
    return x

def build(width=3):
    return [Layer() for _ in range(width)]
"""


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        ("SCALE = 2", "SCALE = 3", True),
        ("return x * SCALE", "return x + SCALE", True),
        ("return helper(x) + math.pi", "return helper(x) - math.pi", True),
        ("return 1", "return 2", True),
        ("def unrelated(x):\n    return x", "def unrelated(x):\n    return -x", False),
    ],
)
def test_what_code_names_in_its_own_module_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str, changes: bool
) -> None:
    digests = []
    for number, text in enumerate((MODULE, MODULE.replace(before, after))):
        file = tmp_path / str(number) / "module_of_this_test.py"
        file.parent.mkdir()
        file.write_text(text)
        spec = importlib.util.spec_from_file_location("module_of_this_test", file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "module_of_this_test", module)
        spec.loader.exec_module(module)
        digests.append(digest_value(module.build))
        linecache.clearcache()
    assert (digests[0] != digests[1]) is changes

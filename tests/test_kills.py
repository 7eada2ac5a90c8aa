"""The kill harness, a few rounds of it; by hand it runs for an hour (tests/kills.py)."""

from __future__ import annotations

import importlib.util
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from warm_python import WarmPython


@pytest.fixture
def kills() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("kills", Path(__file__).with_name("kills.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kills"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["kills"]


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.timeout(1500)
def test_a_study_killed_and_damaged_at_random_ends_with_the_same_bytes(
    kills: ModuleType, warm: WarmPython, tmp_path: Path
) -> None:
    """A few signals; `python tests/kills.py` sends as many as it is asked for."""
    tally = kills.torment_study(tmp_path, warm, kills={1: 4, 2: 2}, flips=2, seed=0)
    assert tally.wrongs == []
    sent = sum(count for name, count in tally.counts.items() if name.startswith(("worker", "command")))
    flipped = tally.counts["flips mended or harmless"] + tally.counts["flips refused by name"]
    assert sent >= 6 and flipped == 2 and tally.counts["studies that ended with the same bytes"] >= 2


@pytest.mark.nightly
@pytest.mark.process
@pytest.mark.timeout(7200)
def test_fifty_workers_are_killed_and_the_command_replaces_them(kills: ModuleType, warm: WarmPython, tmp_path: Path) -> None:
    tally = kills.torment_study(tmp_path, warm, kills={}, flips=0, seed=1, workers=50)
    assert tally.wrongs == [] and tally.counts["worker SIGKILL"] == 50
    assert tally.counts["studies that ended with the same bytes"] >= 1


def test_a_flip_changes_some_bytes_and_not_their_number(kills: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "file"
    for seed in range(20):
        file.write_bytes(bytes(100))
        kills.flip_bytes(file, random.Random(seed))
        changed = sum(byte != 0 for byte in file.read_bytes())
        assert 0 < changed <= 8 and len(file.read_bytes()) == 100


def test_what_must_not_happen_is_told(kills: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An end with other bytes, a traceback and a silent refusal are wrongs; the same bytes and a named refusal are not."""

    class Ended:
        def __init__(self, code: int) -> None:
            self.code = code

        def wait(self) -> int:
            return self.code

    class Fake(kills.Place):  # type: ignore[name-defined]
        code, log, predictions = 0, "", {"k": b"same"}

        def start_command(self, jobs: int) -> Ended:
            return Ended(self.code)

        def read_log(self) -> str:
            return str(self.log)

        def read_predictions(self) -> dict[str, bytes]:
            return dict(self.predictions)

    for code, log, found, wrong in (
        (0, "", b"same", False),
        (0, "", b"other", True),
        (2, "phoropter: study.json is damaged", b"other", False),
        (2, "killed", b"other", True),
        (1, "Traceback (most recent call last)", b"other", True),
    ):
        place, tally = Fake(tmp_path, None), kills.Tally()
        place.code, place.log, place.predictions = code, log, {"k": found}
        kills.judge_flip(place, "flip", tally, {"k": b"same"})
        assert bool(tally.wrongs) == wrong, (code, log)

"""Checkpoints: damaged files, files that would run code, and when the next one is due."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from phoropter.training.loop.checkpoint import Checkpoints, TrainingState


def test_a_damaged_checkpoint_counts_as_absent(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"damaged")
    assert Checkpoints(tmp_path).load() == TrainingState()


def test_a_checkpoint_that_would_run_code_is_not_unpickled(tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "checkpoint.pt").write_bytes(pickle.dumps(Evil()))
    torch.save(Evil(), tmp_path / "zip.pt")
    assert Checkpoints(tmp_path).load() == TrainingState()
    (tmp_path / "zip.pt").replace(tmp_path / "checkpoint.pt")
    assert Checkpoints(tmp_path).load() == TrainingState() and not (tmp_path / "ran").exists()


def test_a_part_has_its_own_file_and_the_same_clock(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, every_s=1e9)
    part = checkpoints.for_part("bag-1")
    assert not checkpoints.is_due() and not part.is_due()
    checkpoints.request_save()
    assert part.is_due()
    part.save(TrainingState(epoch=3))
    assert not checkpoints.is_due() and part.load().epoch == 3 and checkpoints.load() == TrainingState()


def test_without_a_folder_nothing_is_saved() -> None:
    checkpoints = Checkpoints(None, every_s=0)
    checkpoints.request_save()
    assert not checkpoints.is_due()
    checkpoints.save(TrainingState(epoch=3))
    assert checkpoints.load() == TrainingState()


def test_a_flipped_bit_anywhere_makes_the_checkpoint_absent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = Checkpoints(tmp_path, every_s=0)
    checkpoints.save(TrainingState(epoch=3, model={"w": torch.arange(64.0)}))
    file = tmp_path / "checkpoint.pt"
    sound = file.read_bytes()
    loaded = checkpoints.load()
    assert loaded.epoch == 3 and loaded.model is not None and torch.equal(loaded.model["w"], torch.arange(64.0))
    for at in range(0, len(sound), len(sound) // 37):
        file.write_bytes(sound[:at] + bytes([sound[at] ^ 4]) + sound[at + 1 :])
        assert checkpoints.load() == TrainingState()
    assert all("begins again" in line for line in caplog.messages) and len(caplog.messages) >= 37


def test_a_checkpoint_that_cannot_be_written_is_skipped_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fill_disk(state: Any, file: Any) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 896 vs 790")

    monkeypatch.setattr(torch, "save", fill_disk)
    checkpoints = Checkpoints(tmp_path, every_s=1e9)
    for _ in range(2):
        checkpoints.request_save()
        checkpoints.save(TrainingState(epoch=3))
        assert not checkpoints.is_due()
    (line,) = caplog.messages
    assert "no checkpoint could be written" in line and not list(tmp_path.iterdir())

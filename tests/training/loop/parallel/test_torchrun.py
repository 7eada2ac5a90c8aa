"""A process of torchrun is known by its variables."""

from __future__ import annotations

from phoropter.training.loop.parallel.torchrun import is_started_by_torchrun


def test_a_process_knows_torchrun_by_its_variables() -> None:
    assert is_started_by_torchrun({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2"})
    assert not is_started_by_torchrun({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "1"})
    assert not is_started_by_torchrun({"WORLD_SIZE": "2", "RANK": "0"})  # of another launcher, which starts what it likes

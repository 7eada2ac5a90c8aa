"""Processes that train together find what one finds, and end together."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import together
import torch

from phoropter.core.errors import SpecError
from phoropter.training.loop.parallel.training_group import (
    BUCKET_BYTES,
    TrainingGroup,
    _fill_buckets,
    join_group,
)

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(few_digits: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("together")
    (made / "digits.pkl").write_bytes(pickle.dumps(few_digits))
    return made


@pytest.fixture(scope="module")
def of_three(folder: Path, warm: Any) -> dict[str, Any]:
    return together.find_together(warm, folder, "train_every_case", 3)


def assert_same(found: dict[str, Any], expected: dict[str, Any], atol: float) -> None:
    np.testing.assert_allclose(found["logits"], expected["logits"], rtol=0, atol=atol)
    for ours, theirs in zip(found["figures"], expected["figures"], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=10 * atol)


@pytest.mark.parametrize("name", together.CASES)
def test_three_processes_find_what_one_finds(few_digits: Any, folder: Path, of_three: Any, name: str) -> None:
    entry, recipe = together.CASES[name]
    alone = together.train_to_end(together.make_task(few_digits, folder / f"{name} alone", entry, recipe))
    assert_same(of_three[name], together.summarise(alone), 1e-6)


@pytest.mark.parametrize("name", together.BATCH_NORM)
def test_batch_norm_takes_the_statistics_of_all(few_digits: Any, folder: Path, of_three: Any, name: str) -> None:
    """In float64: training from random weights enlarges the rounding of float32 a thousandfold, in one process too."""
    with together.double_precision():
        task = together.make_task(few_digits, folder / f"bn {name} alone", together.CNN, together.BATCH_NORM[name])
        alone = together.summarise(together.train_to_end(task))
    found = of_three[f"batch norm, {name}"]
    for key, value in alone["weights"].items():  # running means and variances among them
        np.testing.assert_allclose(found["weights"][key], value, rtol=1e-7, atol=1e-8, err_msg=key)
    assert_same(found, alone, 1e-6)


def test_a_stopped_training_goes_on_bit_for_bit(folder: Path, few_digits: Any, warm: Any) -> None:
    found = together.find_together(warm, folder, "stop_and_go_on")
    for count in (1, 3):
        resumed = found[f"stopped after {count}"]
        for key, value in found["unbroken"]["weights"].items():
            np.testing.assert_array_equal(resumed["weights"][key], value)
        assert resumed["figures"] == found["unbroken"]["figures"]
    handed = together.make_task(few_digits, folder / "handed over 2", together.VIT, together.HANDED, 0)
    assert handed.checkpoints.load().step > 0  # in the middle of an epoch, of two processes
    alone = together.make_task(few_digits, folder / "never handed over", together.VIT, together.HANDED)
    assert_same(together.summarise(together.train_to_end(handed)), together.summarise(together.train_to_end(alone)), 1e-6)


@pytest.fixture(scope="module")
def after_errors(folder: Path, warm: Any) -> dict[str, Any]:
    return together.find_together(warm, folder, "meet_errors")


def test_an_error_in_one_process_ends_the_run_in_all_and_no_more(folder: Path, few_digits: Any, after_errors: Any) -> None:
    found = after_errors
    assert found["process 1 fails"] == "RunError: another process left this training: process 1 says planted"
    assert found["process 0 fails"] == "ValueError: planted"
    assert found["refused compile"].startswith("several processes do not train a compiled network together: leave compile out")
    assert "leave grad_checkpointing out" in found["refused grad_checkpointing"]
    task = together.make_task(few_digits, folder / "short alone", together.VIT, {"batch_size": 16, "grad_accum_steps": 2})
    assert found["short memory"]["micro_batch"] == 4  # of shares of 8 rows, in both processes
    assert_same(found["short memory"], together.summarise(together.train_to_end(task)), 1e-6)


def test_students_of_several_processes_read_what_the_first_one_s_teacher_said(
    folder: Path, few_digits: Any, after_errors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phoropter.training.fit.check_teacher_accuracy", lambda *given: {})
    task = together.make_task(few_digits, folder / "student alone", together.STUDENT, {"augment": ["hflip"]})
    assert_same(after_errors["student"], together.summarise(together.train_to_end(together.make_student(task))), 1e-6)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(("how", "backbone"), [("death", "test_vit"), ("death", "test_resnet"), ("memory", "test_resnet")])
def test_all_processes_end_where_one_cannot_be_met(folder: Path, warm: Any, how: str, backbone: str, rank: int) -> None:
    commands = together.start_together(warm, folder, "lose_a_process", how=how, backbone=backbone, rank=rank)
    codes = [command.wait(60) for command in commands]
    assert (codes[rank], codes[1 - rank]) == (9 if how == "death" else 143, 143), commands[1 - rank].read_log()
    said = commands[1 - rank].read_log().replace("\n", " ")
    assert "all of them end, and the same command goes on from the last checkpoint" in said


def test_shares_are_whole_and_even() -> None:
    groups = [TrainingGroup(rank, 3, torch.device("cpu")) for rank in range(3)]
    for rows in range(20):
        shares = [group.find_share(rows) for group in groups]
        assert [i for share in shares for i in range(share.start, share.stop)] == list(range(rows))
        assert max(s.stop - s.start for s in shares) - min(s.stop - s.start for s in shares) <= 1


def test_buckets_hold_one_type_and_no_more_than_their_bytes() -> None:
    count = BUCKET_BYTES // 4
    tensors = [torch.empty(n, device="meta") for n in (3, count - 2, 2, count * 2, 5)]
    tensors.insert(2, torch.empty(7, dtype=torch.float64, device="meta"))
    buckets = _fill_buckets(tensors)
    assert sorted(id(t) for b in buckets for t in b) == sorted(map(id, tensors))
    assert all(len({t.dtype for t in b}) == 1 for b in buckets)
    assert all(len(b) == 1 or sum(t.nbytes for t in b) <= BUCKET_BYTES for b in buckets)


def test_devices_that_are_not_each_process_s_own_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match="device is 'cuda:1', and torchrun gives each process the GPU of its number"):
        join_group("cuda:1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SpecError, match="starts 2 processes on this machine, which has 1 CUDA GPUs: lower --nproc-per-node"):
        join_group("cuda")

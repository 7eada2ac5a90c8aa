"""Who computes: this process alone, or torchrun's first, whom the others help; test_helper_process.py has real processes."""

from __future__ import annotations

import pytest

from phoropter.core.errors import RunError, SpecError
from phoropter.study.processes import helper_process
from phoropter.study.processes.torchrun_role import ProcessRole, take_role
from phoropter.training.loop.parallel import training_group

TORCHRUN = {"TORCHELASTIC_RUN_ID": "a test", "WORLD_SIZE": "2"}


class MadeGroup:
    """A group that has met, without other processes."""

    is_broken = False

    def __init__(self, leads: bool) -> None:
        self.is_leader, self.dismissals = leads, list[BaseException | None]()
        self.device = training_group.torch.device("cpu")

    def dismiss(self, error: BaseException | None = None) -> None:
        self.dismissals.append(error)


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def meet(patch: pytest.MonkeyPatch, group: MadeGroup) -> MadeGroup:
    patch.setattr(training_group, "_met", [group])
    return group


def test_without_torchrun_a_process_computes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    with take_role("no device is asked for") as role:
        assert role == ProcessRole(computes=True, group=None, failure=None)


def test_the_first_process_dismisses_the_others_once_with_the_error_if_there_is_one(torchrun: pytest.MonkeyPatch) -> None:
    group = meet(torchrun, MadeGroup(leads=True))
    with take_role("auto") as role:
        assert role.computes and role.group is group and not group.dismissals
    assert group.dismissals == [None]
    error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt), take_role("cpu"):
        raise error
    assert group.dismissals == [None, error]


@pytest.mark.parametrize("failure", [None, RunError("it ended")])
def test_a_helper_comes_back_when_it_is_dismissed(torchrun: pytest.MonkeyPatch, failure: RunError | None) -> None:
    group = meet(torchrun, MadeGroup(leads=False))
    torchrun.setattr(helper_process, "help_leader", lambda given: failure if given is group else 1 / 0)
    with take_role("auto") as role:
        assert not role.computes and role.group is None and role.failure is failure
    assert not group.dismissals


def test_a_lost_group_and_another_device_are_refused(torchrun: pytest.MonkeyPatch) -> None:
    group = meet(torchrun, MadeGroup(leads=True))
    with pytest.raises(SpecError, match="device is 'cuda', and the processes of torchrun have met on cpu"), take_role("cuda"):
        pass
    group.is_broken = True
    with pytest.raises(RunError, match="was lost in an earlier study"), take_role("auto"):
        pass

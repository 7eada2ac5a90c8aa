"""What each of the processes that torchrun started does of a study: the first computes it, the others help it to train networks.

The command line and `Study.run` take their role here; without torchrun the role is to compute alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from phoropter.core.errors import RunError
from phoropter.training.loop.parallel.torchrun import is_started_by_torchrun

if TYPE_CHECKING:
    from phoropter.training.loop.parallel.training_group import TrainingGroup


@dataclass(frozen=True)
class ProcessRole:
    """computes: whether this process computes the study; else it has helped the first one to the end of it

    group: the processes that train networks together, of the first; None without torchrun
    failure: what a helper's caller may raise where the first process ended with an error
    """

    computes: bool = True
    group: TrainingGroup | None = None
    failure: RunError | None = None


@contextmanager
def take_role(device: str) -> Iterator[ProcessRole]:
    """The role of this process. In a helper, what is within begins once the first process has ended what is within there.

    Raises SpecError for a device that is not each process's own, and RunError where the other processes were lost before.
    """
    if not is_started_by_torchrun():
        yield ProcessRole()
        return
    from phoropter.study.processes.helper_process import help_leader
    from phoropter.training.loop.parallel.training_group import meet_group

    group = meet_group(device)
    if not group.is_leader:
        yield ProcessRole(computes=False, failure=help_leader(group))
        return
    try:
        yield ProcessRole(group=group)
    except BaseException as error:
        group.dismiss(error)
        raise
    group.dismiss()

"""`phoropter run` as jobs of SLURM, by submitit: N jobs on one results folder share its runs, as N commands by hand would.

A job that reaches its time limit or is pre-empted stops its command, which saves a checkpoint, and is queued again. Jobs need no
word of one another: runs are claimed in the results folder, so one that starts late, or never, costs time alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phoropter.core.errors import MissingExtraError, RunError, SpecError, cut_message

LEAVE_S = 40.0  # what a command may take to leave; SLURM warns 90 s before the end
MAX_TIME_LIMITS = 10_000  # how often a job is queued again that has reached its time limit: until it is done


@dataclass(frozen=True)
class JobShare:
    """What each job asks for: workers: how many jobs · minutes: time limit · cpus, gpus: of one job · partition: SLURM's, or its
    default"""

    workers: int = 1
    minutes: int = 24 * 60
    cpus: int = 1
    gpus: int = 0
    partition: str | None = None


class StudyJob:
    """One job: a command of phoropter in a process of its own. submitit calls it, and `checkpoint` when the job must end."""

    def __init__(self, arguments: Sequence[str], folder: Path) -> None:
        self.arguments, self.folder = list(arguments), folder
        self.process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Runs the command in the folder where it was submitted; returns 0, or 1 where a run failed.

        Raises RunError for any other exit code.
        """
        with _signals_held():
            self.process = subprocess.Popen([sys.executable, "-m", "phoropter", *self.arguments], cwd=self.folder)
        code = self.process.wait()
        if code not in (0, 1):
            raise RunError(f"phoropter {' '.join(self.arguments)} ended with exit code {code}: its log says why")
        return code

    def checkpoint(self) -> Any:
        """Stops the command, which saves a checkpoint; the same job, to be queued again."""
        from submitit.helpers import DelayedSubmission

        if self.process is not None:
            self.process.terminate()
            if not _has_ended(self.process.pid, LEAVE_S):
                self.process.kill()  # its last checkpoint stands
        return DelayedSubmission(StudyJob(self.arguments, self.folder))


@contextmanager
def _signals_held() -> Iterator[None]:
    """A process that is started within it never gets SIGUSR1 and SIGUSR2, by which SLURM warns all processes of a job.

    They are for submitit, which then calls `checkpoint`; a command would end by them at once, without a checkpoint.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR1, signal.SIGUSR2))  # which a new process inherits
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _has_ended(pid: int, seconds: float) -> bool:
    """Whether a child ends within so many seconds. `Popen.wait` could not tell: `__call__` waits in it when the signal comes."""
    deadline = time.monotonic() + seconds
    with suppress(ChildProcessError):  # somebody has waited for it, so it has ended
        while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
    return True


def submit_study(arguments: Sequence[str], out: Path, share: JobShare, executor: str = "slurm") -> list[str]:
    """Submits `share.workers` jobs of `phoropter ARGUMENTS`; returns their names. Logs are in OUT/jobs.

    executor: `slurm`, or `local` for processes of this machine, to try a study without a cluster
    Raises MissingExtraError, SpecError for a share with `local`, and RunError where SLURM is not there or refuses the jobs.
    """
    try:
        import submitit
    except ImportError:
        raise MissingExtraError("submitit", "slurm", "phoropter submit") from None
    if executor == "local" and (share.partition is not None or share.gpus or share.cpus != 1):
        raise SpecError("--executor local shares this machine as it is: leave out --partition, --gpus and --cpus")
    job = StudyJob([*arguments, *(["--devices", "all"] if share.gpus > 1 else [])], Path.cwd())
    try:
        made = submitit.AutoExecutor(folder=out / "jobs", cluster=executor, slurm_max_num_timeout=MAX_TIME_LIMITS)
        made.update_parameters(name="phoropter", timeout_min=share.minutes)
        if executor == "slurm":
            gpus = {"gpus_per_node": share.gpus} if share.gpus else {}
            partition = {"slurm_partition": share.partition} if share.partition else {}
            made.update_parameters(cpus_per_task=share.cpus, slurm_array_parallelism=share.workers, **gpus, **partition)
        with made.batch():
            jobs = [made.submit(job) for _ in range(share.workers)]
    except (RuntimeError, submitit.core.utils.FailedJobError) as error:
        raise RunError(f"phoropter submit: {cut_message(error, most=300)}") from None
    return [str(each.job_id) for each in jobs]

"""One training over the processes of torchrun: the first computes the study as ever, the others help it to train networks.

A helper reads no study file and writes nothing. It learns from the first process which study is computed, and before each
training which candidate is trained on which split; then it opens the same data and adds its share of the gradients.
"""

from __future__ import annotations

import pickle
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from phoropter.core.errors import RunError
from phoropter.core.extensions import get_trusted_folder, trust_code
from phoropter.data.dataset import Dataset
from phoropter.data.images.pixels import Pixels
from phoropter.study.compute import decode_images, open_pixels
from phoropter.study.load import load_study
from phoropter.study.progress import ProgressCallback, ProgressEvent
from phoropter.study.spec import StudySpec
from phoropter.study.worker import ComputeOptions, compute_missing_runs
from phoropter.training.fit import TrainingTask
from phoropter.training.loop.parallel.training_group import Dismissal, TrainingGroup
from phoropter.training.loop.stop_signals import STOP_SIGNALS
from phoropter.training.train import AnnouncedTask, train_candidate


@dataclass(frozen=True)
class SharedTraining:
    """Computes in this process, and trains networks with the helpers of its group; an Executor."""

    options: ComputeOptions
    cache: Path
    group: TrainingGroup

    def compute_study(self, study: StudySpec, out: Path, on_progress: ProgressCallback) -> None:
        self.group.send_message(AnnouncedStudy(pickle.dumps(study), self.cache, get_trusted_folder()))
        options = replace(self.options, device=str(self.group.device), group=self.group)
        compute_missing_runs(study, out, on_progress, options, self.cache)


@dataclass(frozen=True)
class AnnouncedStudy:
    """A study whose networks are trained from now on. trusted: folder from which code may be imported; None: none may"""

    pickled: bytes
    cache: Path
    trusted: Path | None


def help_leader(group: TrainingGroup) -> RunError | None:
    """The main function of a helper: follows the first process until it is dismissed; returns the error by which that one ended.

    Signals that ask to stop are left to the first process, which saves a checkpoint and dismisses its helpers.
    Raises StopRequest where the first process is gone.
    """
    workplace: _Workplace | None = None
    with _stop_signals_ignored(), ExitStack() as trust:
        while not isinstance(message := group.receive_message(), Dismissal):
            if isinstance(message, AnnouncedStudy):
                trust.close()
                if message.trusted is not None:
                    trust.enter_context(trust_code(message.trusted))
                workplace = _Workplace(message, group)
            elif workplace is not None:
                workplace.help_to_train(message)
    return None if message.reason is None else RunError(f"the first process of torchrun ended the study: {message.reason}")


@contextmanager
def _stop_signals_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # where no signal arrives
        yield
        return
    numbers = [getattr(signal, name) for name in STOP_SIGNALS if hasattr(signal, name)]
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True, eq=False)
class _Workplace:
    """What a helper knows of a study."""

    announced: AnnouncedStudy
    group: TrainingGroup

    def help_to_train(self, task: AnnouncedTask) -> None:
        """Where it fails, the first process hears why, and goes on with other runs."""
        self.group.begin_training()
        try:
            for _ in train_candidate(self._make_task(task)):
                pass
        except Exception as error:  # also of the user's own code
            self.group.part(error)

    @cached_property
    def _opened(self) -> list[tuple[Dataset, Pixels]]:
        """The data, opened when they are first needed: by then the first process has decoded the pictures."""
        cache, study = self.announced.cache, pickle.loads(self.announced.pickled)  # noqa: S301  # from the first process
        variants = decode_images(load_study(study, cache), cache, _say_nothing)
        image_sets = {id(v.image_set): v.image_set for v in variants}
        return [(s.dataset, open_pixels(s, cache, _say_nothing)) for s in image_sets.values()]

    def _make_task(self, task: AnnouncedTask) -> TrainingTask:
        for dataset, pixels in self._opened:
            if (dataset.fingerprint, pixels.identity) == (task.dataset, task.pixels):
                return TrainingTask(
                    dataset=dataset,
                    pixels=pixels,
                    device=self.group.device,
                    cache=self.announced.cache,
                    group=self.group,
                    **task.fields,
                )
        raise RunError("the data that this process finds are not those of the first process: let all see the same files")


def _say_nothing(event: ProgressEvent) -> None:
    """The first process tells of the progress."""

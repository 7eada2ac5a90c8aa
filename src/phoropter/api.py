"""The Python interface: a study made of the same words as a study file, and its results.

>>> import phoropter as ph                                                     # doctest: +SKIP
>>> study = ph.Study(name="scenes", data=ph.folder("pictures"), candidates=[ph.finetune("resnet50")], protocol=ph.KFold(5))
>>> study.run().report("report.html")                                          # doctest: +SKIP
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Never, TypedDict, Unpack

from phoropter.core.errors import SpecError
from phoropter.core.files import cache_dir
from phoropter.core.language.notebook_html import format_notebook_html
from phoropter.core.language.unnamed_values import describe_unnamed
from phoropter.core.spec import validate_as
from phoropter.interface.results_view import Results
from phoropter.study.spec import StudySpec

if TYPE_CHECKING:
    from phoropter.study.executors import Places
    from phoropter.study.loggers import Callback
    from phoropter.study.plan import Plan
    from phoropter.study.scheduling.time_budget import TimeBudget
    from phoropter.study.worker import ComputeOptions


class PlaceWords(TypedDict, total=False):
    """Where a study is computed, beside `jobs` and `device`.

    executor: `local` or `ray` · devices: a process for each of these GPUs: `all`, or numbers and ranges as in `0-3,6`
    per_device: so many for each GPU · address: of a Ray cluster (default: one of this machine)
    """

    executor: Literal["local", "ray"]
    devices: str
    per_device: int
    address: str


class Study(StudySpec):
    """Dataset × candidates × protocol (× sweeps), as a study file describes it, with methods that compute it.

    Keyword arguments are the keys of a study file. Where a key takes a name it also takes an object: `data` a Dataset, arrays,
    a DataFrame, a torch Dataset …; `candidates`, `metrics`, `protocol` and recipes the extensions (Backbone, Metric …).
    Raises SpecError for an unknown key or a contradiction.
    """

    def __init__(self, *unnamed: Never, **keys: Any) -> None:
        if unnamed:
            names = ("name", "data", "candidates", "protocol")
            raise SpecError(describe_unnamed("Study", unnamed, names))
        checked = validate_as(StudySpec, keys)  # as the base class, because validating this one would call this function
        if checked.second_protocol:
            raise SpecError("`second_protocol` makes two studies; use it in a study file, or make one Study with each protocol")
        checked.check_candidates()  # here, not when run
        super().__init__(**{name: getattr(checked, name) for name in checked.model_fields_set})

    def __repr__(self) -> str:
        return f"Study({self.name!r}, {len(self.candidates)} candidates)"

    def _repr_html_(self) -> str:
        candidates = self.parsed_candidates
        facts = [f"{len(candidates)} candidate{'s' if len(candidates) > 1 else ''}", "metrics: " + ", ".join(self.metric_names)]
        rows = [(c.name, c.how) for c in candidates]
        return format_notebook_html(f"Study {self.name}", facts, ("Candidate", "How"), rows)

    def plan(self) -> Plan:
        """The runs that `run` would compute; of a screening, its first rung. No image is decoded.

        Raises SpecError, DataError, SplitError, WeightsError, LeakageError.
        """
        from phoropter.study.plan import plan_study
        from phoropter.study.screening import first_rung, needs_screening

        return plan_study(first_rung(self) if needs_screening(self) else self)

    def smoke_version(self) -> Study:
        """The same study at smoke-test scale, as `--smoke` makes it."""
        from phoropter.study.smoke_scale import make_smoke_version

        small = make_smoke_version(self)
        keys = {name: getattr(small, name) for name in small.model_fields_set}
        return Study(**keys).with_context(**vars(small.context))

    def run(
        self,
        out: Path | str | None = None,
        *,
        jobs: int = 1,
        device: str = "auto",
        quiet: bool = False,
        add: bool = False,
        callbacks: Sequence[Callback] = (),
        budget: str | float | None = None,
        **places: Unpack[PlaceWords],
    ) -> Results:
        """Computes what is missing in `out` (default `runs/NAME`) and returns the results.

        out: a folder, or s3://BUCKET/STUDY · jobs: processes at once · device: cpu, cuda, cuda:1, mps or auto
        add: also into a folder that holds another study · callbacks: objects with a method `on_event(event)`
        budget: `3h`, `90min` or seconds, after which it stops with what is finished, and warns; first folds come first
        places: `executor`, `devices`, `per_device` and `address`, as the options of `phoropter run`. Under torchrun all processes
        must call it: they train each network together, and all get the results.
        Raises what `plan` raises; DiskError and MemoryShortageError where no later run could be computed either;
        KeyboardInterrupt after SIGINT, SIGTERM or SIGHUP, from whose checkpoints the same call goes on; RunError of another.
        """
        from phoropter.results.remote_store import open_place
        from phoropter.results.store import Store
        from phoropter.study.executors import Places
        from phoropter.study.processes.torchrun_role import take_role
        from phoropter.study.scheduling.time_budget import TimeBudget
        from phoropter.study.worker import ComputeOptions
        from phoropter.training.loop.stop_signals import BudgetSpent

        limit = None if budget is None else TimeBudget.from_words(budget)
        with take_role(device) as role:
            if role.failure is not None:
                raise role.failure
            folder = open_place(out if out is not None else Path("runs") / self.name)
            if role.computes:
                options = ComputeOptions(device, add=add, folds_first=limit is not None)
                try:
                    self._compute_runs(folder, options, Places(jobs, group=role.group, **places), limit, quiet, callbacks)
                except BudgetSpent as spent:
                    warnings.warn(f"{spent}; the same call goes on from here", stacklevel=2)
        results = Results(Store(folder))
        if quiet and results.failures:
            warnings.warn(_describe_failed_runs(results), stacklevel=2)
        return results

    def _compute_runs(
        self,
        folder: Path,
        options: ComputeOptions,
        places: Places,
        budget: TimeBudget | None,
        quiet: bool,
        callbacks: Sequence[Callback],
    ) -> None:
        from phoropter.interface.progress_console import make_progress_console
        from phoropter.study import executors
        from phoropter.study.display.progress_bars import show_progress
        from phoropter.study.loggers import attach_loggers

        console, cache = make_progress_console(quiet), cache_dir(folder)
        executor = executors.make_executor(options, cache, places)
        with show_progress(self.name, console) as bars, attach_loggers(bars, self.name, folder, callbacks=callbacks) as tell:
            executors.execute_study(self, folder, tell, cache=cache, executor=executor, budget=budget)


def _describe_failed_runs(results: Results) -> str:
    first = next(iter(results.failures.values()))
    count = f"{len(results.failures)} run{'s' if len(results.failures) > 1 else ''} failed"
    return f"{count}, the first ({first['candidate']}) with: {first['error']}"

"""The Python entry: the same words as the study file, and an answer that can be reported.

>>> import phoropter as ph                                                     # doctest: +SKIP
>>> study = ph.Study(name="scenes", data=ph.folder("pictures"), candidates=[ph.finetune("resnet50")], protocol=ph.KFold(5))
>>> study.run().report("report.html")                                          # doctest: +SKIP
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phoropter.core.errors import SpecError
from phoropter.core.files import cache_dir
from phoropter.core.spec import validate_as
from phoropter.results.store import Run, Store
from phoropter.study import spec
from phoropter.study.spec import StudyInput

if TYPE_CHECKING:
    import pandas as pd

    from phoropter.study.plan import Plan


@dataclass(frozen=True)
class Study:
    """Dataset × candidates × protocol (× sweeps). Keyword arguments are the keys of a study file.

    Raises SpecError for an unknown word or a contradiction, when made.
    """

    question: StudyInput

    def __init__(self, **words: Any) -> None:
        object.__setattr__(self, "question", StudyInput(validate_as(spec.StudySpec, words)))
        if self.question.study.compare:
            raise SpecError("protocol compare makes two studies; give it in a study file, or make one study with each protocol")
        self.question.candidates  # noqa: B018  checked when made, not when run

    def plan(self) -> Plan:
        """What would be computed; of a ladder, its first rung. Raises SpecError, DataError, SplitError, WeightsError."""
        from phoropter.study.plan import plan_study
        from phoropter.study.screening import first_rung, needs_screening

        return plan_study(first_rung(self.question) if needs_screening(self.question) else self.question)

    def smoke_version(self) -> Study:
        """The same study at `--scale small`."""
        from phoropter.study.smoke_scale import make_smoke_version

        made = object.__new__(Study)
        object.__setattr__(made, "question", make_smoke_version(self.question))
        return made

    def run(self, out: Path | str | None = None, *, jobs: int = 1, device: str = "auto", quiet: bool = False) -> Results:
        """Computes what is missing in `out` (default `runs/NAME`) and returns the results."""
        from rich.console import Console

        from phoropter.study import executors
        from phoropter.study.loggers import attach_loggers
        from phoropter.study.progress import show_progress
        from phoropter.study.worker import ComputeOptions

        folder = Path(out) if out is not None else Path("runs") / self.question.study.name
        name, to = self.question.study.name, Console(quiet=quiet, stderr=True)
        with show_progress(name, to) as bars, attach_loggers(bars, name, folder) as watch:
            store = executors.execute_study(self.question, folder, watch, jobs, ComputeOptions(device), cache_dir(folder))
        return Results(store)


@dataclass(frozen=True)
class Results:
    """What a study's runs predicted on data they had not seen."""

    store: Store

    @property
    def runs(self) -> list[Run]:
        return list(self.store.runs())

    def to_dataframe(self) -> pd.DataFrame:
        """A row a run: candidate, seed, repeat, fold, and its metrics."""
        import pandas as pd

        columns = [
            {"candidate": r.candidate_name, "seed": r.record["seed"], **_split_position(r), **r.record["metrics"]}
            for r in self.runs
        ]
        return pd.DataFrame(columns)

    def report(self, path: Path | str | None = None) -> Path:
        """Writes the page and its tables; returns the page's path (default DIR/report/index.html)."""
        from phoropter.report.page import write_report

        return write_report(self.store.folder, None if path is None else Path(path))


def _split_position(run: Run) -> dict[str, int]:
    return {k: run.record["split"][k] for k in ("repeat", "fold")}

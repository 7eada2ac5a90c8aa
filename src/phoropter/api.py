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
from phoropter.core.spec import check
from phoropter.results.store import Run, Store
from phoropter.study import spec
from phoropter.study.spec import Question

if TYPE_CHECKING:
    import pandas as pd

    from phoropter.study.plan import Plan


@dataclass(frozen=True)
class Study:
    """Dataset × candidates × protocol (× sweeps). Keyword arguments are the keys of a study file.

    Raises SpecError for an unknown word or a contradiction, when made.
    """

    question: Question

    def __init__(self, **words: Any) -> None:
        object.__setattr__(self, "question", Question(check(spec.Study, words)))
        if self.question.study.lax_too:
            raise SpecError("protocol compare makes two studies; give it in a study file, or make one study with each protocol")
        self.question.candidates  # noqa: B018  checked when made, not when run

    def plan(self) -> Plan:
        """What would be computed; of a ladder, its first rung. Raises SpecError, DataError, SplitError, WeightsError."""
        from phoropter.study.ladder import climbs, first_rung
        from phoropter.study.plan import plan

        return plan(first_rung(self.question) if climbs(self.question) else self.question)

    def small(self) -> Study:
        """The same study at `--scale small`."""
        from phoropter.study.scale import small

        made = object.__new__(Study)
        object.__setattr__(made, "question", small(self.question))
        return made

    def run(self, out: Path | str | None = None, *, jobs: int = 1, device: str = "auto", quiet: bool = False) -> Results:
        """Computes what is missing in `out` (default `runs/NAME`) and returns the results."""
        from rich.console import Console

        from phoropter.study import executors
        from phoropter.study.loggers import logged
        from phoropter.study.progress import watching
        from phoropter.study.run import Here

        folder = Path(out) if out is not None else Path("runs") / self.question.study.name
        name, to = self.question.study.name, Console(quiet=quiet, stderr=True)
        with watching(name, to) as bars, logged(bars, name, folder) as watch:
            store = executors.run(self.question, folder, watch, jobs, Here(device), cache_dir(folder))
        return Results(store)


@dataclass(frozen=True)
class Results:
    """What a study's runs predicted on data they had not seen."""

    store: Store

    @property
    def runs(self) -> list[Run]:
        return list(self.store.runs())

    def table(self) -> pd.DataFrame:
        """A row a run: candidate, seed, repeat, fold, and its metrics."""
        import pandas as pd

        columns = [{"candidate": r.candidate, "seed": r.record["seed"], **_place(r), **r.record["metrics"]} for r in self.runs]
        return pd.DataFrame(columns)

    def report(self, path: Path | str | None = None) -> Path:
        """Writes the page and its tables; returns the page's path (default DIR/report/index.html)."""
        from phoropter.report.page import write_report

        return write_report(self.store.folder, None if path is None else Path(path))


def _place(run: Run) -> dict[str, int]:
    return {k: run.record["split"][k] for k in ("repeat", "fold")}

"""Where the negative controls of a study lie, and what is in them before they are run.

OUT/controls/folds.csv     the folds of the study, for controls whose labels would give others
OUT/controls/KIND/         the results folder of one control, as that of any study
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from phoropter.core.durations import format_duration
from phoropter.data.controls.control_kinds import NEW_PICTURES
from phoropter.data.splits.protocol import write_folds_file
from phoropter.results.control_folder import CONTROLS_FOLDER, open_controls
from phoropter.results.store import Store
from phoropter.study.cost import estimate_resources
from phoropter.study.load import LoadedVariant, load_study
from phoropter.study.plan import Plan, make_plan
from phoropter.study.spec import StudySpec
from phoropter.study.variants.control_studies import make_control_study

FOLDS_FILE = "folds.csv"


def prepare_controls(study: StudySpec, out: Path, cache: Path) -> Iterator[tuple[StudySpec, Path]]:
    """Each control of a study that has been run, and its results folder. Raises what `load_study` raises."""
    if study.controls is None:
        return
    loaded = load_study(study, cache)[0]
    folds = (out / CONTROLS_FOLDER / FOLDS_FILE).resolve()
    dataset, settled = loaded.image_set.dataset, loaded.study
    for kind in study.controls.kinds:
        if kind == "labels-permuted":
            folds.parent.mkdir(parents=True, exist_ok=True)
            write_folds_file(dataset, settled.protocol, folds, settled.base)
        yield make_control_study(settled, kind, dataset, loaded.image_set.image_size, folds), out / CONTROLS_FOLDER / kind


def describe_controls(study: StudySpec, out: Path, cache: Path, device: str) -> Iterator[str]:
    """A line for each control: its runs, how many are finished, and about how long all take. Nothing is written."""
    if study.controls is None:
        return
    for kind, planned, folder in plan_controls(load_study(study, cache)[0], out):
        begun = open_controls(Store(out), (kind,)).values()
        done = sum(1 for store in begun for _ in store.runs())
        cost = estimate_resources(planned, Store(folder), cache, device)
        # Features of the study's own pictures are there when its runs are done
        seconds = cost.seconds - (0.0 if kind in NEW_PICTURES else cost.feature_seconds)
        runs, name = len(planned.runs), planned.runs[-1].candidate.name
        yield f"negative control {kind} of {name}: {runs} runs, {done} done, all in about {format_duration(seconds)}"


def plan_controls(loaded: LoadedVariant, out: Path) -> Iterator[tuple[str, Plan, Path]]:
    """Kind, plan and results folder of each control, without writing anything; of permuted labels as if they were the study's."""
    study, image_set = loaded.study, loaded.image_set
    for kind in study.controls.kinds if study.controls else ():
        control = make_control_study(study, kind, image_set.dataset, image_set.image_size)
        yield kind, make_plan(control, load_study(control)), out / CONTROLS_FOLDER / kind

"""Negative controls of a study, computed: with a mark in a corner that tells the site and the class, and without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from phoropter.core.files import cache_dir
from phoropter.report.page import collect_notices, read_report_input
from phoropter.report.sections.order import SECTION_ORDER
from phoropter.report.sections.study.controls import controls_section
from phoropter.report.summary.controls.control_results import ControlResult
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.control_folder import CONTROLS_FOLDER
from phoropter.results.positive_class import open_results
from phoropter.results.store import Store
from phoropter.study.controls.control_folders import describe_controls, plan_controls, prepare_controls
from phoropter.study.executors import execute_study
from phoropter.study.load import load_study
from phoropter.study.spec import read_study
from phoropter.study.worker import ComputeOptions
from small_pictures import run_small_study

PEOPLE, ROWS_EACH = 24, 6
STUDY = """\
name: marked
data: {manifest: rows.csv, size: 32}
protocol: {split: stratified-group-k-fold, folds: 3, seeds: [0]}
candidates:
  - {name: trained, backbone: test_vit, weights: random, recipe: {preset: scratch, epochs: 1}}
  - {name: solved, backbone: test_resnet, weights: random, frozen: true, recipe: logistic}
metrics: [roc_auc]
controls: [labels-permuted, predict-site, predict-group, blank-pictures]
"""


def draw_people(folder: Path, marked: bool) -> None:
    """People of two sites and two classes: brightness tells the class, and a mark in a corner tells the site, where marked."""
    draw = np.random.default_rng(1)
    (folder / "pictures").mkdir(parents=True)
    lines = ["path,label,group,site"]
    for person in range(PEOPLE):
        site, label = person % 2, person // 2 % 2
        for i in range(ROWS_EACH):
            pixels = draw.integers(0, 120, (32, 32, 3)) + 25 * label
            if marked:
                pixels[:8, :8] = 255 * site
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "pictures" / f"{person}-{i}.png")
            lines.append(f"pictures/{person}-{i}.png,{'ill' if label else 'well'},p{person:02d},{'north' if site else 'south'}")
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")


def run_marked(folder: Path, marked: bool, text: str = STUDY) -> Store:
    draw_people(folder, marked)
    return run_small_study(folder, text)


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return run_marked(tmp_path_factory.mktemp("marked"), True)


@pytest.fixture(scope="module")
def found(marked: Store) -> ReportInput:
    return read_report_input(marked.folder)


@pytest.fixture(scope="module")
def unmarked(tmp_path_factory: pytest.TempPathFactory) -> ReportInput:
    text = STUDY.replace(
        "[labels-permuted, predict-site, predict-group, blank-pictures]", "{kinds: [predict-site], candidate: solved}"
    )
    return read_report_input(run_marked(tmp_path_factory.mktemp("unmarked"), False, text).folder)


def control(inputs: ReportInput, kind: str) -> ControlResult:
    return next(c for c in inputs.controls if c.kind == kind)


def test_a_mark_in_a_corner_tells_the_site(found: ReportInput, unmarked: ReportInput) -> None:
    with_mark, without = control(found, "predict-site"), control(unmarked, "predict-site")
    assert with_mark.is_above and with_mark.interval is not None and with_mark.interval.estimate > 0.95
    assert not without.is_above and without.interval is not None and without.interval.low < 0.5
    assert with_mark.guessing == without.guessing == pytest.approx(0.5)
    assert (with_mark.n_classes, with_mark.own_value) == (2, None)


def test_nothing_can_be_learnt_of_permuted_labels_and_blank_pictures(found: ReportInput) -> None:
    for kind in ("labels-permuted", "blank-pictures"):
        result = control(found, kind)
        assert not result.is_above and result.interval is not None and result.interval.low <= 0.5
        assert result.guessing == pytest.approx(0.5)
        solved = next(c for c in found.summary.candidates if c.name == "solved")
        assert (result.candidate, result.own_value) == ("solved", solved.values["roc_auc"])
        assert (result.n_runs, result.n_planned, result.problem) == (3, 3, "")
    assert [notice.title for notice in collect_notices(found.summary, found.controls)] == []


def test_people_are_told_apart_in_folds_with_all_of_them_on_both_sides(marked: Store, found: ReportInput) -> None:
    result = control(found, "predict-group")
    assert result.n_classes == PEOPLE and result.guessing == pytest.approx(1 / PEOPLE)
    store = Store(marked.folder / CONTROLS_FOLDER / "predict-group")
    for run in store.runs():
        tested = run.load_predictions()
        assert tested is not None and len(np.unique(tested.labels)) == PEOPLE


def test_controls_of_the_same_question_have_the_folds_of_the_study(marked: Store) -> None:
    def tested_by_fold(store: Store) -> dict[int, set[str]]:
        runs = [run for run in store.runs() if run.candidate_name == "solved"]
        return {run.record["split"]["fold"]: set(run.load_predictions().ids.tolist()) for run in runs}  # type: ignore[union-attr]

    own = tested_by_fold(marked)
    for kind in ("labels-permuted", "blank-pictures"):
        assert tested_by_fold(Store(marked.folder / CONTROLS_FOLDER / kind)) == own
    site = tested_by_fold(Store(marked.folder / CONTROLS_FOLDER / "predict-site"))
    for ids in site.values():
        people = {name.split("/")[-1].split("-")[0] for name in ids}
        rest = {name.split("/")[-1].split("-")[0] for other in site.values() if other != ids for name in other}
        assert not people & rest  # kept apart


def test_permuted_labels_are_those_of_their_folder(marked: Store) -> None:
    own: dict[str, int] = {}
    for run in marked.runs():
        predictions = run.load_predictions()
        assert predictions is not None
        own |= dict(zip(predictions.ids.tolist(), predictions.labels.tolist(), strict=True))
    other: dict[str, int] = {}
    for run in Store(marked.folder / CONTROLS_FOLDER / "labels-permuted").runs():
        predictions = run.load_predictions()
        assert predictions is not None and predictions.groups is not None
        for group in np.unique(predictions.groups):
            assert len(np.unique(predictions.labels[predictions.groups == group])) == 1
        other |= dict(zip(predictions.ids.tolist(), predictions.labels.tolist(), strict=True))
    assert own.keys() == other.keys() and own != other


def test_the_page_has_a_section_with_every_control(found: ReportInput) -> None:
    section = controls_section(found)
    assert section is not None and controls_section in SECTION_ORDER
    permuted, site, _, blank = section.paragraphs
    assert "so a shortcut is possible wherever classes are not equally common at all sites" in site
    assert permuted.endswith("That is as it should be: there was nothing to learn.") and blank.endswith(permuted[-52:])


def test_finished_controls_are_not_computed_again(marked: Store) -> None:
    def stamps() -> dict[str, int]:
        return {str(f): f.stat().st_mtime_ns for f in marked.folder.glob("controls/*/runs/*/record.json")}

    before, study = stamps(), read_study(marked.folder.parent / "study.yaml")[0]
    execute_study(study, marked.folder, lambda event: None, options=ComputeOptions("cpu", threads=1))
    assert stamps() == before and len(before) == 3 + 5 + 5 + 3


def test_a_plan_knows_the_runs_of_every_control(marked: Store, tmp_path: Path) -> None:
    study, cache = read_study(marked.folder.parent / "study.yaml")[0], cache_dir(marked.folder)
    planned = {kind: plan for kind, plan, _ in plan_controls(load_study(study, cache)[0], tmp_path)}
    assert {kind: len(plan.runs) for kind, plan in planned.items()} == {
        "labels-permuted": 3,
        "predict-site": 5,
        "predict-group": 5,
        "blank-pictures": 3,
    }
    lines = list(describe_controls(study, tmp_path, cache, "cpu"))
    assert [line.partition(", all in")[0] for line in lines] == [
        f"negative control {kind} of solved: {len(plan.runs)} runs, 0 done" for kind, plan in planned.items()
    ]
    assert "5 runs, 5 done" in list(describe_controls(study, marked.folder, cache, "cpu"))[2]
    assert not list(tmp_path.iterdir())
    prepared = dict(zip(planned, prepare_controls(study, tmp_path, cache), strict=True))
    for kind, (control_study, folder) in prepared.items():
        assert (control_study.name, folder) == (f"marked-{kind}", tmp_path / CONTROLS_FOLDER / kind)
        assert open_results(folder) is not None and control_study.save_models == "none"

"""A study that chooses among its members: the weights it records, and the predictions that follow from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from phoropter.data.splits.protocol import write_folds_file
from phoropter.report.page import read_report_input
from phoropter.report.render.table import MeanStd, Table
from phoropter.report.sections.candidate_costs import sum_study_seconds
from phoropter.report.sections.training.fusion import fusion_section
from phoropter.results.metrics.probabilities import softmax
from phoropter.results.store import Run, Store
from phoropter.study.cost import estimate_resources
from phoropter.study.load import load_study
from phoropter.study.plan import plan_study
from phoropter.study.spec import read_study
from small_pictures import draw_dark_and_light, run_small_study

STUDY = """\
name: chosen
data: {folder: pictures, size: 32}
protocol: {split: stratified-k-fold, folds: 2}
recipe: {preset: scratch, epochs: 1}
candidates:
  - {name: solved, backbone: test_resnet, weights: random, frozen: true, recipe: logistic}
  - {name: other, backbone: test_vit, weights: random, frozen: true, recipe: logistic}
  - {name: trained, backbone: test_resnet, weights: random}
  - {name: mean, fuse: [solved, trained], mode: ensemble}
  - {baseline: mean-image}
  - {name: chosen, fuse: all, mode: select}
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("chosen")
    draw_dark_and_light(folder / "pictures", 16, greys=(60, 75), noise=120)
    return run_small_study(folder, STUDY)


def runs_of(store: Store, name: str) -> list[Run]:
    return sorted((run for run in store.runs() if run.candidate_name == name), key=lambda run: run.record["split"]["fold"])


def test_predictions_are_the_weighted_mean_of_the_members(store: Store) -> None:
    for fold, run in enumerate(runs_of(store, "chosen")):
        chosen = {each["name"]: each["weight"] for each in run.record["selection"]["members"]}
        assert list(chosen) == ["other", "solved", "trained"] and sum(chosen.values()) == pytest.approx(1)
        expected = 0.0
        for name, weight in chosen.items():
            member = runs_of(store, name)[fold].load_predictions()
            assert member is not None
            expected = expected + weight * softmax(member.logits)
        own = run.load_predictions()
        assert own is not None
        assert own.probabilities == pytest.approx(expected, abs=1e-6)


def test_the_record_says_who_counts_and_by_what(store: Store) -> None:
    run = runs_of(store, "chosen")[0]
    said = run.record["selection"]
    assert (said["inner_folds"], said["bags"], said["rows"]) == (3, 20, 16)
    assert said["inner_loss"] <= min(each["inner_loss"] for each in said["members"]) + 1e-3
    assert run.record["candidate"]["members"] == ["solved", "other", "trained"]
    weights = {each["name"]: each["weight"] for each in said["members"]}
    for branch in run.record["branches"]:
        assert branch["weight"] == weights[branch["name"]]
    members = [runs_of(store, name)[0].record["cost"]["train_seconds"] for name in weights]
    assert run.record["cost"]["train_seconds"] == pytest.approx(sum(members) + said["seconds"], abs=0.002)


def test_without_the_only_member_that_counts_nothing_is_left(store: Store) -> None:
    for run in runs_of(store, "chosen"):
        for branch in run.record["branches"]:
            assert (branch["without"] is None) == (branch["weight"] > 1 - 1e-12)


def test_a_plan_counts_the_fits_on_inner_folds(store: Store, tmp_path: Path) -> None:
    folder = store.folder.parent

    def estimate(epochs: int) -> dict[str, float]:
        (folder / "other.yaml").write_text(STUDY.replace("epochs: 1}", f"epochs: {epochs}}}"))
        planned = plan_study(read_study(folder / "other.yaml")[0])
        return estimate_resources(planned, Store(tmp_path), tmp_path).by_candidate

    short, long = estimate(1), estimate(50)
    # Of the members, one is trained by epochs: in 3 fits, each on two thirds of the rows of its run
    assert long["chosen"] - short["chosen"] == pytest.approx(2 * (long["trained"] - short["trained"]))
    assert long["mean"] == short["mean"] and short["chosen"] > short["mean"]


def test_the_table_of_branches_shows_the_weights(store: Store) -> None:
    section = fusion_section(read_report_input(store.folder))
    assert section is not None
    (table,) = section.blocks
    assert isinstance(table, Table)
    weights: dict[str, list[float]] = {}
    for run in runs_of(store, "chosen"):
        for each in run.record["selection"]["members"]:
            weights.setdefault(each["name"], []).append(each["weight"])
    lines = [dict(zip((column.name for column in table.columns), row.values, strict=True)) for row in table.rows]
    shown = {line["Branch"]: line["Weight"] for line in lines if line["Fusion"] == "chosen"}
    assert shown == {name: MeanStd(float(np.mean(each)), float(np.std(each, ddof=1))) for name, each in weights.items()}
    assert all(np.isnan(line["Weight"].mean) for line in lines if line["Fusion"] == "mean")  # type: ignore[union-attr]


def test_a_member_with_all_the_weight_of_a_run_is_not_called_idle() -> None:
    """Without it nothing is left there, so that the runs in which it is one of several cannot tell that it may be left out."""
    half = {"fused": 0.8, "accuracy": 0.8, "without": 0.9, "weight": 0.5}
    runs = [[{"name": "a", **half}, {"name": "b", **half}]]
    runs += [[{"name": "a", **half, "without": None, "weight": 1.0}, {"name": "b", **half, "without": 0.8, "weight": 0.0}]]
    records = [SimpleNamespace(record={"branches": branches, "selection": {}}) for branches in runs]
    records[0].record["selection"] = {"members": []}
    inputs: Any = SimpleNamespace(summary=SimpleNamespace(candidates=[SimpleNamespace(name="chosen", runs=records)]))
    section = fusion_section(inputs)
    assert section is not None and section.paragraphs[0].endswith("or raises it: b in chosen.")
    (table,) = section.blocks
    assert isinstance(table, Table) and "Where one branch has all the weight nothing is left without it" in table.note


def test_what_a_cache_holds_of_the_same_rows_changes_no_choice(tmp_path: Path) -> None:
    """The same split from a folds file has another name, and so other inner folds: answers are not taken over."""
    pictures = draw_dark_and_light(tmp_path / "pictures", 16, greys=(60, 75), noise=120)
    rows = [f"pictures/{kind}/{i}.png,{kind},{kind}{i // 2}" for kind in ("dark", "light") for i in range(16)]
    text = (
        "name: by-name\ndata: {manifest: rows.csv, size: 32}\nprotocol: {split: hold-out}\ncandidates:\n"
        "  - {name: a, backbone: test_resnet, weights: random, frozen: true, recipe: logistic}\n"
        "  - {name: b, backbone: test_vit, weights: random, frozen: true, recipe: logistic}\n"
        "  - {name: chosen, fuse: [a, b], mode: select}\n"
    )
    from_file = text.replace("hold-out", "file, folds_file: folds.csv")
    found = []
    for name in ("used", "fresh"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "pictures").symlink_to(pictures)
        (folder / "rows.csv").write_text("\n".join(["path,label,group", *rows]))
        (folder / "study.yaml").write_text(text)
        loaded = load_study(read_study(folder / "study.yaml")[0])[0]
        write_folds_file(loaded.image_set.dataset, loaded.study.protocol, folder / "folds.csv")
        if name == "used":
            run_small_study(folder, text)
            (folder / "out").rename(folder / "before")
        (run,) = runs_of(run_small_study(folder, from_file), "chosen")
        found.append({**run.record["selection"], "seconds": 0})
    assert found[0] == found[1]


def test_the_time_of_a_study_holds_the_fits_of_a_choice_once(store: Store) -> None:
    summary = read_report_input(store.folder).summary
    without = replace(summary, candidates=[c for c in summary.candidates if c.name != "chosen"])
    spent = sum(run.record["selection"]["seconds"] for run in runs_of(store, "chosen"))
    assert sum_study_seconds(summary) == pytest.approx(sum_study_seconds(without) + spent) and spent > 0

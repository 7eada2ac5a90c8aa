"""Maps of a study's leader: of the rows that its first run held out, by its own model; a reason where there can be none."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from phoropter.cli import main
from phoropter.core.storage.sealed_json import read_cache_json
from phoropter.refit.leader_maps import choose_rows, compute_leader_maps
from phoropter.report.page import write_report
from phoropter.report.sections.predictions.leader_maps import LeaderMaps, has_current_maps
from phoropter.report.summary.candidate_reader import CandidateReader
from phoropter.report.summary.collect import collect_summary
from phoropter.report.summary.model import CandidateResults
from phoropter.results.positive_class import open_results
from phoropter.results.run_folder import Predictions, read_image_archive
from phoropter.results.store import Store
from small_pictures import draw_dark_and_light, run_small_study
from small_recordings import ECG_STUDY

PICTURES = """\
name: shapes
data: {folder: pictures, size: 64}
protocol: {split: stratified-k-fold, folds: 2}
recipe: {preset: scratch, epochs: 1}
candidates:
  - {name: net, backbone: test_resnet, weights: random}
  - {name: vit, backbone: test_vit, weights: random}
  - {name: both, fuse: [net, vit], mode: ensemble}
"""
ECG = ECG_STUDY + "recipe: {preset: scratch, epochs: 1}\ncandidates: [{name: cnn, backbone: test_resnet, weights: random}]\n"


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    draw_dark_and_light(folder / "pictures", 10, size=(64, 64), greys=(60, 90), noise=120)
    return run_small_study(folder, PICTURES).folder


def make_maps(folder: Path) -> str | None:
    store = open_results(folder)
    return compute_leader_maps(store, collect_summary(store))


def read_maps(folder: Path) -> LeaderMaps:
    found = read_cache_json(folder / "maps" / "maps.json", LeaderMaps)
    assert found is not None
    return found


def test_the_maps_are_those_of_the_leaders_kept_model_on_rows_it_did_not_meet(shapes: Path) -> None:
    assert make_maps(shapes) is None
    maps, leader = read_maps(shapes), collect_summary(Store(shapes)).candidates[0]
    assert maps.candidate == leader.name and maps.rows and not maps.reason
    first = next(r for r in leader.runs if r.record["split"]["name"] == maps.split)
    predictions = Store(shapes).run(first.key).load_predictions()
    assert predictions is not None
    place = {str(name): row for row, name in enumerate(predictions.ids)}
    jpegs = read_image_archive(shapes / "maps" / "pictures.npz")
    assert set(jpegs) == {f"{i}-{what}" for i in range(len(maps.rows)) for what in ("shown", "map")}
    for row in maps.rows:
        at = place[row.id]
        assert row.confidence == pytest.approx(predictions.probabilities[at].max(), abs=1e-5)
        assert row.predicted == ("dark", "light")[int(predictions.logits[at].argmax())] and row.id.startswith(row.true)
        assert (row.kind == "right") == (row.true == row.predicted)
    page = write_report(shapes).read_text()
    assert "Where the leader looked" in page and all(row.id in page for row in maps.rows)
    assert page.count(": evidence") == len(maps.rows)


def test_a_report_with_maps_reads_each_candidate_once(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, read_candidate = list[str](), CandidateReader.read_candidate

    def note_and_read(reader: CandidateReader, name: str, *rest: Any) -> CandidateResults:
        read.append(name)
        return read_candidate(reader, name, *rest)

    monkeypatch.setattr(CandidateReader, "read_candidate", note_and_read)
    CliRunner().invoke(main, ["report", str(shapes), "--maps"], catch_exceptions=False)
    assert len(read) == len(set(read)) and {"both", "net", "vit"} < set(read) and read_maps(shapes).rows


def test_a_recordings_maps_are_figures_over_seconds(tmp_path: Path) -> None:
    folder = run_small_study(tmp_path, ECG).folder
    assert make_maps(folder) is None
    maps, jpegs = read_maps(folder), read_image_archive(folder / "maps" / "pictures.npz")
    assert all(row.span is not None and row.group for row in maps.rows)
    assert set(jpegs) == {f"{i}-figure" for i in range(len(maps.rows))} and all(len(j) < 60_000 for j in jpegs.values())
    page = write_report(folder)
    assert 'class="gallery figures"' in page.read_text() and page.stat().st_size < 5_000_000


def test_reasons_are_kept_and_shown_where_there_can_be_no_maps(shapes: Path, tmp_path: Path) -> None:
    copy = tmp_path / "study"
    shutil.copytree(shapes.parent, copy)
    out = copy / "out"
    victim = copy / "pictures" / "dark" / "0.png"
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(victim)
    done = CliRunner().invoke(main, ["report", str(out), "--maps"], catch_exceptions=False)
    assert done.exit_code == 0 and "no maps of the leader: the data of the study have changed since it ran" in done.output
    assert read_maps(out).reason and not read_maps(out).rows
    assert "There are no maps of" in (out / "report" / "index.html").read_text()
    for bundle in (out / "runs").glob("*/bundle"):
        shutil.rmtree(bundle)
    assert "kept no model of" in str(make_maps(out))
    (out / "maps" / "maps.json").write_text("{}")
    assert "The maps in the results folder are damaged" in write_report(out).read_text()


def test_maps_come_with_the_data_that_were_away(shapes: Path, tmp_path: Path) -> None:
    """A reason that may pass stays no longer than until the next run; one of the results themselves stays with them."""
    copy = tmp_path / "study"
    shutil.copytree(shapes.parent, copy)
    out, victim = copy / "out", copy / "pictures" / "dark" / "0.png"
    sound, summary = victim.read_bytes(), collect_summary(open_results(out))
    victim.write_bytes(b"no picture")
    assert make_maps(out) is not None and not has_current_maps(out, summary)
    assert "There are no maps of" in write_report(out).read_text()
    victim.write_bytes(sound)
    command = ["run", str(copy / "study.yaml"), "-o", str(out)]
    assert CliRunner().invoke(main, command, catch_exceptions=False).exit_code == 0
    assert read_maps(out).rows and has_current_maps(out, summary)
    assert "There are no maps of" not in (out / "report" / "index.html").read_text()
    for bundle in (out / "runs").glob("*/bundle"):
        shutil.rmtree(bundle)
    assert "kept no model of" in str(make_maps(out)) and has_current_maps(out, summary)


def test_the_rows_are_the_surest_mistakes_and_the_median_right_answer_of_each_class() -> None:
    """Ten rows of class a, of growing confidence; five of b, four of them answered a."""
    margin = np.array([*range(1, 11), 1, 2, 3, 4, 1], float)
    answer = np.array([0] * 10 + [0] * 4 + [1])
    logits = np.zeros((15, 2), np.float32)
    logits[np.arange(15), answer] = margin
    labels = np.array([0] * 10 + [1] * 5)
    chosen = choose_rows(Predictions(np.array([f"r{i}" for i in range(15)]), labels, logits))
    assert chosen == [(13, "wrong"), (12, "wrong"), (11, "wrong"), (10, "wrong"), (4, "right"), (14, "right")]


def test_a_finished_study_keeps_its_maps(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from phoropter.refit import leader_maps

    made = list[str]()

    def compute_again(store: Store, summary: Any) -> None:
        made.append(summary.candidates[0].name)

    study = shapes.parent / "study.yaml"
    assert make_maps(shapes) is None
    before = (shapes / "maps" / "maps.json").read_bytes()
    monkeypatch.setattr(leader_maps, "compute_leader_maps", compute_again)
    command = ["run", str(study), "-o", str(shapes)]
    assert CliRunner().invoke(main, command, catch_exceptions=False).exit_code == 0
    assert not made and (shapes / "maps" / "maps.json").read_bytes() == before
    (shapes / "maps" / "maps.json").unlink()
    assert CliRunner().invoke(main, command, catch_exceptions=False).exit_code == 0
    assert made, "where there are none they are computed"
    monkeypatch.undo()
    assert make_maps(shapes) is None


def test_maps_of_another_leader_or_other_runs_are_not_current(shapes: Path) -> None:
    assert make_maps(shapes) is None
    summary = collect_summary(open_results(shapes))
    assert has_current_maps(shapes, summary)
    first, *rest = summary.candidates
    assert not has_current_maps(shapes, replace(summary, candidates=[*rest, first]))
    assert not has_current_maps(shapes, replace(summary, candidates=[replace(first, runs=first.runs[1:]), *rest]))


def _cut_in_half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("damage", [_cut_in_half, Path.unlink])
def test_damaged_pictures_of_maps_are_computed_again_and_stop_no_report(shapes: Path, damage: Callable[[Path], object]) -> None:
    assert make_maps(shapes) is None
    damage(shapes / "maps" / "pictures.npz")
    summary = collect_summary(open_results(shapes))
    assert not has_current_maps(shapes, summary)
    assert "The maps in the results folder are damaged" in write_report(shapes).read_text()
    assert make_maps(shapes) is None
    assert has_current_maps(shapes, summary)

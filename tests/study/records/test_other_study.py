"""A results folder is not written over by another study, whatever its name."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from phoropter.cli import main
from phoropter.core.errors import DiskError, StoreError
from phoropter.results.store import Store
from phoropter.study import worker
from phoropter.study.executors import execute_study
from phoropter.study.plan import plan_study
from phoropter.study.records.other_study import find_changed_parts, raise_on_other_study, state_seeds
from tiny_study import HERE, run_tiny_study, write_tiny_study

CHANGES = {  # changes of the study file that leave no run in common → the parts that differ
    "data": (("max_samples: 60", "max_samples: 50"), ["data"]),
    "protocol": (("seeds: [0]", "seeds: [7]"), ["protocol"]),
    "recipe": (("epochs: 1", "epochs: 2"), ["recipe"]),
    "candidates": (("name: vit, backbone: test_vit", "name: cnn, backbone: test_resnet"), ["candidates"]),
    "sweep": (("candidates:", "sweep: {recipe.lr: [0.5, 0.25]}\ncandidates:"), ["sweep"]),
}
GROWN = {  # changes that keep a run
    "seeds": ("seeds: [0]", "seeds: [0, 1]"),
    "candidate": ("candidates:", "candidates:\n  - {name: cnn, backbone: test_resnet, weights: random, frozen: true}"),
    "metrics": ("name: tiny", "name: tiny\nmetrics: [macro_f1]"),
    "name": ("name: tiny", "name: other"),
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return run_tiny_study(tmp_path_factory.mktemp("done"))


def run_command(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


@pytest.mark.parametrize("change", CHANGES)
def test_other_contents_under_one_name_are_refused_with_what_differs(done: Store, tmp_path: Path, change: str) -> None:
    replaced, parts = CHANGES[change]
    planned = plan_study(write_tiny_study(tmp_path, replaced))
    assert find_changed_parts(done.study, planned) == parts
    words = (
        f"holds another study of the name 'tiny', without a run in common (different: {parts[0]}): choose another folder with -o"
    )
    with pytest.raises(StoreError, match=re.escape(words)):
        raise_on_other_study(done.study, planned, done)


@pytest.mark.parametrize("change", GROWN)
def test_a_study_that_has_grown_goes_on(done: Store, tmp_path: Path, change: str) -> None:
    raise_on_other_study(done.study, plan_study(write_tiny_study(tmp_path, GROWN[change])), done)


def test_what_no_one_would_miss_may_be_replaced(done: Store, tmp_path: Path) -> None:
    planned = plan_study(write_tiny_study(tmp_path, CHANGES["recipe"][0]))
    raise_on_other_study({}, planned, done)
    raise_on_other_study({**done.study, "scale": ["fewer epochs"]}, planned, done)  # a smoke test
    empty = Store(tmp_path / "empty")
    empty.write_study(done.study)
    raise_on_other_study(empty.study, planned, empty)  # nothing was finished
    same = plan_study(write_tiny_study(tmp_path))
    changed_numerics = {**done.study, "plan": [{**row, "key": "0" * 32} for row in done.study["plan"]]}
    raise_on_other_study(changed_numerics, same, done)  # the same study under a newer version


def test_changed_pictures_are_another_study(done: Store, tmp_path: Path) -> None:
    planned = plan_study(write_tiny_study(tmp_path))
    earlier = {**done.study, "plan": [{**row, "key": "0" * 32} for row in done.study["plan"]]}
    earlier["dataset"] = {**earlier["dataset"], "fingerprint": "f" * 32}
    with pytest.raises(StoreError, match=re.escape("(different: contents of the data)")):
        raise_on_other_study(earlier, planned, done)


def test_rows_that_decoding_may_lose_are_waited_for(done: Store, tmp_path: Path) -> None:
    change = ("max_samples: 60", "max_samples: 50, on_bad_input: skip")
    planned = plan_study(write_tiny_study(tmp_path, change), tmp_path / "cache")
    assert not planned.image_sets[0].decoded
    raise_on_other_study(done.study, planned, done)
    shutil.copytree(done.folder, tmp_path / "out")
    with pytest.raises(StoreError, match="different: data"):
        execute_study(write_tiny_study(tmp_path, change), tmp_path / "out", lambda event: None, options=HERE)


def test_nothing_is_decoded_before_a_folder_is_refused(done: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in done.folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(worker, "decode_images", lambda *_: pytest.fail("images were decoded"))
    write_tiny_study(tmp_path, CHANGES["data"][0])
    for command in (("run", "--device", "cpu"), ("plan", "--device", "cpu"), ("submit", "--executor", "local")):
        result = run_command(*command, tmp_path / "study.yaml", "-o", done.folder)
        assert result.exit_code == 2 and "another study of the name 'tiny'" in result.output
    left = {path: path.read_bytes() for path in done.folder.rglob("*") if path.is_file() and path.suffix != ".lock"}
    assert {path: data for path, data in before.items() if path.suffix != ".lock"} == left


def test_plan_shows_what_it_can_where_no_folder_was_named(done: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_study(tmp_path, CHANGES["recipe"][0])
    added = run_command("plan", tmp_path / "study.yaml", "-o", done.folder, "--add")
    assert added.exit_code == 0 and "run would stop" not in added.output
    monkeypatch.chdir(tmp_path)
    shutil.copytree(done.folder, tmp_path / "runs" / "tiny")
    result = run_command("plan", "study.yaml")
    assert result.exit_code == 0 and "2 of 2 runs to compute" in result.output
    assert "run would stop: runs/tiny holds another study of the name 'tiny'" in " ".join(result.output.split())


def test_a_folder_that_may_not_be_written_is_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "decode_images", lambda *_: pytest.fail("images were decoded"))
    (tmp_path / "out").touch()
    with pytest.raises(DiskError, match="is a file, and a folder is needed there"):
        worker.compute_missing_runs(write_tiny_study(tmp_path), tmp_path / "out", lambda event: None, HERE)


def test_a_record_without_seeds_ran_with_one() -> None:
    assert state_seeds({"name": "s"}) == {"name": "s", "protocol": {"seeds": [0]}}
    assert state_seeds({"protocol": {"folds": 2, "seeds": [7]}})["protocol"] == {"folds": 2, "seeds": [7]}

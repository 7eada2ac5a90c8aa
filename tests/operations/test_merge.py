"""Two halves of a study become the whole, with the bytes of each; what is damaged or different is named and not taken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from phoropter.cli import main
from phoropter.core.errors import StoreError
from phoropter.operations.merge import merge_results
from phoropter.operations.verify import verify_results
from phoropter.results.shift.answer_file import load_shift_answers, write_shift_answers
from phoropter.results.store import Store


def read_files(store: Store) -> dict[str, bytes]:
    runs = store.folder / "runs"
    return {str(p.relative_to(runs)): p.read_bytes() for p in runs.rglob("*") if p.is_file()}


@pytest.fixture
def halves(study: Path, store: Store) -> tuple[Store, Store]:
    """The study without its last two runs, and without its first two."""
    shutil.copytree(store.folder, study / "there")
    there, keys = Store(study / "there"), [run.key for run in store.runs()]
    for key in keys[:2]:
        shutil.rmtree(there.run(key).folder)
    for key in keys[2:]:
        shutil.rmtree(store.run(key).folder)
    return Store(store.folder), there


def test_two_halves_are_the_whole(computed: Path, halves: tuple[Store, Store]) -> None:
    here, there = halves
    missing = [row["key"] for row in here.planned_rows if row["key"] not in here]
    here.record_failure(missing[0], {"error": "diverged", "candidate": "c", "split": "s", "seed": 0})
    (here.work_folder(missing[1]) / "checkpoint.pt").write_bytes(b"old")
    outcome = merge_results(here.folder, there.folder)
    assert sorted(outcome.taken) == sorted(missing) and not (outcome.same or outcome.other or outcome.damaged)
    assert read_files(here) == read_files(Store(computed / "out")) and Store(here.folder).read_failures() == {}
    assert not any((here.folder / "work").glob("*/checkpoint.pt"))
    assert [i for i in verify_results(here.folder) if i.damage] == []
    again = merge_results(here.folder, there.folder)
    assert again.taken == [] and sorted(again.same) == sorted(missing)


def test_answers_on_corrupted_rows_follow_their_run(halves: tuple[Store, Store]) -> None:
    here, there = halves
    run = next(there.runs())
    predictions = run.load_predictions()
    assert predictions is not None and run.key not in here
    for names in (["blur 1"], ["blur 1", "blur 2"]):  # with the run, and once both folders have it
        write_shift_answers(there.folder, run.key, predictions.logits, {names[-1]: predictions.logits + 1})
        merge_results(here.folder, there.folder)
        assert list(load_shift_answers(here.folder, run.key, predictions.logits)) == names
    file = here.folder / "shift" / f"{run.key}.npz"
    file.write_bytes(file.read_bytes()[:-40])
    assert [item.path for item in verify_results(here.folder) if item.damage] == [file]


def test_damaged_runs_are_left_in_their_source(halves: tuple[Store, Store]) -> None:
    here, there = halves
    run = next(there.runs())
    (run.folder / "history.csv").write_text("epoch\n")
    outcome = merge_results(here.folder, there.folder)
    assert outcome.damaged == [run.key] and len(outcome.taken) == 1 and run.key not in Store(here.folder)


def test_a_run_with_other_predictions_is_named_and_the_targets_stays(study: Path, store: Store) -> None:
    shutil.copytree(store.folder, study / "there")
    there, one, other = Store(study / "there"), *list(store.runs())[:2]
    predictions = other.load_predictions()
    assert predictions is not None
    shutil.rmtree(there.run(one.key).folder)
    with there.create_run(one.key) as run:  # a sound run of this key with the predictions of another
        run.write_record(one.record)
        run.write_predictions(predictions)
    before = read_files(store)
    outcome = merge_results(store.folder, there.folder)
    assert outcome.other == [one.key] and len(outcome.same) == 3 and read_files(store) == before
    done = CliRunner().invoke(main, ["merge", str(store.folder), str(there.folder)])
    assert done.exit_code == 1 and f"runs/{one.key} differs" in done.output


def test_a_run_that_is_computed_now_and_one_out_of_plan_are_left(halves: tuple[Store, Store]) -> None:
    here, there = halves
    keys = [run.key for run in there.runs()]
    with there.create_run("0" * 32) as run:
        run.write_record({**there.run(keys[0]).record, "key": "0" * 32})
    with Store(here.folder).hold_lease(keys[0]) as mine:
        assert mine
        outcome = merge_results(here.folder, there.folder)
    assert outcome.busy == [keys[0]] and outcome.taken == [keys[1]] and outcome.unplanned == ["0" * 32]


def test_what_is_not_the_same_study_is_refused(halves: tuple[Store, Store], tmp_path: Path) -> None:
    here, there = halves
    with pytest.raises(StoreError, match="the same folder"):
        merge_results(here.folder, here.folder)
    with pytest.raises(StoreError, match="not a results folder"):
        merge_results(here.folder, tmp_path)
    content = there.study
    there.write_study({**content, "plan": [{**row, "key": f"{n:032x}"} for n, row in enumerate(content["plan"])]})
    with pytest.raises(StoreError, match="has no run in common"):
        merge_results(here.folder, there.folder)


def test_the_command_says_what_it_did(halves: tuple[Store, Store]) -> None:
    here, there = halves
    done = CliRunner().invoke(main, ["merge", str(here.folder), str(there.folder)])
    assert done.exit_code == 0 and "2 runs copied" in done.output
    status = CliRunner().invoke(main, ["status", str(here.folder), "--json"])
    assert all(c["done"] == 2 for c in json.loads(status.output)["candidates"])

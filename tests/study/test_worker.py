"""A study from end to end: its results folder, what is skipped, and recovery after a kill."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from phoropter.core.errors import DiskError, MemoryShortageError, StoreError
from phoropter.results.preparation import describe_preparation
from phoropter.results.run_folder import RunWriter
from phoropter.results.store import Store
from phoropter.study import worker
from phoropter.study.audit import check_leakage
from phoropter.study.compute import Computation
from phoropter.study.display.progress_bars import show_progress
from phoropter.study.executors import execute_study
from phoropter.study.plan import PlannedRun, plan_study
from phoropter.study.progress import ProgressEvent
from phoropter.study.records.study_record import find_relative_base, read_base
from phoropter.study.spec import StudySpec, read_study
from phoropter.study.worker import ComputeOptions, compute_missing_runs
from small_study import all_predictions
from warm_python import WarmPython

STUDY = """\
name: tiny
data: {digits: true, size: 32, max_samples: 200}
protocol: {split: stratified-k-fold, folds: 2, seeds: [0, 1]}
recipe: {preset: scratch, epochs: 2, lr: 0.003}
candidates:
  - {name: cnn, backbone: test_resnet, weights: random}
  - {name: vit probe, backbone: test_vit, weights: random, frozen: true, recipe: {preset: probe, epochs: 3}}
"""
HERE = ComputeOptions("cpu", threads=1)


def write_study(tmp_path: Path, text: str = STUDY) -> StudySpec:
    file = tmp_path / "study.yaml"
    file.write_text(text)
    return read_study(file)[0]


def quiet(event: ProgressEvent) -> None:
    pass


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("done")
    return execute_study(write_study(folder), folder / "out", quiet, options=HERE)


def test_every_run_leaves_what_the_report_needs(done: Store) -> None:
    runs = list(done.runs())
    assert len(runs) == 8 and not done.read_failures()
    for one in runs:
        held_out = one.load_predictions()
        assert held_out is not None and held_out.logits.dtype == np.float32 and held_out.logits.shape[1] == 10
        assert len(held_out.ids) == one.record["split"]["n_test"] == len(held_out.labels)
        assert (held_out.features is not None) == (
            one.record["seed"] == one.record["split"]["fold"] == 0
        )  # the first run's alone
        assert len(one.history) == one.record["recipe"]["phases"][0]["epochs"]
        assert one.record["cost"]["parameters"] > 1000 and one.record["versions"]["torch"]
        assert one.record["metrics"]["accuracy"] == np.mean(held_out.logits.argmax(1) == held_out.labels)
        assert set(one.load_pictures()) <= set(held_out.ids) and all(p[:2] == b"\xff\xd8" for p in one.load_pictures().values())
    assert not list((done.folder / "work").iterdir())


def test_every_row_is_tested_once_a_seed(done: Store) -> None:
    for name in ("cnn", "vit probe"):
        for seed in (0, 1):
            ids = np.concatenate(
                [r.load_predictions().ids for r in done.runs() if r.candidate_name == name and r.record["seed"] == seed]
            )  # type: ignore[union-attr]
            assert len(ids) == len(set(ids)) == len(np.unique(ids))


def test_the_first_fold_s_bundle_is_kept_and_predicts_the_same(done: Store) -> None:
    import torch

    from phoropter.data.images.cache import prepare_pixels
    from phoropter.models import classifier

    kept = [r for r in done.runs() if r.bundle_folder]
    assert [(r.record["seed"], r.record["split"]["fold"]) for r in kept] == [(0, kept[0].record["split"]["fold"])] * 2
    planned = plan_study(write_study(done.folder.parent))
    one = next(r for r in kept if r.candidate_name == "cnn")
    material = planned.runs[0].image_set
    dataset, pixels = prepare_pixels(
        material.dataset, 32, resize="center-crop", interpolation="bicubic", cache=Path(planned_cache())
    )
    held_out = one.load_predictions()
    assert held_out is not None
    rows = np.flatnonzero(np.isin(dataset.ids, held_out.ids))
    model = classifier.load_classifier(one.bundle_folder).eval()  # type: ignore[arg-type]
    with torch.inference_mode():
        logits = model(torch.from_numpy(pixels.batch(rows))).numpy()
    by_id = dict(zip(dataset.ids[rows], logits, strict=True))
    np.testing.assert_allclose(np.array([by_id[i] for i in held_out.ids]), held_out.logits, rtol=1e-4, atol=1e-4)


def planned_cache() -> str:
    import os

    return os.environ["PHOROPTER_CACHE"]


def test_running_again_computes_nothing(done: Store) -> None:
    before = all_predictions(done)
    events: list[ProgressEvent] = []
    execute_study(write_study(done.folder.parent), done.folder, events.append, options=HERE)
    assert "start" not in {e.kind for e in events} and all_predictions(done) == before


def test_another_folder_and_order_give_the_same_keys_and_bytes(done: Store, tmp_path: Path) -> None:
    lines = STUDY.splitlines(keepends=True)
    swapped = "".join([*lines[:5], lines[6], lines[5]])
    other = execute_study(write_study(tmp_path, swapped), tmp_path / "elsewhere", quiet, options=HERE)
    assert all_predictions(other) == all_predictions(done)


def test_adding_a_candidate_computes_only_that_one(done: Store, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(done.folder, tmp_path / "out")
    events: list[ProgressEvent] = []
    more = STUDY + "  - {name: cnn longer, backbone: test_resnet, weights: random, recipe: {epochs: 3}}\n"
    store = execute_study(write_study(tmp_path, more), tmp_path / "out", events.append, options=HERE)
    started = [e.title for e in events if e.kind == "start"]
    assert len(started) == 4 and all(t.startswith("cnn longer") for t in started)
    assert len(list(store.runs())) == 12


def test_a_run_that_fails_leaves_a_note_and_the_others_go_on(tmp_path: Path) -> None:
    bad = STUDY + "  - {name: diverges, backbone: test_resnet, weights: random, recipe: {lr: 1e+18, optimizer: {kind: sgd}}}\n"
    events: list[ProgressEvent] = []
    store = execute_study(write_study(tmp_path, bad), tmp_path / "out", events.append, options=HERE)
    notes = store.read_failures()
    assert len(notes) == 4 and all("training loss became" in n["error"] for n in notes.values())
    assert len(list(store.runs())) == 8 and [e.kind for e in events].count("failed") == 4


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_is_full_or_read_only_ends_the_study_at_once_and_it_goes_on_afterwards(
    number: int, done: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def write_until_full(folder: RunWriter, predictions: Any, part: str = "predictions") -> None:
        written.append(part)
        if len(written) > 2:
            raise OSError(number, os.strerror(number), str(folder.folder))
        predictions.save(folder.folder / f"{part}.npz")

    events: list[ProgressEvent] = []
    with monkeypatch.context() as patch:
        patch.setattr(RunWriter, "write_predictions", write_until_full)
        with pytest.raises(DiskError, match="finished runs are kept") as caught:
            execute_study(write_study(tmp_path), tmp_path / "out", events.append, options=HERE)
    assert caught.value.exit_code == 3 and ("free some space" in str(caught.value)) == (number == errno.ENOSPC)
    store = Store(tmp_path / "out")
    assert len(list(store.runs())) == 2 and len(written) == 3 and store.read_failures() == {}
    assert "failed" not in {e.kind for e in events} and not list((tmp_path / "out").rglob("*.aside-*"))
    assert all_predictions(execute_study(write_study(tmp_path), tmp_path / "out", quiet, options=HERE)) == all_predictions(done)


def test_memory_that_is_short_in_run_after_run_ends_the_study(
    done: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out_of_memory(*arguments: Any, **keywords: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(RunWriter, "write_predictions", run_out_of_memory)
        with pytest.raises(MemoryShortageError, match=r"'cnn' and 'vit probe'.*found too little memory") as caught:
            execute_study(write_study(tmp_path), tmp_path / "out", quiet, options=HERE)
    assert caught.value.exit_code == 3
    notes = Store(tmp_path / "out").read_failures()
    assert [n["error"] for n in notes.values()] == ["MemoryError"] * 5  # four of one candidate, and the first of the other
    assert all_predictions(execute_study(write_study(tmp_path), tmp_path / "out", quiet, options=HERE)) == all_predictions(done)


def test_any_other_exception_around_a_run_is_noted_and_the_study_goes_on(
    done: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OddError(Exception):
        pass

    kinds = iter([OddError("odd"), KeyError("x"), AssertionError("wrong"), OSError(errno.EACCES, "not yours")])

    def raise_next(*arguments: Any, **keywords: Any) -> None:
        raise next(kinds)

    with monkeypatch.context() as patch:
        patch.setattr(Computation, "train_run", raise_next)
        store = execute_study(write_study(tmp_path), tmp_path / "out", quiet, options=HERE)
    notes = store.read_failures().values()
    assert {n["kind"] for n in notes} == {"OddError", "KeyError", "AssertionError", "PermissionError"}
    assert {r.candidate_name for r in store.runs()} == {"vit probe"} and all(n["trace"] for n in notes)
    assert all_predictions(execute_study(write_study(tmp_path), tmp_path / "out", quiet, options=HERE)) == all_predictions(done)


def test_a_run_that_comes_back_unfinished_twice_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[str] = []

    def vanish(self: Computation, run: PlannedRun) -> dict[str, Any]:
        computed.append(run.key)
        return {"accuracy": 1.0}

    monkeypatch.setattr(Computation, "train_run", vanish)
    events: list[ProgressEvent] = []
    store = execute_study(write_study(tmp_path), tmp_path / "out", events.append, options=HERE)
    notes = store.read_failures()
    assert len(computed) == 8 and len(notes) == 4 and all(computed.count(key) == 2 for key in notes)
    assert all(f"it was computed 2 times and {store.folder}" in n["error"] for n in notes.values())
    assert [e.title for e in events if e.kind == "done" and e.title.startswith("cnn")] == []


def test_what_failed_in_another_process_is_not_tried_here(tmp_path: Path) -> None:
    study = write_study(tmp_path)
    failed = {run.key for run in plan_study(study).runs if run.candidate.name == "cnn"}
    store = compute_missing_runs(study, tmp_path / "out", quiet, HERE, failed_elsewhere=failed)
    assert {r.candidate_name for r in store.runs()} == {"vit probe"} and len(list(store.runs())) == 4


def test_preparing_is_noted_while_it_lasts(tmp_path: Path) -> None:
    seen: list[str] = []

    def look(event: ProgressEvent) -> None:
        if event.kind == "decoding":
            seen.append(describe_preparation(tmp_path / "out"))
            assert not (tmp_path / "out" / "study.json").exists()

    execute_study(write_study(tmp_path), tmp_path / "out", look, options=HERE, cache=tmp_path / "cache")
    assert seen and seen[0].startswith("decoding images: ") and seen[0].endswith(" of 200")
    assert describe_preparation(tmp_path / "out") == ""


def test_a_run_that_is_computed_is_no_preparation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, audited = tmp_path / "out", list[str]()

    def look_and_check(*arguments: Any) -> Any:
        audited.append(describe_preparation(out))
        return check_leakage(*arguments)

    monkeypatch.setattr(worker, "check_leakage", look_and_check)
    seen: dict[str, str] = {}
    execute_study(
        write_study(tmp_path), out, lambda e: seen.update({e.kind: describe_preparation(out)}), options=HERE, cache=tmp_path / "c"
    )
    assert audited[0] == "checking for leakage", "the last count of decoded images was shown until the study ended"
    assert {seen[kind] for kind in ("start", "epoch", "done")} == {""}


def test_output_that_nobody_reads_does_not_stop_a_study(done: Store, tmp_path: Path) -> None:
    """As `phoropter run STUDY | head -1` and a log on a full disk: what follows is computed all the same."""

    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    with show_progress("tiny", Console(file=Closed(), force_terminal=False)) as on_progress:
        store = execute_study(write_study(tmp_path), tmp_path / "out", on_progress, options=HERE)
    assert all_predictions(store) == all_predictions(done)


def execution(out: Path, study: Path) -> str:
    return (
        "from pathlib import Path\n"
        "from phoropter.study.executors import execute_study\n"
        "from phoropter.study.spec import read_study\n"
        "from phoropter.study.worker import ComputeOptions\n"
        f"study, out = read_study(Path({str(study)!r}))[0], Path({str(out)!r})\n"
        "execute_study(study, out, lambda e: print(e.kind, flush=True), options=ComputeOptions('cpu', 1, 0.2))"
    )


@pytest.mark.slow
def test_a_study_killed_at_ten_random_moments_ends_with_the_same_bytes(tmp_path: Path, warm: WarmPython) -> None:
    """The demo's candidates, on fewer rows and epochs."""
    text = (Path(__file__).parents[2] / "src/phoropter/studies/digits.yaml").read_text()
    for old, new in (
        ("size: 32", "size: 32, max_samples: 300"),
        ("folds: 5", "folds: 3, seeds: [0, 1]"),
        ("epochs: 20", "epochs: 6"),
    ):
        assert old in text
        text = text.replace(old, new)
    study = write_study(tmp_path, text)
    whole = execute_study(study, tmp_path / "whole", quiet, options=ComputeOptions("cpu", 1))
    draw = random.Random(0)
    kills = 0
    for _ in range(10):
        process = warm.run_code(execution(tmp_path / "killed", tmp_path / "study.yaml"), tmp_path)
        while not process.read_log() and process.poll() is None:  # until work has begun
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 1.0))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills >= 5  # the study may be done before the tenth
    finished = execute_study(study, tmp_path / "killed", quiet, options=ComputeOptions("cpu", 1))
    assert all_predictions(finished) == all_predictions(whole) and len(all_predictions(whole)) == 24
    assert not list((tmp_path / "killed" / "runs").glob(".*"))


def test_an_interrupt_keeps_a_checkpoint_and_explains_how_to_resume(tmp_path: Path, warm: WarmPython) -> None:
    long = STUDY.replace("epochs: 2", "epochs: 400")
    write_study(tmp_path, long)
    process = warm.run_command_line(["run", "study.yaml", "-o", "out", "--device", "cpu"], tmp_path)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "out").glob("work/*/now.json")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    words, _ = process.communicate(timeout=120)
    assert process.returncode == 130 and "the same command goes on from here" in words
    assert list((tmp_path / "out").glob("work/*/checkpoint.pt"))


def test_study_json_holds_the_study_and_the_plan(done: Store) -> None:
    described: dict[str, Any] = json.loads((done.folder / "study.json").read_text())
    assert described["dataset"]["rows"] == 200 and len(described["dataset"]["classes"]) == 10
    assert len(described["plan"]) == 8 and described["text"] == STUDY and described["scale"] is None


def test_the_folder_that_paths_start_from_is_read_as_it_was_written(done: Store, tmp_path: Path) -> None:
    assert read_base(done.study, done.folder) == done.folder.parent.resolve()
    elsewhere = find_relative_base(tmp_path / "data" / "study", tmp_path / "runs" / "one")
    assert elsewhere == {"base": "../../data/study"}
    assert read_base(elsewhere, tmp_path / "runs" / "one") == (tmp_path / "data" / "study").resolve()
    assert read_base({}, tmp_path) is None


def test_a_folder_that_holds_another_study_is_refused_unless_it_is_added(done: Store, tmp_path: Path) -> None:
    other = write_study(
        tmp_path, STUDY.replace("tiny", "other").replace("max_samples: 200", "max_samples: 60").split("  - {name: vit")[0]
    )
    before, runs = (done.folder / "study.json").read_bytes(), set(all_predictions(done))
    folder = Path(shutil.copytree(done.folder, tmp_path / "copy"))
    words = r"holds the study 'tiny', and this one is 'other', .* \(different: data, candidates\): choose another folder .* --add"
    with pytest.raises(StoreError, match=words):
        execute_study(other, folder, quiet, options=HERE)
    assert (folder / "study.json").read_bytes() == before and set(all_predictions(Store(folder))) == runs
    added = execute_study(other, folder, quiet, options=replace(HERE, add=True))
    assert added.study["name"] == "other" and {path.name for path in (folder / "runs").iterdir()} > runs


def test_threads_are_as_many_as_cores_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a container with a quota, and of a job of SLURM that is bound to no cores, torch would take all cores of the machine."""
    before = torch.get_num_threads()
    try:
        for given, threads, expected in ((1, None, 1), (64, None, 2), (1, 3, 3)):
            torch.set_num_threads(2)
            monkeypatch.setattr(worker, "count_default_threads", lambda given=given: given)
            ComputeOptions("cpu", threads=threads).set_up_device()
            assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)

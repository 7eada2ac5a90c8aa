"""Damaged results folders, caches and bundles: a damaged run is made again to the same bytes, or refused by name; never used."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from phoropter.cli import main
from phoropter.core.errors import PhoropterError, StoreError, WeightsError
from phoropter.models.classifier import load_classifier
from phoropter.report.page import write_report
from phoropter.results.store import Run, Store
from phoropter.study.executors import execute_study
from phoropter.study.progress import ProgressEvent
from phoropter.study.spec import read_study
from phoropter.study.worker import ComputeOptions
from small_study import FOUR_KINDS, all_predictions

HERE = ComputeOptions("cpu", threads=1)


def compute(folder: Path, events: Callable[[ProgressEvent], Any] = lambda event: None) -> Store:
    (folder / "study.yaml").write_text(FOUR_KINDS)
    return execute_study(read_study(folder / "study.yaml")[0], folder / "out", events, options=HERE, cache=folder / "cache")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    assert len(all_predictions(compute(folder))) == 4
    return folder


@pytest.fixture
def study(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound, tmp_path / "study")
    return tmp_path / "study"


def flip(file: Path, share: float = 0.6) -> None:
    data = bytearray(file.read_bytes())
    data[int(share * (len(data) - 1))] ^= 0x08
    file.write_bytes(data)


def find_run(folder: Path, candidate: str) -> Run:
    return next(run for run in Store(folder / "out").runs() if run.candidate_name == candidate)


def forge_predictions(run: Run) -> None:
    """A valid file in which every answer is right."""
    held_out = run.load_predictions()
    assert held_out is not None
    right = np.eye(held_out.logits.shape[1], dtype=np.float32)[held_out.labels] * 9
    np.savez(run.folder / "predictions.npz", id=held_out.ids, label=held_out.labels, logits=right)


def forge_consistently(run: Run) -> None:
    """As above in a folder of format 1, without checksums, as earlier versions wrote it."""
    forge_predictions(run)
    (run.folder / "checksums.json").unlink()
    record = json.loads((run.folder / "record.json").read_text())
    (run.folder / "record.json").write_text(json.dumps({k: v for k, v in record.items() if k != "checksum"} | {"format": 1}))


def empty_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


# row of the case list → what is done to the finished run of the average, which is quickly made again
DAMAGED_RUNS: dict[str, Callable[[Run], Any]] = {
    "S6 forged predictions": forge_predictions,
    "S6 forged predictions of an earlier version": forge_consistently,
    "D6 torn record": lambda run: (run.folder / "record.json").write_text("{"),
    "D6 no predictions": lambda run: (run.folder / "predictions.npz").unlink(),
    "D10 no record": lambda run: (run.folder / "record.json").unlink(),
    "T8 a byte in the history": lambda run: (run.folder / "history.csv").write_bytes(b"epoch\n\xff\n"),
    "T8 a row too long": lambda run: (run.folder / "history.csv").write_text("epoch\n1,2\n"),
    "flipped predictions": lambda run: flip(run.folder / "predictions.npz"),
    "flipped thumbnails": lambda run: flip(run.folder / "pictures.npz"),
    "flipped record": lambda run: flip(run.folder / "record.json"),
    "flipped checksums": lambda run: flip(run.folder / "checksums.json"),
    "no checksums": lambda run: (run.folder / "checksums.json").unlink(),
    "S7 another format": lambda run: (run.folder / "record.json").write_text('{"format": 99}'),
    "an empty folder": lambda run: empty_folder(run.folder),
}


@pytest.mark.parametrize("damage", DAMAGED_RUNS.values(), ids=DAMAGED_RUNS)
def test_a_damaged_run_is_named_left_out_and_made_once(
    sound: Path, study: Path, damage: Callable[[Run], Any], caplog: pytest.LogCaptureFixture
) -> None:
    run = find_run(study, "average")
    damage(run)
    store = Store(study / "out")
    assert run.key not in store and store.read_run_states()[run.key] == "damaged" and len(all_predictions(store)) == 3
    shown = CliRunner().invoke(main, ["status", str(study / "out")])
    assert shown.exit_code == 0 and f"runs/{run.key}" in shown.output and "3 of 4 runs done" in shown.output
    (note,) = store.read_failures().values()
    assert note["candidate"] == "average" and f"runs/{run.key}" in note["error"]
    begun: list[str] = []
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="phoropter"):
        compute(study, lambda event: begun.append(event.title) if event.kind == "start" else None)
    assert len([title for title in begun if title.startswith("average")]) == 1
    assert all_predictions(Store(study / "out")) == all_predictions(Store(sound / "out"))
    assert [line for line in caplog.messages if "made again" in line and run.key in line]
    assert (study / "out" / "damaged" / run.key).is_dir()


def test_the_report_leaves_a_damaged_run_out_and_says_so(study: Path) -> None:
    run = find_run(study, "average")
    forge_predictions(run)
    page = write_report(study / "out")
    assert f"runs/{run.key}" in page.read_text() and "3 of 4" in page.read_text()
    assert "average" not in (page.parent / "tables" / "leaderboard.csv").read_text()


def flip_all(pattern: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        files = sorted(folder.glob(pattern))
        assert files, pattern
        for file in files:
            flip(file)

    return spoil


def each_in_turn(pattern: str, content: bytes) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        for file in sorted(folder.glob(pattern)):
            file.write_bytes(content)

    return spoil


# row → what is done to the cache; afterwards every run but none of its inputs is gone, so that everything is computed from it
DAMAGED_CACHES: dict[str, Callable[[Path], Any]] = {
    "S1 features": flip_all("cache/features/*/features.npy"),
    "D5 truncated features": each_in_turn("cache/features/*/features.npy", b"\x93NUMPY"),
    "D5 no object may be in the header": each_in_turn(
        "cache/features/*/features.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': '|O'} "
    ),
    "D5 logits of a teacher": flip_all("cache/teacher-logits/*/*/*.npy"),
    "blocks of features": flip_all("cache/features/*/blocks.txt"),
    "pixels": flip_all("cache/pixels/*/pixels.u8"),
    "index of the pixels": flip_all("cache/pixels/*/index.json"),
    "T10 about": each_in_turn("cache/features/*/about.json", b"[]"),
    "T10 speed": lambda folder: (folder / "cache/speed.json").write_text('{"cpu": "x"}'),
    "check of the teacher": each_in_turn("cache/teacher-logits/*.json", b'{"accuracy": 1}'),
    "pairs of duplicates": flip_all("cache/duplicates/*.npz"),
}


@pytest.mark.parametrize("damage", DAMAGED_CACHES.values(), ids=DAMAGED_CACHES)
def test_a_damaged_cache_costs_time_and_no_bytes(sound: Path, study: Path, damage: Callable[[Path], Any]) -> None:
    for name in ("probed", "taught"):
        shutil.rmtree(find_run(study, name).folder)
    damage(study)
    store = compute(study)
    assert not store.read_failures()
    assert all_predictions(store) == all_predictions(Store(sound / "out"))
    assert not list((study / "cache").rglob("*.damaged"))


def test_a_flipped_bundle_is_refused_and_its_run_stays(study: Path) -> None:  # S3
    run = find_run(study, "cnn")
    flip(run.folder / "bundle" / "model.safetensors", 0.9)
    with pytest.raises(WeightsError, match="is damaged"):
        load_classifier(run.folder / "bundle")
    assert run.key in Store(study / "out")


def test_a_flipped_teacher_is_trained_again_and_poisons_no_cache(sound: Path, study: Path) -> None:  # S4
    teachers = {run.record["distillation"]["key"] for run in Store(study / "out").runs() if "distillation" in run.record}
    for key in teachers:
        flip(study / "out" / "runs" / key / "bundle" / "model.safetensors", 0.9)
    shutil.rmtree(study / "cache" / "teacher-logits")
    for run in list(Store(study / "out").runs()):
        if run.candidate_name == "taught":
            shutil.rmtree(run.folder)
    assert all_predictions(compute(study)) == all_predictions(Store(sound / "out"))
    shutil.rmtree(study / "out")  # a new store on the cache that was filled
    assert all_predictions(compute(study)) == all_predictions(Store(sound / "out"))


# row → what is written over study.json
DAMAGED_STUDIES = {
    "T9 empty": b"{}",
    "a list": b"[]",
    "torn": b'{"format": 1, "plan": [',
    "another shape": b'{"format": 1, "plan": [{"key": 3}], "name": "x", "study": {}, "dataset": {}, "versions": {}}',
    "no text": b"\xff\xfe",
    "deep": b"[" * 5000,
}


@pytest.mark.parametrize("content", DAMAGED_STUDIES.values(), ids=DAMAGED_STUDIES)
def test_a_damaged_study_file_is_one_sentence_and_written_anew(sound: Path, study: Path, content: bytes) -> None:
    (study / "out" / "study.json").write_bytes(content)
    for command in ("status", "report"):
        shown = CliRunner().invoke(main, [command, str(study / "out")])
        assert shown.exit_code == 2 and "run the same study" in shown.output, shown.output
    store = compute(study)
    assert all_predictions(store) == all_predictions(Store(sound / "out")) and (study / "out" / "study.json.damaged").exists()


def test_a_flipped_study_file_is_refused(study: Path) -> None:
    file = study / "out" / "study.json"
    content = file.read_bytes()
    for share in np.linspace(0, 1, 40):
        flip(file, float(share))
        with pytest.raises(StoreError):
            _ = Store(study / "out").study
        file.write_bytes(content)


def test_another_format_is_refused_and_not_written_over(study: Path) -> None:  # S7
    file = study / "out" / "study.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99, "checksum": None}))
    for command in ("status", "report"):
        shown = CliRunner().invoke(main, [command, str(study / "out")])
        assert shown.exit_code == 2 and "has format 99" in shown.output
    with pytest.raises(StoreError, match="has format 99"):
        compute(study)


@pytest.mark.parametrize("content", ["{}", "[]", "{", '{"error": 3, "format": 1}'])
def test_a_damaged_note_of_a_failure_is_told_by_the_plan(study: Path, content: str) -> None:  # T9c
    key = find_run(study, "cnn").key
    shutil.rmtree(study / "out" / "runs" / key)
    (study / "out" / "failed").mkdir(exist_ok=True)
    (study / "out" / "failed" / f"{key}.json").write_text(content)
    note = Store(study / "out").read_failures()[key]
    assert note["candidate"] == "cnn" and "not known" in note["error"]
    write_report(study / "out")


def damage_targets(folder: Path) -> Iterator[Path]:
    yield from sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock" and "report" not in p.parts)


def test_flips_anywhere_give_the_same_bytes_or_a_named_refusal(sound: Path, tmp_path: Path) -> None:
    """Flips in files of results and cache drawn by seed; the study is run again after each."""
    expected = all_predictions(Store(sound / "out"))
    random = np.random.default_rng(12)
    for number in range(3):
        folder = tmp_path / str(number)
        shutil.copytree(sound, folder)
        shutil.rmtree(find_run(folder, ("average", "taught", "probed")[number % 3]).folder)
        targets = list(damage_targets(folder))
        for file in random.choice(np.array(targets, dtype=object), 5):
            if file.stat().st_size:
                flip(file, random.random())
        try:
            came = all_predictions(compute(folder))
        except PhoropterError:
            continue
        assert {key: expected[key] for key in came} == came
        shutil.rmtree(folder)

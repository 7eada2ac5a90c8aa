"""verify reads what has a checksum and names every kind of damage, by a flipped byte and by a missing file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from phoropter.cli import main
from phoropter.core.errors import StoreError
from phoropter.core.storage.sealed_json import write_cache_json
from phoropter.operations.verify import CheckedItem, verify_results
from phoropter.report.sections.predictions.leader_maps import LeaderMaps
from phoropter.results.run_folder import write_image_archive
from phoropter.results.store import Store
from phoropter.training.loop.checkpoint import Checkpoints, TrainingState


def flip_byte(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def add_maps(study: Path) -> Path:
    maps = study / "out" / "maps"
    maps.mkdir()
    write_cache_json(maps / "maps.json", LeaderMaps(candidate="cnn"))
    write_image_archive(maps / "pictures.npz", {"0-shown": b"jpeg"})
    return maps / "pictures.npz"


def find_damaged(folder: Path) -> list[CheckedItem]:
    return [item for item in verify_results(folder) if item.damage is not None]


def first_run(study: Path) -> Path:
    return next(run.folder for run in Store(study / "out").runs() if run.candidate_name == "cnn")


def add_checkpoint(study: Path) -> Path:
    work = study / "out" / "work" / ("0" * 32)
    work.mkdir(parents=True)
    Checkpoints(work, 0).save(TrainingState(epoch=1))
    return work / "checkpoint.pt"


def add_failure(study: Path) -> Path:
    Store(study / "out").record_failure("0" * 32, {"error": "diverged", "candidate": "c", "split": "s", "seed": 0})
    return study / "out" / "failed" / f"{'0' * 32}.json"


DAMAGED: dict[str, Callable[[Path], Path]] = {
    "study": lambda study: study / "out" / "study.json",
    "run": lambda study: first_run(study) / "predictions.npz",
    "bundle": lambda study: next((first_run(study) / "bundle").glob("*.safetensors")),
    "checkpoint": add_checkpoint,
    "failure": add_failure,
    "shown": add_maps,
    "pixels": lambda study: next((study / ".cache" / "pixels").glob("*/pixels.u8")),
    "features": lambda study: next((study / ".cache" / "features").glob("*/*.npy")),
    "duplicates": lambda study: next((study / ".cache" / "duplicates").glob("*.npz")),
    "speed": lambda study: study / ".cache" / "speed.json",
}


def test_a_sound_folder_has_no_damage_and_everything_is_looked_at(study: Path) -> None:
    add_checkpoint(study)
    add_failure(study)
    add_maps(study)
    items = list(verify_results(study / "out"))
    assert [i for i in items if i.damage] == [] and {i.kind for i in items} == DAMAGED.keys()
    assert sum(i.kind == "run" for i in items) == sum(i.kind == "bundle" for i in items) == 4


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_flipped_bit_is_found_and_named(study: Path, kind: str) -> None:
    file = DAMAGED[kind](study)
    flip_byte(file)
    (item,) = find_damaged(study / "out")
    assert item.kind == kind and file.is_relative_to(item.path) and item.damage


@pytest.mark.parametrize("kind", ["run", "bundle", "pixels", "features"])
def test_a_missing_file_is_found(study: Path, kind: str) -> None:
    DAMAGED[kind](study).unlink()
    (item,) = find_damaged(study / "out")
    assert item.kind == kind


@pytest.mark.parametrize(("name", "kind"), [("study.json", "study"), ("bundle/bundle.json", "bundle")])
def test_a_folder_without_the_file_by_which_it_is_known_is_found(study: Path, name: str, kind: str) -> None:
    file = (study / "out" if kind == "study" else first_run(study)) / name
    file.unlink()
    (item,) = find_damaged(study / "out")
    assert item.kind == kind and file.is_relative_to(item.path)
    assert ("it is missing beside its runs" if kind == "study" else "it has no bundle.json") in str(item.damage)


def test_files_that_others_leave_are_not_damaged(study: Path) -> None:
    maps = add_maps(study).parent
    for name in (".DS_Store", "._pictures.npz", "notes.txt"):
        (maps / name).write_text("x")
    (study / "out" / "page" / "bundle").mkdir(parents=True)
    (study / "out" / "page" / "bundle" / "page.js").write_text("x")
    assert find_damaged(study / "out") == []


def test_a_folder_of_results_a_bundle_and_a_cache_can_be_named(study: Path, tmp_path: Path) -> None:
    kinds = [{i.kind for i in verify_results(place)} for place in (study, first_run(study) / "bundle", study / ".cache")]
    assert {"study", "run", "pixels"} <= kinds[0] and kinds[1] == {"bundle"} and "pixels" in kinds[2]
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="holds no results folder, bundle or cache"):
        list(verify_results(tmp_path / "empty"))


def test_the_command_ends_with_1_where_something_is_damaged(study: Path) -> None:
    sound = CliRunner().invoke(main, ["verify", str(study / "out")])
    assert sound.exit_code == 0 and "0 of" in sound.output and "4 run" in sound.output
    flip_byte(DAMAGED["run"](study))
    damaged = CliRunner().invoke(main, ["verify", str(study / "out")])
    assert damaged.exit_code == 1 and "damaged: run" in damaged.output and "predictions.npz is damaged" in damaged.output


def test_a_run_copied_over_another_is_found(study: Path) -> None:
    one, other, *_ = sorted(run.folder for run in Store(study / "out").runs())
    shutil.rmtree(other)
    shutil.copytree(one, other)
    (item,) = find_damaged(study / "out")
    assert item.path == other and item.damage == f"record.json is that of another run, {one.name}"
    assert [run.folder for run in Store(study / "out").runs() if run.folder == other] == []

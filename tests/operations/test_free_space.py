"""gc lists first, frees only what nothing needs, and the study afterwards is what it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from phoropter.cli import main
from phoropter.core.errors import StoreError
from phoropter.operations.free_space import delete_unneeded, find_unneeded
from phoropter.operations.verify import verify_results
from phoropter.results.running_commands import announce_command
from phoropter.results.store import Store

UNFINISHED, GONE = "0" * 32, "1" * 32


def add_clutter(store: Store) -> dict[str, Path]:
    """What may be freed, by what it is; and a checkpoint that is needed, because its run is missing."""
    keys = [run.key for run in store.runs()]
    shutil.rmtree(store.run(keys[1]).folder)
    needed = store.work_folder(keys[1]) / "checkpoint.pt"
    clutter = {
        "finished": store.work_folder(keys[0]) / "checkpoint.pt",
        "gone": store.work_folder(GONE) / "checkpoint.pt",
        "damaged run": store.folder / "damaged" / keys[0] / "record.json",
        "half": store.folder / "runs" / f".{keys[1]}.aside-1-ab" / "record.json",
        "study": store.folder / "study.json.damaged",
        "bundle": store.run(keys[0]).folder / "bundle.damaged" / "bundle.json",
    }
    for file in (needed, *clutter.values()):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(1000))
    return clutter


def test_what_nothing_needs_is_found_and_the_rest_stays(store: Store) -> None:
    before = {p for p in store.folder.rglob("*") if p.is_file()}
    clutter = add_clutter(store)
    items = find_unneeded(store.folder)
    assert len(items) == len(clutter) and {i.size for i in items} == {1000}
    assert all(file.exists() for file in clutter.values())  # nothing is changed yet
    assert delete_unneeded(store.folder, items) == 6000
    left = {p for p in store.folder.rglob("*") if p.is_file()}
    missing = [row["key"] for row in store.planned_rows if row["key"] not in Store(store.folder)]
    assert left - before == {store.folder / "work" / missing[0] / "checkpoint.pt"}
    assert all(missing[0] in p.parts for p in before - left) and find_unneeded(store.folder) == []


def test_the_cache_is_freed_once_every_study_beside_it_is_finished(study: Path, store: Store) -> None:
    shutil.copytree(store.folder, study / "other")
    other = Store(study / "other")
    shutil.rmtree(next(other.runs()).folder)
    with pytest.raises(StoreError, match="other, of which 1 runs are not finished"):
        find_unneeded(store.folder, with_cache=True)
    shutil.rmtree(other.folder)
    items = find_unneeded(store.folder, with_cache=True)
    assert {i.path.name for i in items} == {"pixels", "features", "duplicates"} and (study / ".cache" / "pixels").exists()
    delete_unneeded(store.folder, items)
    assert not (study / ".cache" / "pixels").exists()
    assert [i for i in verify_results(store.folder) if i.damage] == []


def test_a_cache_that_the_environment_names_stays(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOROPTER_CACHE", str(tmp_path / "elsewhere"))
    with pytest.raises(StoreError, match="PHOROPTER_CACHE names"):
        find_unneeded(store.folder, with_cache=True)


def test_nothing_is_freed_while_a_command_computes(store: Store) -> None:
    add_clutter(store)
    items = find_unneeded(store.folder)
    with announce_command(store.folder, lambda: None):
        for call in (lambda: find_unneeded(store.folder), lambda: delete_unneeded(store.folder, items)):
            with pytest.raises(StoreError, match=r"computes in .* now"):
                call()
    assert all(item.path.exists() for item in items)


def test_the_command_deletes_only_when_asked(store: Store) -> None:
    clutter = add_clutter(store)
    listed = CliRunner().invoke(main, ["gc", str(store.folder)])
    assert listed.exit_code == 0 and "5.9 KiB can be freed" in listed.output and all(f.exists() for f in clutter.values())
    deleted = CliRunner().invoke(main, ["gc", str(store.folder), "--delete"])
    assert deleted.exit_code == 0 and "5.9 KiB freed" in deleted.output and not any(f.exists() for f in clutter.values())
    assert "nothing to free" in CliRunner().invoke(main, ["gc", str(store.folder)]).output


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a results folder"):
        find_unneeded(tmp_path)

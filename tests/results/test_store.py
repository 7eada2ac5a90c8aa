"""The run folder: whole or absent, leased to one, readable without trust."""

from __future__ import annotations

import pickle
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phoropter.core.errors import StoreError
from phoropter.core.files import file_lock
from phoropter.results.store import Predictions, Store, write_progress_note

KEY, OTHER = "0" * 32, "1" * 32


def predictions(**more: Any) -> Predictions:
    logits = np.array([[0.5, 2.0], [1e4, -1e4]], dtype=np.float32)
    return Predictions(np.array(["a", "b"]), np.array([1, 0]), logits, **more)


def store(tmp_path: Path, *keys: str) -> Store:
    made = Store(tmp_path)
    made.write_study({"name": "x", "plan": [{"key": k, "candidate": "c"} for k in keys]})
    return made


def test_predictions_survive_a_round_trip_and_their_bytes_are_their_arrays(tmp_path: Path) -> None:
    whole = predictions(
        groups=np.array(["g", "g"]), sites=np.array(["s", "t"]), spans=np.zeros((2, 2)), features=np.ones((2, 3), np.float16)
    )
    whole.save(tmp_path / "a.npz")
    back = Predictions.load(tmp_path / "a.npz")
    for name in ("ids", "labels", "logits", "groups", "sites", "spans", "features"):
        np.testing.assert_array_equal(getattr(back, name), getattr(whole, name))
    whole.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_probabilities_do_not_overflow() -> None:
    np.testing.assert_allclose(predictions().probabilities, [[1 / (1 + np.exp(1.5)), 1 / (1 + np.exp(-1.5))], [1, 0]])


@pytest.mark.parametrize("cut", [0, 10, 300])
def test_a_truncated_file_is_one_sentence(tmp_path: Path, cut: int) -> None:
    predictions().save(tmp_path / "a.npz")
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:cut])
    with pytest.raises(StoreError, match="not a predictions file"):
        Predictions.load(tmp_path / "a.npz")


def test_a_pickle_in_a_predictions_file_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    np.savez(tmp_path / "a.npz", id=np.array([Evil()], dtype=object), label=[0], logits=[[0.0]])
    with pytest.raises(StoreError):
        Predictions.load(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(StoreError):
        Predictions.load(tmp_path / "b.npz")
    assert not (tmp_path / "ran").exists()


def test_a_run_exists_when_its_folder_does(tmp_path: Path) -> None:
    made = store(tmp_path, KEY)
    with pytest.raises(RuntimeError), made.create_run(KEY) as folder:
        folder.write_record({"candidate": {"name": "c"}})
        folder.write_predictions(predictions())
        raise RuntimeError
    assert KEY not in made and not list((tmp_path / "runs").iterdir())
    with made.create_run(KEY) as folder:
        folder.write_record({"candidate": {"name": "c"}})
        folder.write_predictions(predictions())
        folder.write_history([{"epoch": 1, "phase": "all", "train_loss": 0.5}, {"epoch": 2, "validation_loss": 0.25}])
        folder.write_pictures({"a": b"\xff\xd8one", "b": b"\xff\xd8second"})
        assert KEY not in made
    (run,) = made.runs()
    assert KEY in made and run.candidate_name == "c" and run.load_predictions("external") is None and run.bundle_folder is None
    assert run.history[0]["train_loss"] == 0.5 and run.history[1]["validation_loss"] == 0.25 and run.history[0]["phase"] == "all"
    assert run.load_pictures() == {"a": b"\xff\xd8one", "b": b"\xff\xd8second"}


def test_what_a_killed_writer_left_is_swept_by_the_next(tmp_path: Path) -> None:
    made = store(tmp_path, KEY)
    (tmp_path / "runs" / f".{KEY}.aside-1-ff").mkdir(parents=True)
    with made.create_run(KEY) as folder:
        folder.write_record({"candidate": {"name": "c"}})
    assert [p.name for p in (tmp_path / "runs").iterdir()] == [KEY]


def test_a_lease_is_for_one_and_ends_with_its_block(tmp_path: Path) -> None:
    made, other = store(tmp_path, KEY), Store(tmp_path)
    assert not made.is_leased(KEY)
    with made.hold_lease(KEY) as mine:
        assert mine and other.is_leased(KEY)
        with other.hold_lease(KEY) as theirs:
            assert not theirs
        with other.hold_lease(OTHER) as theirs:
            assert theirs
    assert not other.is_leased(KEY)
    with made.create_run(KEY) as folder:
        folder.write_record({})
    with other.hold_lease(KEY) as again:
        assert not again  # it is done


def test_one_who_only_looks_takes_no_run_from_a_worker(tmp_path: Path) -> None:
    made = store(tmp_path, KEY)
    with made.hold_lease(KEY):
        pass  # its lock file is there from now on
    began, caught = threading.Event(), file_lock(tmp_path / "locks" / f"{KEY}.lock")

    def look() -> None:
        """`leased`, stopped between taking the lock and letting it go."""
        with made._hold_looking_lock():
            caught.acquire(timeout=0)
            began.set()
            time.sleep(0.2)
            caught.release()

    looker = threading.Thread(target=look)
    looker.start()
    assert began.wait(60)
    with Store(tmp_path).hold_lease(KEY) as mine:
        assert mine and made.is_leased(KEY)
    looker.join()


def test_one_who_was_stopped_while_looking_stops_nobody(tmp_path: Path) -> None:
    made = store(tmp_path, KEY)
    with made.hold_lease(KEY), file_lock(tmp_path / "locks" / "looking.lock"):
        assert made.is_leased(KEY)
        with Store(tmp_path).hold_lease(KEY) as theirs:
            assert not theirs


def test_a_failure_is_a_note_until_it_succeeds(tmp_path: Path) -> None:
    made = store(tmp_path, KEY, OTHER)
    made.record_failure(KEY, {"error": "diverged"})
    made.record_failure("2" * 32, {"error": "of an earlier plan"})
    assert made.read_failures() == {KEY: {"error": "diverged"}}
    with made.create_run(KEY) as folder:
        folder.write_record({})
    assert made.read_failures() == {}


def test_runs_of_an_earlier_plan_are_left_out(tmp_path: Path) -> None:
    made = store(tmp_path, KEY)
    for key in (KEY, OTHER):
        with made.create_run(key) as folder:
            folder.write_record({})
    assert [r.key for r in made.runs()] == [KEY]


def test_folders_of_runs_are_listed_at_one_look(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.list_run_folders() == set()
    for name in ("a" * 32, "b" * 32, ".hidden"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    (tmp_path / "runs" / "file").touch()
    assert store.list_run_folders() == {"a" * 32, "b" * 32}


def test_runs_have_the_names_of_the_study_as_it_is_now(tmp_path: Path) -> None:
    made = store(tmp_path, KEY)
    with made.create_run(KEY) as folder:
        folder.write_record({"candidate": {"name": "as it was called"}})
    assert [r.candidate_name for r in made.runs()] == ["c"]
    assert made.run(KEY).candidate_name == "as it was called"


@pytest.mark.parametrize("key", ["../../etc", "short", KEY[:-1] + "g", ""])
def test_a_key_cannot_leave_the_folder(tmp_path: Path, key: str) -> None:
    with pytest.raises(StoreError, match="not a run key"):
        store(tmp_path).run(key)


def test_a_folder_without_a_study_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a results folder"):
        _ = Store(tmp_path).study
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(StoreError, match="cannot be read as JSON"):
        _ = Store(tmp_path).study


def test_a_folder_of_the_parts_of_a_study_names_them(tmp_path: Path) -> None:
    """`run -o` of a study with parts makes it, and to name the folder given to -o would be no advice."""
    for part in ("two", "one"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "study.json").write_text("{}")
    with pytest.raises(StoreError, match=r"but holds some: name that of one or two, as .*/one$"):
        _ = Store(tmp_path).study


def test_a_run_is_running_while_its_lock_is_held_and_not_because_it_left_a_note(tmp_path: Path) -> None:
    store = Store(tmp_path)
    keys = [f"{n:032x}" for n in range(4)]
    store.write_study({"plan": [{"key": key} for key in keys]})
    with store.create_run(keys[0]) as run:
        run.write_record({})
    store.record_failure(keys[1], {"error": "it failed"})
    for key in keys[1:3]:
        write_progress_note(store.work_folder(key), {"candidate": "a", "split": "fold 1", "epoch": 2, "epochs": 9})
    assert list(store.read_run_states().values()) == ["done", "failed", "missing", "missing"]
    assert store.read_progress_notes() == {}
    with Store(tmp_path).hold_lease(keys[2]) as mine, Store(tmp_path).hold_lease(keys[3]) as also_mine:
        assert mine and also_mine
        assert list(store.read_run_states().values()) == ["done", "failed", "running", "running"]
        (note,) = store.read_progress_notes().values()
        assert note["epoch"] == 2 and 0 <= note["silent_s"] < 60
        (tmp_path / "work" / keys[2] / "now.json").write_text("{")
        assert store.read_progress_notes() == {}

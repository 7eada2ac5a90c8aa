"""Database: a user's own is read, labelled, described and recorded by name and version."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from phoropter.core.errors import DataError, SpecError
from phoropter.core.extensions import read_recorded_extensions, trust_code
from phoropter.core.spec import validate_as
from phoropter.data.recordings.database import Database
from phoropter.data.spec import DataSpec, open_dataset, recordings
from phoropter.signals.recording import Events, Recording
from phoropter.signals.render import Trace

RATE = 50.0


def read_walk(file: Path) -> Recording:
    """Reads a file such as `p1-calm.npy` with one channel."""
    subject, label = file.stem.split("-")
    samples = np.load(file).astype(np.float32)[None]
    beats = Events(
        np.arange(50, samples.shape[1] - 50, 50), np.array(["N", "V"] * 20)[: len(range(50, samples.shape[1] - 50, 50))]
    )
    return Recording(file.stem, subject, samples, ("acc",), ("g",), RATE, label=label, events=beats, source=file)


WALKS = Database(
    "walks",
    read_file=read_walk,
    pattern="*.npy",
    rate_hz=RATE,
    tasks={"gait": {"calm": "walking", "fast": "running"}, "speed": None},
    window_s=4.0,
    grey_scale="per-subject",
    subjects="walkers",
    note="walks of nobody",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, name in enumerate(("p1-calm", "p1-fast", "p2-calm", "p2-fast")):
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(seed).normal(size=500))
    return tmp_path


def test_a_database_of_the_users_own_is_read_labelled_and_described(folder: Path) -> None:
    dataset = open_dataset(recordings(folder, database=WALKS, size=32))
    assert dataset.classes == ("walking", "running") and dataset.class_counts.tolist() == [8, 8]  # 10 s: 4 windows of 4 s
    assert dataset.groups is not None and set(dataset.groups) == {"p1", "p2"}
    assert "walks of nobody" in dataset.notes and any("4 recordings of 2 walkers" in note for note in dataset.notes)
    assert dataset.pictures.pools_grey_scale  # type: ignore[attr-defined]
    other = open_dataset(recordings(folder, database=WALKS, size=32, task="speed", grey_scale="per-image"))
    assert other.classes == ("calm", "fast") and not other.pictures.pools_grey_scale  # type: ignore[attr-defined]


def test_a_window_around_each_event_of_the_users_own_database(folder: Path) -> None:
    beats = Database("beats", read_file=read_walk, pattern="*.npy", windows="events", classes=("N", "V"), window_s=1.0)
    dataset = open_dataset(recordings(folder, database=beats, size=32, representation="trace"))
    assert dataset.classes == ("N", "V") and len(dataset) == 4 * 8
    with pytest.raises(SpecError, match="'beats' has one window around each event"):
        recordings(folder, database=beats, window={"step_s": 1})


def test_a_folder_reader_may_return_a_list(folder: Path) -> None:
    database = Database("list", read=lambda root, on_bad_input: [read_walk(f) for f in sorted(root.glob("*calm.npy"))])
    assert [r.id for r in database.load(folder, "stop").recordings] == ["p1-calm", "p2-calm"]


def test_recordings_of_another_rate_stop_or_are_listed(folder: Path) -> None:
    faster = Database("faster", read_file=read_walk, pattern="*.npy", rate_hz=100.0)
    with pytest.raises(DataError, match="recording p1-calm: its rate is 50 Hz, recordings of faster have 100 Hz"):
        faster.load(folder, "stop")
    loaded = faster.load(folder, "skip")
    assert not loaded.recordings and len(loaded.problems) == 4


@pytest.fixture
def module(tmp_path: Path) -> Iterator[Path]:
    code = tmp_path / "code"
    code.mkdir()
    (code / "my_walks.py").write_text(
        "import numpy as np\nimport phoropter as ph\n\n\ndef read(file):\n"
        "    subject, label = file.stem.split('-')\n"
        "    return ph.Recording(file.stem, subject, np.load(file)[None].astype('f4'), ('acc',), ('g',), 50.0, label=label)\n\n\n"
        "WALKS = ph.Database('my-walks', read_file=read, pattern='*.npy')\n"
    )
    return code


def test_a_study_file_names_a_database_only_where_code_is_trusted(folder: Path, module: Path) -> None:
    data = {"recordings": folder, "database": "my_walks:WALKS", "size": 32}
    with pytest.raises(SpecError, match="names Python code, which is run only where it is trusted"):
        validate_as(DataSpec, data)
    with trust_code(module):
        spec = validate_as(DataSpec, data)
    assert open_dataset(spec).classes == ("calm", "fast")
    assert spec.plain()["database"] == {"name": "my-walks", "version": "1"}


def test_a_recorded_database_is_itself_again_or_known_by_name_only(folder: Path) -> None:
    plain = recordings(folder, database=WALKS, task="gait", size=32).plain()
    with read_recorded_extensions([WALKS]):
        assert len(open_dataset(validate_as(DataSpec, plain))) == 16
    with read_recorded_extensions():
        nameless = validate_as(DataSpec, plain)
    with pytest.raises(DataError, match="only the name of the database 'walks' was recorded: pass its version 1"):
        open_dataset(nameless)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "the database 'x' cannot be read: give it read, or read_file and pattern"),
        ({"read_file": read_walk}, "cannot be read"),
        (
            {"read_file": read_walk, "pattern": "*.npy", "windows": "beats"},
            "windows of the database 'x' is 'beats', expected sliding",
        ),
    ],
)
def test_a_database_that_cannot_work_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Database("x", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "speeds"}, "task is 'speeds', expected gait or speed for 'walks'; did you mean 'speed'"),
        ({"clean": {}}, "'clean' belongs to cardiotocograms and does nothing for 'walks'"),
        ({"representation": "ctg"}, "'representation: ctg' does not fit 'walks'"),
    ],
)
def test_options_the_database_cannot_obey_are_refused(folder: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        recordings(folder, database=WALKS, **options)


def test_the_digest_of_a_database_depends_on_its_reader_and_its_representation() -> None:
    plain, small, large = (
        Database("x", read_file=read_walk, pattern="*.npy", representation=r) for r in (None, Trace(size=32), Trace(size=64))
    )
    other = Database("x", read_file=lambda file: read_walk(file), pattern="*.npy")
    assert len({d.source_digest() for d in (plain, small, large, other)}) == 4

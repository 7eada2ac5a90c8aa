from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash

from phoropter.core.errors import DataError, DiskError
from phoropter.data.dataset import Dataset
from phoropter.data.images import cache as room
from phoropter.data.images.cache import load_cached_pixels, pixel_budget_bytes, prepare_pixels
from phoropter.data.images.decode import SquareResize
from phoropter.data.sources.folder import open_folder
from phoropter.data.sources.storage import FilePictures

Draw = Callable[..., Path]


@pytest.fixture
def spoilt(zoo: Path) -> Path:
    """Five good pictures, one empty and one cut off."""
    (zoo / "cat" / "bb.png").write_bytes(b"")
    (zoo / "dog" / "z.png").write_bytes((zoo / "dog" / "a.png").read_bytes()[:400])
    return zoo


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call it and every later attempt to decode fails the test."""

    def forbid() -> None:
        def refuse(self: FilePictures, row: int) -> Any:
            raise AssertionError("a picture was decoded again")

        monkeypatch.setattr(FilePictures, "image", refuse)

    return forbid


def test_pixels_are_the_pictures_made_square(zoo: Path, tmp_path: Path) -> None:
    dataset = open_folder(zoo)
    kept, pixels = prepare_pixels(dataset, 16, cache=tmp_path / "cache")
    expected = np.stack([SquareResize(16).resize_image(dataset.read(row)) for row in range(5)])
    assert kept is dataset and pixels.shape == (5, 3, 16, 16) and pixels.size == 16 and len(pixels) == 5
    np.testing.assert_array_equal(pixels.array, expected)
    np.testing.assert_array_equal(pixels.batch(np.array([4, 0, 4])), expected[[4, 0, 4]])


def test_cached_pixels_are_found_without_decoding(zoo: Path, tmp_path: Path, no_decoding: Any) -> None:
    assert load_cached_pixels(open_folder(zoo), 16, cache=tmp_path) is None
    _, first = prepare_pixels(open_folder(zoo), 16, cache=tmp_path)
    no_decoding()
    again = load_cached_pixels(open_folder(zoo), 16, cache=tmp_path)
    assert again is not None and again[1].identity == first.identity
    np.testing.assert_array_equal(prepare_pixels(open_folder(zoo), 16, cache=tmp_path)[1].array, first.array)


def test_the_identity_depends_on_contents_and_size_not_on_labels(zoo: Path, tmp_path: Path, draw: Draw) -> None:
    dataset = open_folder(zoo)

    def name(some: Dataset, size: int = 8, **options: Any) -> str:
        return prepare_pixels(some, size, cache=tmp_path, **options)[1].identity

    import dataclasses

    relabelled = dataclasses.replace(dataset, labels=1 - dataset.labels)
    assert name(relabelled) == name(dataset, workers=1) == name(dataset)
    others = {
        name(dataset, 9),
        name(dataset, resize="pad"),
        name(dataset, interpolation="bilinear"),
        name(dataset.select_rows(np.arange(4))),
    }
    draw(zoo / "cat" / "a.png", 99)
    assert len({*others, name(dataset), name(open_folder(zoo))}) == 6


def test_a_bad_picture_is_named_in_the_error(spoilt: Path, tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(DataError, match=r"cat/bb\.png: the file is empty \(0 bytes\).*on_bad_input: skip"):
            prepare_pixels(open_folder(spoilt), 16, cache=tmp_path)
    assert load_cached_pixels(open_folder(spoilt), 16, cache=tmp_path) is None


def test_bad_pictures_are_left_out_and_listed(spoilt: Path, tmp_path: Path, no_decoding: Any) -> None:
    dataset = open_folder(spoilt)
    kept, pixels = prepare_pixels(dataset, 16, cache=tmp_path, on_bad_input="skip")
    good = [row for row, name in enumerate(dataset.ids) if name not in ("cat/bb.png", "dog/z.png")]
    assert kept.ids.tolist() == dataset.ids[good].tolist() and kept.labels.tolist() == dataset.labels[good].tolist()
    assert [p.where for p in kept.problems] == ["cat/bb.png", "dog/z.png"] and kept.problems[0].what.startswith(
        "the file is empty"
    )
    expected = np.stack([SquareResize(16).resize_image(dataset.read(row)) for row in good])
    np.testing.assert_array_equal(pixels.array, expected)
    no_decoding()
    again = load_cached_pixels(open_folder(spoilt), 16, cache=tmp_path, on_bad_input="skip")
    assert again is not None and again[0].ids.tolist() == kept.ids.tolist() and again[0].problems == kept.problems
    np.testing.assert_array_equal(again[1].array, expected)
    with pytest.raises(DataError, match=r"cat/bb\.png: the file is empty .*\(and 1 more\)"):
        load_cached_pixels(open_folder(spoilt), 16, cache=tmp_path)


def test_a_dataset_without_readable_pictures_is_refused(tmp_path: Path) -> None:
    for name in ("cat/a.png", "dog/b.png"):
        (tmp_path / "set" / name).parent.mkdir(parents=True)
        (tmp_path / "set" / name).write_text("hello")
    with pytest.raises(DataError, match="none of its 2 pictures can be read"):
        prepare_pixels(open_folder(tmp_path / "set"), 16, cache=tmp_path / "cache", on_bad_input="skip")


def test_an_unreadable_file_is_named(zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def refuse(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self.name == "b.png" and self.parent.name == "dog":
            raise PermissionError(13, "Permission denied")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"dog/b\.png: the file cannot be read: Permission denied"):
        prepare_pixels(open_folder(zoo), 16, cache=tmp_path)
    assert prepare_pixels(open_folder(zoo), 16, cache=tmp_path, on_bad_input="skip")[0].problems[0].where == "dog/b.png"


def test_progress_runs_from_zero_to_the_number_of_pictures(zoo: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    prepare_pixels(open_folder(zoo), 16, cache=tmp_path, workers=2, progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 5) and seen[-1] == (5, 5) and seen == sorted(seen)


def many(tmp_path: Path, draw: Draw, count: int = 24) -> Path:
    for i in range(count):
        draw(tmp_path / "many" / f"c{i % 3}" / f"{i:03d}.png", i, (12, 12))
    (tmp_path / "many" / "c0" / "000.png").write_bytes(b"")
    return tmp_path / "many"


def test_an_interrupted_run_resumes(tmp_path: Path, draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "CHECKPOINT_S", 0.0)
    dataset = open_folder(many(tmp_path, draw))

    def pull_the_plug(done: int, total: int) -> None:
        if done >= 10:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"cache": tmp_path / "cache", "workers": 1, "on_bad_input": "skip"}
    with pytest.raises(KeyboardInterrupt):
        prepare_pixels(dataset, 8, progress=pull_the_plug, **options)
    assert load_cached_pixels(dataset, 8, cache=tmp_path / "cache", on_bad_input="skip") is None
    seen: list[int] = []
    kept, pixels = prepare_pixels(dataset, 8, progress=lambda done, total: seen.append(done), **options)
    assert seen[0] >= 6
    _, whole = prepare_pixels(dataset, 8, cache=tmp_path / "other", on_bad_input="skip")
    np.testing.assert_array_equal(pixels.array, whole.array)
    assert len(kept) == 23 and [p.where for p in kept.problems] == ["c0/000.png"]


@pytest.mark.parametrize("spoil", ["note", "pixels"])
def test_a_damaged_partial_file_is_written_from_the_start(
    tmp_path: Path, draw: Draw, monkeypatch: pytest.MonkeyPatch, spoil: str
) -> None:
    monkeypatch.setattr(room, "CHECKPOINT_S", 0.0)
    dataset = open_folder(many(tmp_path, draw))

    def pull_the_plug(done: int, total: int) -> None:
        if done >= 10:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"cache": tmp_path / "cache", "workers": 1, "on_bad_input": "skip"}
    with pytest.raises(KeyboardInterrupt):
        prepare_pixels(dataset, 8, progress=pull_the_plug, **options)
    (partial,) = (tmp_path / "cache" / "pixels").glob("*.partial")
    if spoil == "note":
        (partial / "done.json").write_text('{"done": 1')
    else:
        (partial / "pixels.u8").write_bytes(b"short")
    seen: list[int] = []
    _, pixels = prepare_pixels(dataset, 8, progress=lambda done, total: seen.append(done), **options)
    assert seen[0] == 0
    np.testing.assert_array_equal(
        pixels.array, prepare_pixels(dataset, 8, cache=tmp_path / "other", on_bad_input="skip")[1].array
    )


SCRIPT = """
import os, sys, time
from pathlib import Path
from phoropter.data.images import cache
from phoropter.data.sources.folder import open_folder
from phoropter.data.sources.storage import FilePictures

real = FilePictures.image
def slow(self, row):
    time.sleep(0.02)
    os.write(1, b"decoded %d\\n" % row)  # one call, so that the lines of two threads never mix
    return real(self, row)
FilePictures.image = slow
cache.CHECKPOINT_S = 0.0
dataset = open_folder(Path(sys.argv[1]))
cache.prepare_pixels(dataset, 8, cache=Path(sys.argv[2]), workers=2, on_bad_input="skip")
"""


def process(*args: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, *map(str, args)], stdout=subprocess.PIPE, text=True)


def test_a_killed_process_leaves_no_half_written_entry(tmp_path: Path, draw: Draw) -> None:
    folder, cache = many(tmp_path, draw), tmp_path / "cache"
    dataset = open_folder(folder)
    first = process(folder, cache)
    assert first.stdout is not None
    for _ in range(14):
        first.stdout.readline()
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert load_cached_pixels(dataset, 8, cache=cache, on_bad_input="skip") is None
    second = process(folder, cache)
    decoded = second.communicate()[0].count("decoded")
    assert second.returncode == 0 and 0 < decoded < len(dataset)
    there = load_cached_pixels(dataset, 8, cache=cache, on_bad_input="skip")
    assert there is not None
    np.testing.assert_array_equal(
        there[1].array, prepare_pixels(dataset, 8, cache=tmp_path / "other", on_bad_input="skip")[1].array
    )


def test_two_processes_never_decode_the_same_picture(tmp_path: Path, draw: Draw) -> None:
    folder, cache = many(tmp_path, draw), tmp_path / "cache"
    both = [process(folder, cache) for _ in range(2)]
    decoded = [line for one in both for line in one.communicate()[0].splitlines()]
    assert [one.returncode for one in both] == [0, 0]
    assert sorted(decoded) == sorted({f"decoded {row}" for row in range(24)})


def test_a_full_disk_is_reported_before_and_while_writing(zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil
    from collections import namedtuple

    monkeypatch.setenv("PHOROPTER_PIXELS_BUDGET", "1GB")
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as small:
        small.setattr(shutil, "disk_usage", lambda path: usage(100, 0, 100))
        with pytest.raises(DiskError, match=r"keeping 5 pictures at 16 pixels needs 3\.8 KiB"):
            prepare_pixels(open_folder(zoo), 16, cache=tmp_path)

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(room, "_save_checkpoint", full)
    with pytest.raises(DiskError, match=r"the disk is full: free some space, or set PHOROPTER_CACHE"):
        prepare_pixels(open_folder(zoo), 16, cache=tmp_path)
    assert load_cached_pixels(open_folder(zoo), 16, cache=tmp_path) is None


def test_a_damaged_entry_is_written_again(zoo: Path, tmp_path: Path) -> None:
    dataset = open_folder(zoo)
    _, first = prepare_pixels(dataset, 16, cache=tmp_path)
    expected = np.array(first.array)
    first.file.write_bytes(b"short")
    assert load_cached_pixels(dataset, 16, cache=tmp_path) is None
    np.testing.assert_array_equal(prepare_pixels(dataset, 16, cache=tmp_path)[1].array, expected)


def test_old_partial_folders_are_removed(zoo: Path, tmp_path: Path) -> None:
    import os

    old, fresh = (tmp_path / "pixels" / f"{name}.partial" for name in ("old", "fresh"))
    for folder in (old, fresh):
        folder.mkdir(parents=True)
    os.utime(old, (time.time() - room.STALE_S - 60,) * 2)
    prepare_pixels(open_folder(zoo), 8, cache=tmp_path)
    assert not old.exists() and fresh.exists()


def test_the_index_describes_the_entry(zoo: Path, tmp_path: Path) -> None:
    _, pixels = prepare_pixels(open_folder(zoo), 8, cache=tmp_path)
    index = json.loads((pixels.file.parent / "index.json").read_text())
    assert {name: index[name] for name in ("format", "rows", "size", "stored", "bad", "blank")} == {
        "format": 1,
        "rows": 5,
        "size": 8,
        "stored": True,
        "bad": [],
        "blank": [],
    }
    data = pixels.file.read_bytes()
    ends = [end for end, _ in index["blocks"]]
    assert ends[-1] == len(data) == 5 * 3 * 8 * 8
    for begin, (end, checksum) in zip([0, *ends], index["blocks"], strict=False):
        assert xxhash.xxh3_128(data[begin:end]).hexdigest() == checksum


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("1000", 1000), ("20GB", 20 * 10**9), ("20 GiB", 20 * 2**30), ("1.5k", 1536), ("2M", 2 * 2**20), ("1e6", 10**6)],
)
def test_a_budget_is_parsed_with_its_unit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, expected: int) -> None:
    monkeypatch.setenv("PHOROPTER_PIXELS_BUDGET", text)
    assert pixel_budget_bytes(tmp_path) == expected


def test_an_invalid_budget_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for text in ("lots", "inf", "12 pebbles"):
        monkeypatch.setenv("PHOROPTER_PIXELS_BUDGET", text)
        with pytest.raises(DiskError, match="expected bytes such as 20GB or 50GiB"):
            pixel_budget_bytes(tmp_path)

"""Data in a store: copied once for all processes, brought up to date, whole or absent, and the same data as a local folder."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from object_servers import describe_endpoint
from phoropter.core.errors import DataError, DiskError, MissingExtraError
from phoropter.core.storage import object_store
from phoropter.core.storage.object_store import open_object_store
from phoropter.data.inspect import detect_data_spec
from phoropter.data.source_table import SOURCES
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.data.stores import store_copy
from phoropter.data.stores.copy_progress import CopyProgress
from phoropter.data.stores.store_copy import copy_from_store, find_address
from phoropter.starter.first_look import look_at_path

pytest.importorskip("obstore", reason="obstore is not installed: pip install 'phoropter[s3]'")


def upload(folder: Path, url: str) -> None:
    client = open_object_store(url, "a test")
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            client.put(file.relative_to(folder).as_posix(), file.read_bytes())


def read_tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def write_tree(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("s3://b/x", "s3://b/x"),
        ("s3:/b/x/y.csv", "s3://b/x/y.csv"),
        ("s3://b", "s3://b"),
        ("data/s3:/b/x", None),
        ("/s3:/b/x", None),
        ("pictures", None),
    ],
)
def test_an_address_is_told_from_a_path(path: str, address: str | None) -> None:
    assert find_address(Path(path)) == address


@pytest.mark.parametrize("path", ["s3://", "S3://b/x", "gs://b/x", "https://host/x.csv", "s3://b/../x", "s3://b/a/../x"])
def test_an_address_that_is_no_place_of_data_is_refused(path: str) -> None:
    with pytest.raises(DataError, match=r"is no place of data: expected a path of this machine, or s3://BUCKET/PLACE"):
        detect_data_spec(Path(path))


def test_a_folder_that_is_called_like_an_address_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ab:" / "x").mkdir(parents=True)
    assert find_address(Path("ab:/x")) is None


def test_a_copy_follows_the_store_and_fetches_only_what_changed(
    store_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = {"a/1.png": b"one", "a/2.png": b"two" * 1000, "b/3.png": b"three"}
    upload(write_tree(tmp_path / "here", files), store_url)
    copy = copy_from_store(store_url, tmp_path / "data")
    assert read_tree(copy) == files and "copying 3 files" in caplog.text
    caplog.clear()
    before = (copy / "a/1.png").stat()
    assert copy_from_store(f"{store_url}/", tmp_path / "data") == copy and not caplog.text
    client = open_object_store(store_url, "a test")
    client.put("b/3.png", b"THREE")
    client.delete("a/2.png")
    (copy / "a/1.png").write_bytes(b"on")  # truncated on the disk
    copy_from_store(store_url, tmp_path / "data")
    assert read_tree(copy) == {"a/1.png": b"one", "b/3.png": b"THREE"} and "copying 2 files" in caplog.text
    assert (copy / "a/1.png").stat().st_ino != before.st_ino


def test_one_object_a_pattern_and_what_a_table_names(store_url: str, tmp_path: Path) -> None:
    files = {
        "x-000.tar": b"0",
        "x-001.tar": b"1",
        "y.tar": b"y",
        "more/x-002.tar": b"2",
        "list.csv": b"path,label\nmore/p.png,a\n",
    }
    upload(write_tree(tmp_path / "here", files), store_url)
    one = copy_from_store(f"{store_url}/y.tar", tmp_path / "data")
    assert one.name == "y.tar" and read_tree(one.parent) == {"y.tar": b"y"}
    for pattern in ("x-{000..001}.tar", "x-*.tar"):
        shards = copy_from_store(f"{store_url}/{pattern}", tmp_path / "data")
        assert shards.name == pattern and read_tree(shards.parent) == {"x-000.tar": b"0", "x-001.tar": b"1"}
    table = copy_from_store(f"{store_url}/list.csv", tmp_path / "data")
    assert read_tree(table.parent) == files


def test_nothing_too_much_and_names_that_leave_the_copy_are_refused(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="nothing is there; check the address"):
        copy_from_store(f"{store_url}/nowhere", tmp_path / "data")
    upload(write_tree(tmp_path / "here", {"a": b"1", "b": b"2"}), store_url)
    with monkeypatch.context() as patch:
        patch.setattr(store_copy, "MAX_OBJECTS", 1)
        with pytest.raises(DataError, match="more than 1 objects; pack them into shards"):
            copy_from_store(store_url, tmp_path / "data")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 0))
        with pytest.raises(DiskError, match="copying s3://"):
            copy_from_store(store_url, tmp_path / "data")
    assert not [p for p in (tmp_path / "data").rglob("*") if p.is_file() and p.name != ".copy.lock"], "whole or absent"


def test_a_pattern_copies_the_shards_that_it_names_and_the_names_of_classes(store_url: str, tmp_path: Path) -> None:
    upload(
        write_tree(tmp_path / "here", {f"d-{n:02d}.tar": b"1" for n in range(12)} | {"classes.txt": b"a", "x[1].tar": b"x"}),
        store_url,
    )
    shards = copy_from_store(f"{store_url}/d-{{01..02}}.tar", tmp_path / "data")
    assert read_tree(shards.parent).keys() == {"d-01.tar", "d-02.tar", "classes.txt"}
    one = copy_from_store(f"{store_url}/x[1].tar", tmp_path / "data")
    assert read_tree(one.parent).keys() == {"x[1].tar", "classes.txt"}
    with pytest.raises(DataError, match=r"e-\*\.tar: nothing is there"):
        copy_from_store(f"{store_url}/e-*.tar", tmp_path / "data")


def test_a_table_that_is_not_there_copies_nothing_and_one_alone_only_itself(store_url: str, tmp_path: Path) -> None:
    upload(write_tree(tmp_path / "here", {"big.bin": b"1" * 1000, "LIST.CSV": b"path,label", "m.parquet": b"p"}), store_url)
    with pytest.raises(DataError, match=r"typo\.csv: nothing is there"):
        copy_from_store(f"{store_url}/typo.csv", tmp_path / "data")
    assert not list((tmp_path / "data").rglob("big.bin"))
    assert read_tree(copy_from_store(f"{store_url}/LIST.CSV", tmp_path / "alone", tables=()).parent).keys() == {"LIST.CSV"}
    assert "big.bin" in read_tree(copy_from_store(f"{store_url}/LIST.CSV", tmp_path / "data").parent)
    for key, names in (("parquet", {"m.parquet"}), ("manifest", {"m.parquet", "big.bin", "LIST.CSV"})):
        copied = copy_from_store(f"{store_url}/m.parquet", tmp_path / key, SOURCES[key].table_endings)
        assert read_tree(copied.parent).keys() == names


def test_marks_of_folders_are_left_out_and_a_file_may_take_the_place_of_a_folder(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = FakeClient("", "a", "a/b", "c/", sizes={"": 0, "a": 0})  # as consoles make them, whose names end in a slash
    assert store_copy._list_objects(marks, store_url, "**").keys() == {"a/b", "c"}
    client = open_object_store(store_url, "a test")
    upload(write_tree(tmp_path / "here", {"a/b/c": b"1", "z": b"2"}), store_url)
    copy = copy_from_store(store_url, tmp_path / "data")
    client.delete("a/b/c")
    copy_from_store(store_url, tmp_path / "data")
    assert not (copy / "a").exists(), "a class without pictures is none there"
    (copy / "a").mkdir()
    client.put("a", b"3")
    copy_from_store(store_url, tmp_path / "data")
    assert read_tree(copy) == {"a": b"3", "z": b"2"}


def test_what_was_copied_is_written_down_while_the_rest_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{n:02d}" for n in range(40)]
    monkeypatch.setattr(store_copy, "NOTE_S", 0.0)
    monkeypatch.setattr(store_copy, "open_object_store", lambda url, what: FakeClient(*names, sizes=dict.fromkeys(names, 5)))
    written: list[int] = []
    monkeypatch.setattr(store_copy, "write_json", lambda note, here: written.append(len(here)))
    store_copy._copy_objects("s3://bucket/set", "**", tmp_path)
    assert written == [*range(1, 41), 40]


class FakeClient:
    """Lists what no S3 server here would keep, and gives other bytes than it lists."""

    def __init__(self, *names: str, sizes: dict[str, int] | None = None) -> None:
        self.names, self.sizes = names, sizes or {}

    def list(self, chunk_size: int) -> Any:
        return [[{"path": name.rstrip("/") or name, "e_tag": "t", "size": self.sizes.get(name, 9)} for name in self.names]]

    def get(self, name: str) -> FakeClient:
        return self

    def stream(self, min_chunk_size: int) -> Any:
        return [b"short"]


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/x", "a//x", "a\\x", "./x"])
def test_a_name_that_is_no_path_below_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_copy, "open_object_store", lambda url, what: FakeClient("fine", name))
    with pytest.raises(DataError, match="which is no path below it; rename it"):
        store_copy._copy_objects("s3://bucket/set", "**", tmp_path)


def test_an_object_that_is_also_a_folder_or_changes_meanwhile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_copy, "open_object_store", lambda url, what: FakeClient("a", "a/b"))
    with pytest.raises(DataError, match="'a' is an object, and there are others in a folder of this name"):
        store_copy._copy_objects("s3://bucket/set", "**", tmp_path)
    monkeypatch.setattr(store_copy, "open_object_store", lambda url, what: FakeClient("a"))
    with pytest.raises(DataError, match="'a' has changed in the store while it was copied"):
        store_copy._copy_objects("s3://bucket/set", "**", tmp_path)
    gone = FakeClient("a")
    monkeypatch.setattr(gone, "get", lambda name: open_missing(tmp_path))
    monkeypatch.setattr(store_copy, "open_object_store", lambda url, what: gone)
    with pytest.raises(DataError, match="'a' has changed in the store while it was copied"):
        store_copy._copy_objects("s3://bucket/set", "**", tmp_path)
    assert not [p for p in tmp_path.rglob("*") if p.name.endswith((".part", "a"))]


class SlowClient(FakeClient):
    """Objects of which each has more chunks than anybody waits for; it counts those that were asked for."""

    def __init__(self, *names: str) -> None:
        super().__init__(*names)
        self.chunks = 0
        self.begun = threading.Event()

    def stream(self, min_chunk_size: int) -> Any:
        for _ in range(100_000):
            self.chunks += 1
            self.begun.set()
            yield b"x"


def test_a_copy_that_is_ended_waits_for_no_download(tmp_path: Path) -> None:
    """As Ctrl-C ends it: the generator is closed, and downloads under way end with the chunk that they are at."""
    client = SlowClient(*(f"large-{n}" for n in range(20)))
    missing = {name: ["t", 100_000] for name in client.names}

    class Interrupted(CopyProgress):
        def add_bytes(self, count: int) -> None:
            super().add_bytes(count)
            assert interrupted.wait(30)

    interrupted = threading.Event()
    fetched = store_copy._fetch_objects(client, missing, tmp_path, Interrupted(2_000_000))

    def interrupt(*_: Any) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        patch.setattr("concurrent.futures.Future.result", interrupt)
        next(fetched)
    assert client.chunks <= 16, "of 2,000,000"
    assert not list(tmp_path.iterdir())


def test_a_store_is_asked_once_where_data_are_opened_several_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Counting(FakeClient):
        def list(self, chunk_size: int) -> Any:
            asked.append("list")
            return super().list(chunk_size)

        def head(self, name: str) -> None:
            asked.append("head")
            raise FileNotFoundError

    monkeypatch.setattr(store_copy, "open_object_store", lambda url, what: Counting("1.png", sizes={"1.png": 5}))
    with store_copy.ask_stores_once():
        first = copy_from_store("s3://bucket/set", tmp_path)
        with store_copy.ask_stores_once():
            assert copy_from_store("s3://bucket/set/", tmp_path, tables=()) == first
        assert copy_from_store("s3://bucket/set", tmp_path) == first
    assert asked == ["head", "list"]
    copy_from_store("s3://bucket/set", tmp_path)
    assert asked == ["head", "list"] * 2, "each later opening asks again"


def test_a_study_records_an_address_as_it_was_written(tmp_path: Path) -> None:
    spec = DataSpec.model_validate({"imagenet": "s3://bucket/set", "labels": "s3://bucket/labels.csv"})
    assert spec.plain()["imagenet"] == "s3://bucket/set" and spec.plain()["labels"] == "s3://bucket/labels.csv"
    assert DataSpec.model_validate(spec.plain_changes()) == spec
    here = DataSpec.model_validate({"folder": tmp_path})
    assert here.plain()["folder"] == str(tmp_path) and here.folder == tmp_path  # type: ignore[attr-defined]


def open_missing(folder: Path) -> bytes:
    return (folder / "no such object").read_bytes()


def test_a_dataset_in_a_store_is_the_one_that_was_put_there(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHOROPTER_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "here"
    for number, kind in enumerate(("cat", "dog") * 3):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(folder / kind / f"{number}.png")
    upload(folder, store_url)
    local = open_dataset(DataSpec.model_validate({"folder": str(folder)}))
    there = open_dataset(DataSpec.model_validate({"folder": store_url}))
    assert there.fingerprint == local.fingerprint and list(there.ids) == list(local.ids)
    guessed = detect_data_spec(Path(store_url))
    assert guessed.source == "folder" and find_address(guessed.folder) == store_url  # type: ignore[attr-defined]
    assert open_dataset(guessed).fingerprint == local.fingerprint


def test_columns_and_groups_of_a_table_in_a_store_are_guessed(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHOROPTER_CACHE", str(tmp_path / "cache"))
    lines = [f"{n}.png;{'ab'[n % 2]};p{n // 2}" for n in range(8)]
    table = "\n".join(["image_file;diagnosis;patient_id", *lines]).encode()
    for n in range(8):
        (tmp_path / "here").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (20 * n, 0, 0)).save(tmp_path / "here" / f"{n}.png")
    upload(write_tree(tmp_path / "here", {"list.csv": table}), store_url)
    there, local = look_at_path(Path(f"{store_url}/list.csv")), look_at_path(tmp_path / "here" / "list.csv")
    assert there.keys == local.keys and there.guess is not None and local.guess is not None
    assert there.guess.keys == local.guess.keys == {"columns": {"group": "patient_id"}}


def test_a_store_that_does_not_answer_and_a_missing_package_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in describe_endpoint("http://127.0.0.1:9").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(object_store, "RETRY_S", 0.2)
    with pytest.raises(DiskError, match=r"s3://bucket cannot be used .*what was copied is kept, and the same command goes on"):
        copy_from_store("s3://bucket/x/", tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "127.0.0.1:9000")
    with pytest.raises(DiskError, match=r"AWS_ENDPOINT_URL is '127\.0\.0\.1:9000', expected http://HOST:PORT"):
        copy_from_store("s3://bucket/x/", tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "obstore.store", None)
    with pytest.raises(MissingExtraError, match=r"data in s3://… needs the package obstore.*phoropter\[s3\]"):
        copy_from_store("s3://bucket/x/y", tmp_path)

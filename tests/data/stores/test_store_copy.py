"""Data in a store: copied once for all processes, brought up to date, whole or absent, and the same data as a local folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from object_servers import describe_endpoint, serve_objects, start_moto, start_rclone
from phoropter.core.errors import DataError, DiskError, MissingExtraError
from phoropter.core.storage import object_store
from phoropter.core.storage.object_store import open_object_store
from phoropter.data.inspect import detect_data_spec
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.data.stores import store_copy
from phoropter.data.stores.store_copy import copy_from_store, find_address

pytest.importorskip("obstore", reason="obstore is not installed: pip install 'phoropter[s3]'")


@pytest.fixture(scope="module", params=[start_moto, start_rclone])
def endpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve_objects(request.param, tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture
def url(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    for name, value in describe_endpoint(endpoint).items():
        monkeypatch.setenv(name, value)
    return f"s3://bucket/{tmp_path.name}"


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
        ("s3://b", None),
        ("data/s3:/b/x", None),
        ("/s3:/b/x", None),
        ("pictures", None),
    ],
)
def test_an_address_is_told_from_a_path(path: str, address: str | None) -> None:
    assert find_address(Path(path)) == address


def test_a_copy_follows_the_store_and_fetches_only_what_changed(
    url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = {"a/1.png": b"one", "a/2.png": b"two" * 1000, "b/3.png": b"three"}
    upload(write_tree(tmp_path / "here", files), url)
    copy = copy_from_store(url, tmp_path / "data")
    assert read_tree(copy) == files and "copying 3 files" in caplog.text
    caplog.clear()
    before = (copy / "a/1.png").stat()
    assert copy_from_store(f"{url}/", tmp_path / "data") == copy and not caplog.text
    client = open_object_store(url, "a test")
    client.put("b/3.png", b"THREE")
    client.delete("a/2.png")
    (copy / "a/1.png").write_bytes(b"on")  # truncated on the disk
    copy_from_store(url, tmp_path / "data")
    assert read_tree(copy) == {"a/1.png": b"one", "b/3.png": b"THREE"} and "copying 2 files" in caplog.text
    assert (copy / "a/1.png").stat().st_ino != before.st_ino


def test_one_object_a_pattern_and_what_a_table_names(url: str, tmp_path: Path) -> None:
    files = {
        "x-000.tar": b"0",
        "x-001.tar": b"1",
        "y.tar": b"y",
        "more/x-002.tar": b"2",
        "list.csv": b"path,label\nmore/p.png,a\n",
    }
    upload(write_tree(tmp_path / "here", files), url)
    one = copy_from_store(f"{url}/y.tar", tmp_path / "data")
    assert one.name == "y.tar" and read_tree(one.parent) == {"y.tar": b"y"}
    for pattern in ("x-{000..001}.tar", "x-*.tar"):
        shards = copy_from_store(f"{url}/{pattern}", tmp_path / "data")
        assert shards.name == pattern and read_tree(shards.parent) == {"x-000.tar": b"0", "x-001.tar": b"1"}
    table = copy_from_store(f"{url}/list.csv", tmp_path / "data")
    assert read_tree(table.parent) == files


def test_nothing_too_much_and_names_that_leave_the_copy_are_refused(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="nothing is there; check the address"):
        copy_from_store(f"{url}/nowhere", tmp_path / "data")
    upload(write_tree(tmp_path / "here", {"a": b"1", "b": b"2"}), url)
    with monkeypatch.context() as patch:
        patch.setattr(store_copy, "MAX_OBJECTS", 1)
        with pytest.raises(DataError, match="more than 1 objects; pack them into shards"):
            copy_from_store(url, tmp_path / "data")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 0))
        with pytest.raises(DiskError, match="copying s3://"):
            copy_from_store(url, tmp_path / "data")
    assert not [p for p in (tmp_path / "data").rglob("*") if p.is_file() and p.name != ".copy.lock"], "whole or absent"


class FakeClient:
    """Lists what no S3 server here would keep, and gives other bytes than it lists."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def list(self, chunk_size: int) -> Any:
        return [[{"path": name, "e_tag": "t", "size": 9} for name in self.names]]

    def get(self, name: str) -> FakeClient:
        return self

    def stream(self) -> Any:
        return [b"short"]


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/x", "a//x", "a\\x", "./x"])
def test_a_name_that_is_no_path_below_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_copy, "open_object_store", lambda url, what: FakeClient("fine", name))
    with pytest.raises(DataError, match="which is no path below it; rename it"):
        store_copy._copy_objects("s3://bucket/set", "**", tmp_path)


def test_an_object_that_is_also_a_folder_or_changes_meanwhile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_copy, "open_object_store", lambda url, what: FakeClient("a", "a/b"))
    with pytest.raises(DataError, match="'a/b' lies in a folder whose name is that of an object"):
        store_copy._copy_objects("s3://bucket/set", "**", tmp_path)
    monkeypatch.setattr(store_copy, "open_object_store", lambda url, what: FakeClient("a"))
    with pytest.raises(DataError, match="'a' has changed in the store while it was copied"):
        store_copy._copy_objects("s3://bucket/set", "**", tmp_path)
    assert not list(tmp_path.rglob("a"))


def test_a_dataset_in_a_store_is_the_one_that_was_put_there(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOROPTER_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "here"
    for number, kind in enumerate(("cat", "dog") * 3):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(folder / kind / f"{number}.png")
    upload(folder, url)
    local = open_dataset(DataSpec.model_validate({"folder": str(folder)}))
    there = open_dataset(DataSpec.model_validate({"folder": url}))
    assert there.fingerprint == local.fingerprint and list(there.ids) == list(local.ids)
    guessed = detect_data_spec(Path(url))
    assert guessed.source == "folder" and find_address(guessed.folder) == url  # type: ignore[attr-defined]
    assert open_dataset(guessed).fingerprint == local.fingerprint


def test_a_store_that_does_not_answer_and_a_missing_package_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in describe_endpoint("http://127.0.0.1:9").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(object_store, "RETRY_S", 0.2)
    with pytest.raises(DiskError, match=r"s3://bucket cannot be used .*what was copied is kept, and the same command goes on"):
        copy_from_store("s3://bucket/x/", tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "obstore.store", None)
    with pytest.raises(MissingExtraError, match=r"data in s3://… needs the package obstore.*phoropter\[s3\]"):
        copy_from_store("s3://bucket/x/y", tmp_path)

"""WebDataset tars: samples, columns, shards, and that nothing in a tar leads out of it or grows without bound."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from phoropter.core.errors import DataError
from phoropter.data.inspect import detect_data_spec
from phoropter.data.source_table import detect_source
from phoropter.data.sources import file_hashes
from phoropter.data.sources.packed import webdataset
from phoropter.data.sources.packed.webdataset import open_webdataset
from phoropter.data.spec import open_dataset


def pixels(seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)


def png(seed: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels(seed)).save(stream, "PNG")
    return stream.getvalue()


def pack(path: Path, members: dict[str, bytes], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def samples(first: int = 0, count: int = 4, prefix: str = "", **fields: Callable[[int], bytes]) -> dict[str, bytes]:
    members = {}
    for at in range(first, first + count):
        members[f"{prefix}{at:04d}.png"] = png(at)
        members |= {
            f"{prefix}{at:04d}.{ending}": make(at) for ending, make in (fields or {"cls": lambda n: b"%d\n" % (n % 2)}).items()
        }
    return members


def words_of(path: Path, **options: Any) -> list[str]:
    dataset = open_webdataset(path, **options)
    return [dataset.classes[label] for label in dataset.labels]


def test_samples_of_shards_in_a_folder(tmp_path: Path) -> None:
    pack(tmp_path / "s" / "cells-train-0000.tar", samples())
    pack(tmp_path / "s" / "cells-test-0000.tar", samples(4))
    dataset = open_dataset(detect_data_spec(tmp_path / "s"))
    assert dataset.ids.tolist() == [f"{at:04d}" for at in (4, 5, 6, 7, 0, 1, 2, 3)] and dataset.classes == ("0", "1")
    assert dataset.parts is not None and dataset.parts.tolist() == ["test"] * 4 + ["train"] * 4
    np.testing.assert_array_equal(dataset.select_rows(np.array([5])).read(0), pixels(1))
    assert pickle.loads(pickle.dumps(dataset)).content_digest == dataset.content_digest  # noqa: S301
    alone = open_webdataset(tmp_path / "s" / "cells-test-0000.tar")
    assert alone.digests() == dataset.digests()[:4]


def test_patterns_of_shards(tmp_path: Path) -> None:
    for at in range(12):
        pack(tmp_path / f"data-{at:02d}.tar", samples(4 * at))
    assert len(open_webdataset(tmp_path / "data-{09..11}.tar")) == 12
    assert len(open_webdataset(tmp_path / "data-{00,03,11}.tar")) == 12
    assert len(open_webdataset(tmp_path / "data-1*.tar")) == 8
    with pytest.raises(DataError, match=r"2 of 4 files are not there \(data-12\.tar or data-13\.tar\)"):
        open_webdataset(tmp_path / "data-{10..13}.tar")
    for wrong in ("{3..1}", "{0..999999999}", "{a..c}", "{}"):
        with pytest.raises(DataError, match=r"expected .*\{000\.\.003\}"):
            open_webdataset(tmp_path / f"data-{wrong}.tar")


def test_labels_are_found_in_this_order(tmp_path: Path) -> None:
    words = {"txt": lambda n: b"text%d" % (n % 2), "cls": lambda n: b"%d" % (n % 3)}
    label = {"json": lambda n: json.dumps({"label": f"json{n % 2}", "group": n // 2}).encode()}
    assert set(words_of(pack(tmp_path / "a.tar", samples(txt=words["txt"])))) == {"text0", "text1"}
    assert set(words_of(pack(tmp_path / "b.tar", samples(**words)))) == {"0", "1", "2"}
    assert set(words_of(pack(tmp_path / "c.tar", samples(**words, **label)))) == {"json0", "json1"}
    assert set(words_of(tmp_path / "c.tar", columns={"label": "txt"})) == {"text0", "text1"}
    assert open_webdataset(tmp_path / "c.tar").groups.tolist() == list("0011")  # type: ignore[union-attr]


def test_columns_name_keys_of_the_json_and_endings(tmp_path: Path) -> None:
    record = {
        "json": lambda n: json.dumps({"Patient ID": f"p{n // 2}", "clinic": "N", "fold": "val", "nested": {"a": 1}}).encode()
    }
    path = pack(tmp_path / "a.tar", samples(kind=lambda n: b"ab"[n % 2 : n % 2 + 1], **record))
    dataset = open_webdataset(path, columns={"group": "patient id", "site": "clinic", "label": "kind", "split": "fold"})
    assert dataset.groups is not None and dataset.groups.tolist() == ["p0", "p0", "p1", "p1"]
    assert (
        dataset.sites is not None and set(dataset.sites) == {"N"} and dataset.parts is not None and set(dataset.parts) == {"val"}
    )
    with pytest.raises(DataError, match=r"a\.tar has no column 'ward' \(columns\.group\)"):
        open_webdataset(path, columns={"group": "ward", "label": "kind"})


def test_names_of_classes_beside_the_shards(tmp_path: Path) -> None:
    pack(tmp_path / "a.tar", samples())
    (tmp_path / "classnames.txt").write_text("tabby cat\ndog\n")
    assert words_of(tmp_path) == ["tabby cat", "dog", "tabby cat", "dog"]


def test_equal_names_in_two_shards_and_folders_in_names(tmp_path: Path) -> None:
    pack(tmp_path / "a.tar", samples(prefix="x.y/"))
    pack(tmp_path / "b.tar", samples(prefix="x.y/"))
    assert open_webdataset(tmp_path).ids.tolist()[3:5] == ["a/x.y/0003", "b/x.y/0000"]


def test_one_of_several_pictures_of_a_sample(tmp_path: Path) -> None:
    masks = {"seg.png": lambda n: png(100 + n), "cls": lambda n: b"%d" % (n % 2)}
    path = pack(tmp_path / "a.tar", samples(**masks))
    np.testing.assert_array_equal(open_webdataset(path).read(1), pixels(1))
    np.testing.assert_array_equal(open_webdataset(path, columns={"image": "seg.png"}).read(1), pixels(101))
    path = pack(tmp_path / "b.tar", samples(bmp=png, cls=masks["cls"]))
    with pytest.raises(DataError, match=r"b\.tar, 0000: the sample has 2 pictures \(png or bmp\), expected one; name its ending"):
        open_webdataset(path)
    with pytest.raises(DataError, match=r"0000: the sample has no picture \.jpg \(columns\.image\); it has png or bmp"):
        open_webdataset(path, columns={"image": "jpg"})


def test_members_of_no_sample_are_left_out(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", {"README": b"x", "__meta__.json": b"{", **samples()})
    assert len(open_webdataset(path)) == 4 and detect_source(path).key == "shards"


def test_half_filled_labels_and_groups_are_refused_with_counts(tmp_path: Path) -> None:
    members = samples()
    del members["0002.cls"]
    path = pack(tmp_path / "a.tar", members)
    with pytest.raises(DataError, match=r"a\.tar, 0002\.png: the label is empty here .* \(1 of 4 rows have none\)"):
        open_webdataset(path)
    assert open_webdataset(path, on_bad_input="skip").labels.tolist() == [0, 1, -1, 1]
    groups = samples(json=lambda n: json.dumps({"label": n % 2, **({"group": "g"} if n else {})}).encode())
    with pytest.raises(DataError, match=r"0000\.png: the group is empty here .* \(1 of 4 rows have none\)"):
        open_webdataset(pack(tmp_path / "b.tar", groups), on_bad_input="skip")


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"0.png": b"x", "0.txt": b"\xff\xfe\xff"}, r"0\.txt: the member is not UTF-8 text"),
        ({"0.png": b"x", "0.json": b"{"}, r"0\.json: the member is no JSON"),
        ({"0.png": b"x", "0.json": b"[" * 100_000}, r"0\.json: the member is no JSON"),
        ({"0.png": b"x", "0.json": b"[1]"}, r"the JSON is list, expected an object"),
        ({"0.cls": b"1"}, r"0: the sample has no picture, expected one"),
        ({"0.png": b"x"}, r"a\.tar has no label; expected members \.cls, \.txt or \.json"),
        ({"0.png": b"x", "0.cls": b"1" * (1024**2 + 1)}, r"fields of up to 1,048,576 bytes are read"),
        ({}, r"there are no pictures in 1 files"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, members: dict[str, bytes], words: str) -> None:
    with pytest.raises(DataError, match=words):
        open_webdataset(pack(tmp_path / "a.tar", members))


def test_a_member_twice_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for content in (png(0), png(1)):
            member = tarfile.TarInfo("0.png")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    with pytest.raises(DataError, match="two members of this ending"):
        open_webdataset(tmp_path / "a.tar")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member = tarfile.TarInfo("0.png")
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
    with pytest.raises(DataError, match="the member is a link, a device or sparse"):
        open_webdataset(tmp_path / "a.tar")


def test_names_that_lead_out_of_the_tar_write_and_read_nothing(tmp_path: Path) -> None:
    members = {f"../../{name}": content for name, content in samples().items()}
    before = set(tmp_path.rglob("*"))
    path = pack(tmp_path / "in" / "a.tar", members)
    dataset = open_webdataset(path)
    np.testing.assert_array_equal(dataset.read(2), pixels(2))
    assert set(tmp_path.rglob("*")) - before == {path, path.parent}


def test_damaged_compressed_and_shortened_tars(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", samples())
    content = path.read_bytes()
    dataset = open_webdataset(path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"has become shorter|damaged"):
        dataset.read(3)
    with pytest.raises(DataError, match=r"a\.tar (is cut off|is damaged)"):
        open_webdataset(path)
    path.write_bytes(b"no tar at all" * 100)
    with pytest.raises(DataError, match=r"a\.tar is damaged or no plain tar"):
        open_webdataset(path)
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("0.png"), io.BytesIO())
    with pytest.raises(DataError, match=r"a compressed one must be unpacked to \.tar first"):
        open_webdataset(path)


def test_an_enormous_header_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset, "MAX_HEADER_BYTES", 4096)
    path = pack(tmp_path / "a.tar", {"0" * 8000 + ".png": png(0)}, format=tarfile.PAX_FORMAT)
    with pytest.raises(DataError, match=r"a header of [0-9,]+ bytes"):
        open_webdataset(path)


def test_an_archive_of_class_folders_is_no_webdataset(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", {"cat/1.png": png(0), "dog/2.png": png(1)})
    with pytest.raises(DataError, match="is an archive; unpack it and name the folder"):
        detect_source(path)


def test_class_folders_named_as_shards_are_refused_with_the_way_out(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", {"pets/cat/1.png": png(0), "pets/dog/2.png": png(1)})
    with pytest.raises(DataError, match=r"its pictures lie in folders \(cat or dog\): if these are classes, unpack it"):
        open_webdataset(path)


@pytest.mark.parametrize("keep", [0.4, 0.8, 0.97])
def test_a_tar_that_is_cut_off_is_told_so_when_it_is_inspected(tmp_path: Path, keep: float) -> None:
    path = pack(tmp_path / "a.tar", samples(count=12))
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content.rstrip(b"\0")))])
    assert detect_source(path).key == "shards"
    with pytest.raises(DataError, match=r"a\.tar is (cut off|damaged)"):
        open_dataset(detect_data_spec(path))


@pytest.mark.parametrize("ending", ["dcm", "DCM", "png"])
def test_dicom_in_a_tar_is_refused_without_a_name(tmp_path: Path, write_dicom: Callable[..., Path], ending: str) -> None:
    file = write_dicom(tmp_path / "x.dcm", pixels(0)[:, :, 0], PatientID="MILLER-7")
    path = pack(tmp_path / "a.tar", {f"MILLER-7-{n}.{e}": b"%d" % n if e == "cls" else file.read_bytes()
                                     for n in range(2) for e in (ending, "cls")})  # fmt: skip
    with pytest.raises(DataError, match=r"a\.tar: it holds DICOM files.*unpack them into a folder") as caught:
        open_dataset(detect_data_spec(path)).read(0)
    assert "MILLER" not in str(caught.value)


def test_a_tar_is_gone_through_once_as_long_as_it_is_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOROPTER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(file_hashes, "SETTLED_S", -1e9)
    values = [1, 2.5, "wörd", True, None, float("inf"), ["a", 3]]

    def make_json(row: int) -> bytes:
        return json.dumps({"label": row % 2, "extra": values[row], "group": f"g\udc80{row}"}).encode()

    path = pack(tmp_path / "x.tar", samples(count=7, prefix="a/", json=make_json))
    scanned = webdataset._scan_samples(path, {"extra"})
    first = open_webdataset(path)
    with monkeypatch.context() as patch:
        patch.setattr(webdataset, "_scan_samples", None)
        again = open_webdataset(path)
    assert again.ids.tolist() == first.ids.tolist() and again.labels.tolist() == first.labels.tolist()
    assert again.groups is not None and first.groups is not None and again.groups.tolist() == first.groups.tolist()
    for row in range(7):
        np.testing.assert_array_equal(again.read(row), pixels(row))
    webdataset._read_samples(path, {"site": "extra"})
    with monkeypatch.context() as patch:
        patch.setattr(webdataset, "_scan_samples", None)
        assert webdataset._read_samples(path, {"site": "extra"}) == scanned  # every field, from the index
    pack(path, samples(count=5, json=make_json))
    assert len(open_webdataset(path)) == 5

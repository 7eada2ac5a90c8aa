"""Files that are something else than their place says, by their first bytes."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.core.spec import validate_as
from phoropter.core.storage.foreign_files import HDF5, NPZ, PARQUET, refuse_foreign_file
from phoropter.core.text_table import read_text_table
from phoropter.data.source_table import detect_source
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.signals.readers.edf import read_edf
from phoropter.signals.readers.monitor_csv import read_export
from phoropter.signals.readers.signal_tables import read_signal_table


def zip_of(names: Iterable[str]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return stream.getvalue()


def tar_of(names: Iterable[str]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    return stream.getvalue()


def npz_bytes() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, a=np.zeros(3))
    return stream.getvalue()


SOURCES = ("folder", "manifest", "recordings", "wesad", "imagenet", "saved_dataset")
WORKBOOK = zip_of(["[Content_Types].xml", "xl/workbook.xml"])
KINDS = {
    "workbook": (WORKBOOK, "is an Excel workbook by its contents.*save the sheet as CSV in UTF-8"),
    "old workbook": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), "an Excel workbook of the old format"),
    "opendocument": (zip_of(["mimetype", "content.xml"]), "an OpenDocument file"),
    "zip": (zip_of(["cats/1.png"]), "a ZIP archive by its contents.*unpack it"),
    "npz": (npz_bytes(), "an archive of NumPy arrays"),
    "gzip": (gzip.compress(b"path,label\n"), "a gzip archive"),
    "tar": (tar_of(["cats/1.png", "cats/2.png"]), "a tar archive.*unpack it and name the folder, or name it as shards"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(50), "a 7z archive"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "a pointer of Git LFS.*git lfs pull"),
    "web page": (b"\xef\xbb\xbf\r\n<!DOCTYPE html>\n<html>", "a web page, probably a failed download"),
    "parquet": (b"PAR1" + bytes(50), "a Parquet file by its contents.*give it the ending .parquet"),
    "npy": (b"\x93NUMPY\x01\0" + bytes(50), r"a NumPy array \(\.npy\)"),
    "matlab": (b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(90), "a MATLAB file"),
    "sqlite": (b"SQLite format 3\0" + bytes(90), "an SQLite database"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_reader_says_what_it_was_given(tmp_path: Path, kind: str) -> None:
    content, message = KINDS[kind]
    (tmp_path / "a.csv").write_bytes(content)
    (tmp_path / "a.edf").write_bytes(content)
    readers: tuple[Any, ...] = (
        refuse_foreign_file,
        read_text_table,
        detect_source,
        read_export,
        lambda path: read_signal_table(path, 50.0),
        lambda path: read_edf(path.with_suffix(".edf")),
        *(lambda path, key=key: open_dataset(validate_as(DataSpec, {key: path})) for key in SOURCES),
    )
    for read in readers:
        with pytest.raises(DataError, match=message):
            read(tmp_path / "a.csv")


@pytest.mark.parametrize("content", [b"path,label\n", b"", b"PA", b"<htm", b"PK\x03\x04 damaged", b"htmlx,label\n", b"pk,bzh\n"])
def test_tables_and_damaged_archives_are_left_to_their_readers(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    refuse_foreign_file(tmp_path / "a.csv")
    refuse_foreign_file(tmp_path)
    refuse_foreign_file(tmp_path / "missing.csv")


@pytest.mark.parametrize("name", ["a.xlsx", "a.XLS", "a.ods", "a.feather"])
@pytest.mark.parametrize("content", [b"path,label\n1,2\n", b"", b"PK\x03\x04 damaged", bytes(range(32))])
def test_what_is_called_a_workbook_is_never_read_as_text(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="is no table that is read here; save it as CSV in UTF-8"):
        read_text_table(tmp_path / name)


def test_what_is_read_is_not_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(npz_bytes())
    refuse_foreign_file(tmp_path / "a", (NPZ,))
    (tmp_path / "a").write_bytes(KINDS["parquet"][0])
    refuse_foreign_file(tmp_path / "a", (PARQUET,))
    with pytest.raises(DataError, match="a Parquet file"):
        refuse_foreign_file(tmp_path / "a", (HDF5,))


def test_a_zip_of_pictures_is_no_npz(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(KINDS["zip"][0])
    with pytest.raises(DataError, match="a ZIP archive"):
        open_dataset(validate_as(DataSpec, {"npz": tmp_path / "a.zip"}))

"""Which files are looked into and taken for DICOM."""

from __future__ import annotations

from pathlib import Path

import pytest

from phoropter.data.dicom_file import is_dicom_file, is_dicom_head, may_be_dicom

HEAD = bytes(128) + b"DICM" + bytes(10)


@pytest.mark.parametrize("name", ["a.dcm", "A.DCM", "x/y.dicom", "IM000001", "1.2.840.113619.2.1", "a.IMA", "x/.jpg"])
def test_names_that_may_be_dicom(name: str) -> None:
    assert may_be_dicom(name)


@pytest.mark.parametrize("name", ["a.png", "x.y/a.JPG", "README.md", "DICOMDIR", "dicomdir", "", "a.dcm.png"])
def test_names_that_are_not(name: str) -> None:
    assert not may_be_dicom(name)


def test_a_file_without_a_suffix_is_told_by_its_contents(tmp_path: Path) -> None:
    for name, content, right in (
        ("IM0001", HEAD, True),
        ("LICENSE", b"words" * 100, False),
        ("1.2.3", HEAD, True),
        ("short", b"", False),
        ("a.dcm", b"", True),
        ("a.png", HEAD, False),
    ):
        (tmp_path / name).write_bytes(content)
        assert is_dicom_file(tmp_path / name) is right, name
    assert is_dicom_head(HEAD) and not is_dicom_head(HEAD[1:])
    (tmp_path / "folder").mkdir()
    assert not is_dicom_file(tmp_path / "folder")

"""Which files are DICOM: by their suffix, or by the word DICM after 128 bytes in files without one, as archives export them."""

from __future__ import annotations

import os
from pathlib import Path

DICOM_EXTENSIONS = (".dcm", ".dicom", ".dic", ".ima")
_PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")  # of nearly all names: told before they are taken apart
_INDEX_NAME = "dicomdir"  # a table of contents, without pixels


def is_dicom_head(head: bytes) -> bool:
    """Whether the first 132 bytes of a file are those of a DICOM file."""
    return head[128:132] == b"DICM"


def may_be_dicom(name: str) -> bool:
    """Whether a file of this name is looked into: it has a suffix of DICOM, none, or one of digits (names made of UIDs)."""
    if name.endswith(_PICTURE_ENDINGS) and name[0] != "." and "/." not in name and "\\." not in name:
        return False
    stem, suffix = os.path.splitext(os.path.basename(name))  # noqa: PTH119, PTH122 (a Path for each of millions of names is slow)
    return stem.lower() not in ("", _INDEX_NAME) and (
        suffix.lower() in DICOM_EXTENSIONS or suffix in ("", ".") or suffix[1:].isdigit()
    )


def is_dicom_file(path: Path) -> bool:
    """Whether a file is DICOM by its name and, unless its suffix says so, its contents. Raises OSError."""
    if not may_be_dicom(path.name):
        return False
    if path.suffix.lower() in DICOM_EXTENSIONS:
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return is_dicom_head(file.read(132))

"""What a file is by its first bytes, where it is something else than its name or its place says, and what to do then."""

from __future__ import annotations

import zipfile
from pathlib import Path

from phoropter.core.errors import DataError

HEAD_BYTES = 264
TAR, GZIP, PARQUET, HDF5 = "a tar archive", "a gzip archive", "a Parquet file", "an HDF5 file"
NPZ = "an archive of NumPy arrays (.npz)"
_ZIP = "a ZIP archive"
_UNPACK = "unpack it and name what is in it"
_AS_CSV = "save the sheet as CSV in UTF-8 and name that file"
_KINDS: tuple[tuple[bytes, str, str], ...] = (  # first bytes, kind, what to do
    (b"\x1f\x8b", GZIP, _UNPACK),
    (b"BZh", "a bzip2 archive", _UNPACK),
    (b"\xfd7zXZ\0", "an xz archive", _UNPACK),
    (b"(\xb5/\xfd", "a Zstandard archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"PK\x03\x04", _ZIP, _UNPACK),
    (b"PK\x05\x06", _ZIP, _UNPACK),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook of the old format, or another Office document", _AS_CSV),
    (b"PAR1", PARQUET, "give it the ending .parquet"),
    (b"\x89HDF\r\n\x1a\n", HDF5, "name it as hdf5"),
    (b"\x93NUMPY", "a NumPy array (.npy)", "save arrays with their names as .npz"),
    (b"ARROW1", "an Arrow or Feather file", "save the table as Parquet"),
    (b"SQLite format 3\0", "an SQLite database", "export its table as CSV"),
    (b"MATLAB 5.0 MAT-file", "a MATLAB file", "save its arrays as .npz or HDF5, or its table as CSV"),
    (b"%PDF", "a PDF document", "export its table as CSV"),
    (b"version https://git-lfs", "a pointer of Git LFS", "fetch the file itself with git lfs pull"),
    (b"<!doctype html", "a web page, probably a failed download", "download the file again"),
    (b"<html", "a web page, probably a failed download", "download the file again"),
)


def refuse_foreign_file(path: Path, readable: tuple[str, ...] = ()) -> None:
    """Raises DataError for a file that is an archive, a workbook, a web page or the like by its first bytes.

    readable: kinds that are read here, such as PARQUET
    A path that is no file, or cannot be read, is left to the reader.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return
    found = _find_kind(head)
    found = _tell_zip_apart(path) if found and found[0] == _ZIP else found
    if found is None or found[0] in readable:
        return
    kind, advice = found
    raise DataError(f"{path} is {kind} by its contents, which is not read here: {advice}")


def _find_kind(head: bytes) -> tuple[str, str] | None:
    """(kind, advice); text is found in either case, behind a byte order mark and blank lines."""
    if head[257:262] == b"ustar":
        return TAR, "unpack it and name the folder, or name it as shards if its members are samples of WebDataset"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next(
        ((kind, advice) for sign, kind, advice in _KINDS if head.startswith(sign) or (sign.islower() and text.startswith(sign))),
        None,
    )


def _tell_zip_apart(path: Path) -> tuple[str, str] | None:
    """(kind, advice): workbooks and .npz files are ZIP archives too. None for a damaged one, of which its reader says so."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
        return None
    if any(name.startswith("xl/") for name in names):
        return "an Excel workbook", _AS_CSV
    if "content.xml" in names:
        return "an OpenDocument file", _AS_CSV
    if any(name.endswith(".npy") for name in names):
        return NPZ, "name it as npz, with the ending .npz"
    return _ZIP, _UNPACK

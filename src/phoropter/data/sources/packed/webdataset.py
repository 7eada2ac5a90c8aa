"""WebDataset shards: tar files whose neighbouring members of one name are the fields of one sample → Dataset.

    000001.jpg  000001.cls  000001.json        data: {shards: "data-{000..003}.tar"}

The picture is the member with the ending of a picture, or the one that `columns: {image: …}` names. Other members and the keys of
`.json` are columns: label (else cls, class, txt), id, group, site, split. Class numbers get their names from classes.txt or
classnames.txt beside the shards. Ids are the samples' names where no two are equal, else `shard/name`.

Nothing is unpacked: members are read where they lie in the tar. Links, devices and sparse members are refused, names are only
compared, and small members are bounded. Left out on purpose: compressed tars, which cannot be read from the middle, and DICOM,
whose identifiers could not be hidden (dicom_names.py).
"""

from __future__ import annotations

import io
import json
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from phoropter.core.columns import clean_name, find_columns
from phoropter.core.errors import DataError, cut_message, join_words
from phoropter.core.storage.foreign_files import TAR
from phoropter.data.dataset import Dataset
from phoropter.data.dicom_file import DICOM_EXTENSIONS
from phoropter.data.folders.scan import IMAGE_EXTENSIONS
from phoropter.data.source import COLUMNS_OPTION, FILE_OPTIONS, PathContents, Source
from phoropter.data.sources.file_hashes import memoize_by_files
from phoropter.data.sources.packed.cells import DICOM_IN_FILE, Cell
from phoropter.data.sources.packed.shard_patterns import list_shards
from phoropter.data.sources.packed.shards import (
    SHARD_COLUMNS,
    PackedShard,
    check_packed_options,
    holds_packed,
    join_shards,
    list_files,
    open_packed,
)
from phoropter.data.stores.shard_names import CLASS_FILES

TAR_ENDINGS = (".tar",)
MAX_FIELD_BYTES = 1024**2
MAX_HEADER_BYTES = 16 * 1024**2
MAX_TEXT = 1000  # letters of a field that are kept
MAX_LABELS = 10_000  # of one sample
_KEY_AND_FIELD = re.compile(r"((?:.*/|)[^./][^./]*)[.]([^/]+)", re.DOTALL)
_LABEL_FIELDS = ("label", "cls", "class", "txt")  # in order
_TEXT_FIELDS = frozenset({"cls", "class", "txt", "text", "label", "id", "index", "group", "site", "split"})
_DAMAGE = (tarfile.TarError, OSError, EOFError, ValueError, KeyError, OverflowError)


def open_webdataset(
    path: Path,
    *,
    columns: Mapping[str, str] | None = None,
    multi_label: bool = False,
    on_bad_input: str = "stop",
    name: str | None = None,
) -> Dataset:
    """A tar, a folder of tars, or a pattern such as `data-{000..003}.tar` → Dataset.

    columns: our name → the ending or the key of the .json, where they differ
    multi_label: the label of a sample is a list in its .json
    Raises DataError for a missing shard, a sample without a picture or with several, and as every source of shards.
    """
    files, root = list_shards(path, TAR_ENDINGS)
    read = [_read_samples(file, dict(columns or {})) for file in files]
    keys = Counter(sample.key for samples in read for sample in samples)
    whole = all(count == 1 for count in keys.values())
    names = _read_class_names(root if root.is_dir() else root.parent)
    shards = [_make_shard(file, samples, dict(columns or {}), names, whole) for file, samples in zip(files, read, strict=True)]
    return join_shards(shards, root, name, on_bad_input, multi_label)


@dataclass(frozen=True)
class TarCells:
    """The pictures of a tar. members: (name, offset, size) of each · column: which member of a sample"""

    file: Path
    column: str
    members: tuple[tuple[str, int, int], ...]

    def name_row(self, row: int) -> str:
        """`data-000.tar, 000001.jpg`."""
        return f"{self.file.name}, {self.members[row][0]}"

    def read_block(self, row: int) -> tuple[int, int, Sequence[Cell]]:
        """The one row. Raises DataError for a shortened file."""
        try:
            with self.file.open("rb") as file:
                return row, row + 1, [self._read_member(file, row)]
        except OSError as error:
            raise DataError(f"{self.file.name} cannot be read: {error.strerror or error}") from None

    def iterate_cells(self) -> Iterator[Cell]:
        """All pictures in order."""
        try:
            with self.file.open("rb") as file:
                for row in range(len(self.members)):
                    yield self._read_member(file, row)
        except OSError as error:
            raise DataError(f"{self.file.name} cannot be read: {error.strerror or error}") from None

    def _read_member(self, file: io.BufferedReader, row: int) -> bytes:
        _, offset, size = self.members[row]
        file.seek(offset)
        content = file.read(size)
        if len(content) != size:
            raise DataError(f"{self.name_row(row)}: the file has become shorter since it was opened; copy it again")
        return content


@dataclass(slots=True)
class _Sample:
    """Members of one name. pictures: ending → (offset, size) · fields: other members and the keys of .json, by name"""

    key: str
    pictures: dict[str, tuple[int, int]] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)


def _read_samples(file: Path, columns: dict[str, str]) -> list[_Sample]:
    """The samples of a tar, in order, from the first time on that it is opened, since going through it takes 0.1 ms a member.

    Raises DataError as `_scan_samples`.
    """
    wanted = sorted({clean_name(theirs).casefold() for theirs in columns.values()})
    found: list[_Sample] | None = None

    def write_index() -> bytes:
        nonlocal found
        found = _scan_samples(file, set(wanted))
        return zlib.compress(json.dumps([[one.key, one.pictures, one.fields] for one in found]).encode(), 1)

    index = memoize_by_files([file], f"samples-1 {wanted}", write_index)
    if found is None:
        rows = json.loads(zlib.decompress(index))
        found = [_Sample(key, {ending: (at, n) for ending, (at, n) in held.items()}, fields) for key, held, fields in rows]
    return found


def _scan_samples(file: Path, wanted: set[str]) -> list[_Sample]:
    """The samples of a tar, in order; only small members are read. Raises DataError for members that are no plain files."""
    samples: list[_Sample] = []
    size = file.stat().st_size
    for member, opened in _iterate_members(file):
        if member.isdir():
            continue
        if not member.isreg() or member.issparse():
            raise DataError(f"{file.name}, {member.name[:100]}: the member is a link, a device or sparse; expected plain files")
        matched = _KEY_AND_FIELD.fullmatch(member.name.removeprefix("./"))
        if matched is None or matched[1].rpartition("/")[2].startswith("__"):  # of no sample: a README, shard metadata
            continue
        if member.offset_data + member.size > size:
            raise DataError(f"{file.name} is cut off at {member.name[:100]}; download it again")
        key, ending = matched[1], matched[2].casefold()
        if not samples or samples[-1].key != key:
            samples.append(_Sample(key))
        _add_member(samples[-1], ending, member, opened, f"{file.name}, {member.name[:100]}", wanted)
    return samples


def _iterate_members(file: Path) -> Iterator[tuple[tarfile.TarInfo, Any]]:
    """(member, the tar as a file) in order. Raises DataError for a damaged tar."""
    try:
        with file.open("rb") as raw:
            bounded = _BoundedReader(raw)
            with tarfile.open(fileobj=bounded, mode="r:") as tar:  # type: ignore[call-overload]
                while (member := tar.next()) is not None:
                    tar.members = []  # a shard may have millions, and none is asked for again
                    yield member, raw
                raw.seek(tar.offset)
                if raw.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise DataError(f"{file.name} is cut off: the end mark of a tar is missing; download it again")
    except DataError:
        raise
    except _DAMAGE as error:
        reason = cut_message(error, 100)
        raise DataError(
            f"{file.name} is damaged or no plain tar ({reason}); a compressed one must be unpacked to .tar first"
        ) from None


class _BoundedReader:
    """A file for tarfile, whose extended headers say themselves how long they are."""

    def __init__(self, file: io.BufferedReader) -> None:
        self.file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """At most MAX_HEADER_BYTES. Raises ValueError for more."""
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise ValueError(f"a header of {size:,} bytes")
        return self.file.read(size)


def _add_member(sample: _Sample, ending: str, member: tarfile.TarInfo, opened: Any, place: str, wanted: set[str]) -> None:
    if ending in sample.pictures or ending in sample.fields:
        raise DataError(f"{place}: the sample has two members of this ending; pack it again")
    last = f".{ending.rpartition('.')[2]}"
    if last in DICOM_EXTENSIONS:
        raise DataError(f"{place.partition(',')[0]}: {DICOM_IN_FILE}")
    if last in IMAGE_EXTENSIONS:
        sample.pictures[ending] = (member.offset_data, member.size)
        return
    if ending != "json" and ending not in _TEXT_FIELDS | wanted:
        return
    if member.size > MAX_FIELD_BYTES:
        raise DataError(f"{place}: the member has {member.size:,} bytes; fields of up to {MAX_FIELD_BYTES:,} bytes are read")
    at = opened.tell()
    opened.seek(member.offset_data)
    content = opened.read(member.size)
    opened.seek(at)
    if ending == "json":
        _add_json(sample, content, place, wanted)
    else:
        sample.fields[ending] = _decode_text(content, place)


def _add_json(sample: _Sample, content: bytes, place: str, wanted: set[str]) -> None:
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        raise DataError(f"{place}: the member is no JSON; expected an object of names and values") from None
    if not isinstance(values, dict):
        raise DataError(f"{place}: the JSON is {type(values).__name__}, expected an object of names and values")
    for key, value in values.items():
        if isinstance(value, list) and key.casefold() in {*_LABEL_FIELDS, *wanted}:  # of several labels
            sample.fields.setdefault(key, [v[:MAX_TEXT] if isinstance(v, str) else v for v in value[:MAX_LABELS]])
        elif isinstance(value, (str, int, float, bool)) or value is None:
            sample.fields.setdefault(key, value[:MAX_TEXT] if isinstance(value, str) else value)


def _decode_text(content: bytes, place: str) -> str:
    try:
        return content.decode("utf-8-sig").strip()[:MAX_TEXT]
    except UnicodeDecodeError:
        raise DataError(f"{place}: the member is not UTF-8 text") from None


def _make_shard(
    file: Path, samples: list[_Sample], columns: dict[str, str], names: tuple[str, ...] | None, whole: bool
) -> PackedShard:
    """whole: whether a sample's name alone is its id."""
    image = clean_name(columns.pop("image")).casefold() if "image" in columns else None
    header = list(dict.fromkeys(key for sample in samples for key in sample.fields))
    found = find_columns(file.name, header, SHARD_COLUMNS[1:], columns)
    usual = next((header.index(word) for word in _LABEL_FIELDS if word in header), None)
    if "label" not in found and usual is not None:
        found["label"] = usual
    if "label" not in found and samples:
        if folders := sorted({sample.key.rpartition("/")[0].rpartition("/")[2] for sample in samples} - {""}):
            raise DataError(
                f"{file.name} has no label, and its pictures lie in folders ({join_words(folders, 3)}): if these are classes, "
                "unpack it and name the folder"
            )
        there = join_words([*header, *dict.fromkeys(e for s in samples for e in s.pictures)], 8)
        raise DataError(
            f"{file.name} has no label; expected members .cls, .txt or .json with a label; it has {there}; name it with "
            "columns: {label: NAME}"
        )
    values = {ours: [sample.fields.get(header[at]) for sample in samples] for ours, at in found.items()}
    if "id" not in values:
        values["id"] = [sample.key if whole else f"{file.stem}/{sample.key}" for sample in samples]
    members = []
    for sample in samples:
        ending = _choose_picture(sample, image, file)
        members.append((f"{sample.key}.{ending}", *sample.pictures[ending]))
    unread = tuple(name for at, name in enumerate(header) if at not in found.values())
    return PackedShard(TarCells(file, image or "picture", tuple(members)), len(samples), names, values, unread=unread)


def _choose_picture(sample: _Sample, image: str | None, file: Path) -> str:
    """The ending of the sample's picture: the one that is named, the only one, or the only one without another word before it."""
    place = f"{file.name}, {sample.key}"
    there = list(sample.pictures)
    if image is not None:
        if image not in sample.pictures:
            raise DataError(f"{place}: the sample has no picture .{image} (columns.image); it has {join_words(there) or 'none'}")
        return image
    plain = there if len(there) == 1 else [ending for ending in there if "." not in ending]
    if len(plain) != 1:
        what = f"{len(there)} pictures ({join_words(there)})" if there else "no picture"
        raise DataError(
            f"{place}: the sample has {what}, expected one; name its ending with columns: {{image: jpg}}, or pack it again"
        )
    return plain[0]


def _read_class_names(folder: Path) -> tuple[str, ...] | None:
    """Names by number, a line each, of the first of the usual files beside the shards."""
    for name in CLASS_FILES:
        file = folder / name
        if file.is_file() and file.stat().st_size <= MAX_FIELD_BYTES:
            lines = _decode_text_lines(file)
            return tuple(clean_name(line) for line in lines if line.strip()) or None
    return None


def _decode_text_lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise DataError(f"{file}: the names of classes are not readable as UTF-8 text; save the file again") from None


def _holds_samples(contents: PathContents) -> bool:
    """Whether the first members of the first tar are fields of samples: pictures beside other members of one name."""
    if not holds_packed(contents, TAR_ENDINGS):
        return False
    endings: dict[str, set[str]] = {}
    with suppress(DataError):  # of a tar that is cut off the first members tell
        first = list_files(contents.path, TAR_ENDINGS, "tar")[0]
        for member, _ in islice(_iterate_members(first), 50):
            if member.isreg() and (matched := _KEY_AND_FIELD.fullmatch(member.name.removeprefix("./"))):
                endings.setdefault(matched[1], set()).add(matched[2].casefold())
    known = (*IMAGE_EXTENSIONS, *DICOM_EXTENSIONS)
    pictures = {f".{e.rpartition('.')[2]}" in known for own in endings.values() for e in own}
    return True in pictures and any(len(own) > 1 for own in endings.values())


WEBDATASET_SOURCE = Source(
    "shards",
    open_packed(open_webdataset),
    "WebDataset: a tar, a folder of tars, or a pattern such as `data-{000..003}.tar`, whose members of one name are a sample",
    formats=(TAR,),
    options=(COLUMNS_OPTION,),
    uses=(*FILE_OPTIONS, "multi_label"),
    check=check_packed_options(),
    detect=_holds_samples,
)

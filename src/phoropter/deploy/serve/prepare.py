"""Uploaded files → what a network is shown, by the functions that files of a study go through, under the server's limits.

Pictures are decoded from memory. Recordings are read by libraries that want files: theirs are written to a temporary folder that
is gone before the request is computed. A picture's pixels are counted by its header before it is decoded; a recording's length
is known when it is read, and its header is asked before. Manifests and pickles are refused: they name files of the machine, or
are programs.
"""

from __future__ import annotations

import hashlib
import io
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from phoropter.core.errors import DataError, PhoropterError, join_words
from phoropter.core.files import temporary_folder
from phoropter.core.text_table import peek_table
from phoropter.data.dataset import UNLABELLED, Dataset
from phoropter.data.dicom_file import DICOM_EXTENSIONS, is_dicom_head
from phoropter.data.images.decode import HEAD_BYTES, open_image, read_image_size
from phoropter.data.images.options import apply_options
from phoropter.data.recordings.changes import RecordingChanges
from phoropter.data.recordings.files import find_prediction_database, read_recording_paths
from phoropter.deploy.inputs import decode_in_chunks, open_loaded_recordings
from phoropter.deploy.serve.limits import DecodedLedger, DecodedShare, ServeLimits
from phoropter.deploy.serve.served_bundle import ServedBundle
from phoropter.deploy.serve.uploads import Upload
from phoropter.signals.readers.tables import is_manifest
from phoropter.signals.recording import LoadedRecordings, Recording

Squares = NDArray[np.uint8]
_SIGNALS, _COMPANIONS, _TABLES = (".hea", ".edf", ".bdf", ".csv", ".parquet"), (".dat", ".atr"), (".csv", ".parquet")
_JPEG_SIGN, _JPEG_SCAN, _MAX_SCANS = b"\xff\xd8", b"\xff\xda", 100  # a progressive one has about ten
_MAX_COLUMNS, _MAX_NUMBER_BYTES = 1000, 16
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ ()+-]*")


@dataclass(frozen=True, eq=False)
class PreparedInput:
    """One picture or recording, ready to be predicted; or the sentence that says why it cannot be.

    name:    as the client knows it, of DICOM files an opaque one
    dataset: its rows: one picture, or the windows of a recording · squares: (n, 3, S, S) of them
    """

    name: str
    dataset: Dataset | None = None
    squares: Squares | None = None
    error: str = ""


class UploadedPicture:
    """The one picture of an upload, as the storage of a Dataset."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data, self.name = data, name

    def image(self, row: int) -> Image.Image:
        """The picture, upright RGB. Raises DataError naming it."""
        return open_image(self.data, self.name)

    def read(self, row: int) -> Squares:
        """(H, W, 3) uint8."""
        return np.array(self.image(row))

    def identity(self, rows: NDArray[np.int64]) -> str:
        """A digest of the file's bytes."""
        return _digest_bytes(self.data)

    def select(self, rows: NDArray[np.int64]) -> UploadedPicture:
        """Itself: it has one row."""
        return self


def prepare_inputs(
    bundle: ServedBundle, uploads: Sequence[Upload], limits: ServeLimits, share: DecodedShare | None = None
) -> list[PreparedInput]:
    """The pictures or recordings of a request, in its order; what cannot be used has a sentence in place of squares.

    share: that their squares are taken from. Raises RequestRefused where other requests hold what it needs.
    """
    share = share or DecodedShare(DecodedLedger(limits))
    if bundle.takes_recordings:
        return list(_prepare_recordings(bundle, uploads, limits, share))
    return [_prepare_picture(bundle, upload, limits, share) for upload in uploads]


def _prepare_picture(bundle: ServedBundle, upload: Upload, limits: ServeLimits, share: DecodedShare) -> PreparedInput:
    name = show_upload_name(upload)
    share.take_bytes(0, name)  # which ends what was given up
    try:
        _check_picture(upload.data, name, limits)
        picture = UploadedPicture(upload.data, name)
        labels = np.array([UNLABELLED], dtype=np.int64)
        dataset = Dataset("upload", np.array([name]), labels, bundle.predictor.classes, picture)
        dataset = apply_options(dataset, bundle.predictor.data.picture_options)
        return PreparedInput(name, dataset, _decode_squares(bundle, dataset, share, name))
    except PhoropterError as error:
        return PreparedInput(name, error=_tidy(str(error), name))


def _check_picture(data: bytes, name: str, limits: ServeLimits) -> None:
    height, width = read_image_size(io.BytesIO(data), name)
    if height * width > limits.max_pixels:
        raise DataError(
            f"{name}: the header promises {width} × {height} pixels and at most {limits.megapixels:g} million are decoded here; "
            "scale the picture down"
        )
    if data.startswith(_JPEG_SIGN) and data.count(_JPEG_SCAN) > _MAX_SCANS:  # each is a pass over all pixels
        raise DataError(f"{name}: the JPEG has more than {_MAX_SCANS} scans, which takes too long to decode; save it anew")


def show_upload_name(upload: Upload) -> str:
    """A DICOM file's name often is its patient's, so it gets the name that a study would give it."""
    ending = Path(upload.name).suffix.lower()
    if is_dicom_head(upload.data[:HEAD_BYTES]) or ending in DICOM_EXTENSIONS:
        return f"image-{_digest_bytes(upload.data)[:16]}"
    return upload.name


def _digest_bytes(data: bytes) -> str:
    """As the sources of a study hash files: `b2sum -l 128`."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _decode_squares(bundle: ServedBundle, dataset: Dataset, share: DecodedShare, name: str) -> Squares:
    share.take_bytes(len(dataset) * 3 * bundle.square.size**2, name)
    chunks = decode_in_chunks(dataset, bundle.square, "stop", 1)
    return np.concatenate([chunk.pixels.array for chunk in chunks])


def _tidy(sentence: str, name: str, folder: Path | None = None) -> str:
    """Without a folder of this machine and without advice on options that a client does not have."""
    text = sentence.replace(f"{folder}/", "") if folder else sentence
    for advice in ("; or say --on-bad-input skip", "; or say on_bad_input: skip"):
        text = text.replace(advice, "")
    return text if name in text else f"{name}: {text}"


# --- recordings ----------------------------------------------------------------------------------------------------


def _prepare_recordings(
    bundle: ServedBundle, uploads: Sequence[Upload], limits: ServeLimits, share: DecodedShare
) -> Iterator[PreparedInput]:
    """One input for each header or file that holds a whole recording; files that belong to a header stand with it."""
    names = [upload.name for upload in uploads]
    with temporary_folder("serve") as folder:
        for upload in uploads:
            ending, stem = Path(upload.name).suffix.lower(), Path(upload.name).stem
            if ending in _COMPANIONS and f"{stem}.hea" in names:
                continue  # read with its header
            try:
                _check_upload(upload, names, ending)
                files = [upload, *(other for other in uploads if other is not upload and _belongs_to(other, upload))]
                share.take_bytes(0, upload.name)
                recording = _read_upload(bundle, folder, files, limits)
                share.take_bytes(recording.samples.nbytes, upload.name)
                dataset = _cut_recording(bundle, recording, upload.name)
                yield PreparedInput(upload.name, dataset, _decode_squares(bundle, dataset, share, upload.name))
            except PhoropterError as error:
                yield PreparedInput(upload.name, error=_tidy(str(error), upload.name, folder))


def _belongs_to(other: Upload, header: Upload) -> bool:
    """Whether it is a signal file that a WFDB header names, or its annotations."""
    name = Path(header.name)
    return name.suffix.lower() == ".hea" and (
        other.name in _listed_files(header.data) or other.name in {f"{name.stem}{ending}" for ending in _COMPANIONS}
    )


def _listed_files(header: bytes) -> list[str]:
    """The signal files that a WFDB header names, as it spells them."""
    return _first_words(header)[1:]


def _first_words(header: bytes) -> list[str]:
    """Of the lines of a WFDB header that are no comments: the record's name, then its files."""
    lines = [line.strip() for line in header.decode("latin-1").splitlines()]
    return [line.split()[0] for line in lines if line and not line.startswith("#")]


def _check_upload(upload: Upload, names: Sequence[str], ending: str) -> None:
    """Raises DataError for a file that holds no recording, for two of one name, and for a header whose files did not come."""
    if ending in _COMPANIONS:
        raise DataError(f"{upload.name}: a signal file without its header; send {Path(upload.name).stem}.hea with it")
    if ending not in _SIGNALS:
        raise DataError(f"{upload.name}: a recording should end in {join_words(_SIGNALS)}")
    if names.count(upload.name) > 1:
        raise DataError(f"{upload.name}: two files of the request have this name; rename one")
    if not _PLAIN_NAME.fullmatch(upload.name):
        raise DataError(f"{upload.name}: the name of a recording here has letters of ASCII, digits, spaces and ._()+-; rename it")
    if ending == ".hea" and "/" in next(iter(_first_words(upload.data)), ""):
        raise DataError(f"{upload.name}: a record of several segments, which is not read here; send each segment on its own")
    if ending == ".hea":
        for listed in dict.fromkeys(_listed_files(upload.data)):
            if listed not in names or not _PLAIN_NAME.fullmatch(listed):
                raise DataError(f"{upload.name}: its signal file {listed[:60]!r} did not come; send both in one request")


def _read_upload(bundle: ServedBundle, folder: Path, files: Sequence[Upload], limits: ServeLimits) -> Recording:
    """Writes the files of one recording, the first of which is read, and removes them."""
    predictor = bundle.predictor
    assert predictor.recording_view is not None
    with tempfile.TemporaryDirectory(dir=folder) as place:
        for file in files:
            Path(place, file.name).write_bytes(file.data)
        main = Path(place, files[0].name)
        try:
            _check_promise(main, limits, predictor.recording_view.rate_hz)
            database = find_prediction_database(predictor.data, predictor.data.source)
            loaded = read_recording_paths([main], database, predictor.recording_view.rate_hz, "stop")
            recording = loaded.recordings[0]
            _check_length(recording, limits)
            return replace(RecordingChanges.of(predictor.data).apply_one(recording), source=None)
        except PhoropterError as error:
            raise DataError(str(error).replace(f"{place}/", "")) from None


def _check_promise(file: Path, limits: ServeLimits, rate_hz: float) -> None:
    """Raises DataError for a manifest, and for a small file that unpacks to more numbers than the largest body has bytes."""
    ending = file.suffix.lower()
    if ending == ".hea":
        _check_numbers(file, _count_wfdb_numbers(file), limits)
    if ending in _TABLES and is_manifest(file):
        raise DataError(f"{file}: it is a manifest, which names files of this machine; send the recordings themselves")
    if ending == ".parquet":
        _check_parquet(file, limits, rate_hz)
    if ending in _TABLES and (columns := len(peek_table(file)[0])) > _MAX_COLUMNS:
        raise DataError(f"{file}: it has {columns:,} columns, expected at most {_MAX_COLUMNS:,}; send the channels alone")


def _count_wfdb_numbers(file: Path) -> int:
    """Samples of all signals, as wfdb counts them: compressed formats hold many in few bytes. 0 for a header it does not read."""
    try:
        header = import_module("wfdb").rdheader(str(file.with_suffix("")))
        return int(header.sig_len or 0) * int(header.n_sig or 0)
    except Exception:  # of any kind; the reader says what is wrong
        return 0


def _check_parquet(file: Path, limits: ServeLimits, rate_hz: float) -> None:
    """Flat columns of numbers take as much memory as their rows say; texts and lists may take any."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as opened:
            metadata, schema = opened.metadata, opened.schema
            columns = [schema.column(at) for at in range(len(schema))]
            rows = max(metadata.num_rows, sum(metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)))
    except (OSError, ValueError, pa.ArrowException):
        raise DataError(f"{file}: it is no sound Parquet file") from None
    if rows > limits.recording_hours * 3600 * max(rate_hz, 1):
        raise DataError(f"{file}: it has {rows:,} rows, more than {limits.recording_hours:g} hours; cut it")
    _check_numbers(file, rows * len(columns), limits)
    for column in columns:
        if column.physical_type == "BYTE_ARRAY" or column.max_repetition_level or column.length > _MAX_NUMBER_BYTES:
            raise DataError(f"{file}: its column {column.path[:60]!r} holds texts or lists; send the columns of numbers alone")


def _check_numbers(file: Path, numbers: int, limits: ServeLimits) -> None:
    if numbers > limits.max_body_bytes:
        raise DataError(f"{file}: it unpacks to {numbers:,} numbers, expected at most {limits.max_body_bytes:,}; cut it")


def _check_length(recording: Recording, limits: ServeLimits) -> None:
    if recording.duration_s > limits.recording_hours * 3600:
        raise DataError(
            f"recording {recording.id}: it has {recording.duration_s / 3600:.1f} hours, expected at most "
            f"{limits.recording_hours:g}; cut it"
        )


def _cut_recording(bundle: ServedBundle, recording: Recording, name: str) -> Dataset:
    assert bundle.predictor.recording_view is not None
    loaded = LoadedRecordings([recording], [])
    return open_loaded_recordings(loaded, bundle.predictor.recording_view, bundle.predictor.classes, "stop", name)

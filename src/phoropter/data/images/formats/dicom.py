"""DICOM files: header facts and the pixels of one frame, as a viewer would show them (by pydicom, the extra `medical`).

Greys: stored values → modality transformation (rescale slope and intercept, or a table) → the window: that of `data.intensity`,
else the file's table or window (DICOM PS3.3 C.11.2), else the range that the header gives its bits. MONOCHROME1 is inverted at
the end. Colours: RGB, the YBR spaces and palettes → RGB.

No text of a header or of pydicom enters a message: both may hold what names a patient.
Left out on purpose: presentation states, overlays, colour profiles, and deflated files, whose size is not known before unpacking.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from phoropter.core.errors import DataError, MissingExtraError, PhoropterError
from phoropter.data.images.intensity import scale_to_uint8
from phoropter.data.images.options import active_options, check_pixel_count, choose_channels, choose_page
from phoropter.data.images.quiet import QuietPackages

MAX_META_BYTES = 1024**2
MAX_READS = 1_000_000  # of one file, about two an element
_DEFLATED = "1.2.840.10008.1.2.1.99"
_JPEG_SYNTAXES, _JPEG_SCAN, _MAX_SCANS = ("1.2.840.10008.1.2.4.5", "1.2.840.10008.1.2.4.70"), b"\xff\xda", 100
_LONG_LENGTH = (b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV")
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_420", "YBR_PARTIAL_422")


@dataclass(frozen=True)
class DicomFacts:
    """What a header says about whom and where, for grouping only: it must not be written anywhere.

    patient, exam, institution: "" where the header has none · names: other words for the patient · burnt_in: whether the header
    says that text is part of the pixels · face: that the patient may be recognised
    """

    patient: str
    exam: str
    institution: str
    names: tuple[str, ...]
    burnt_in: bool
    face: bool


def open_dicom(file: BinaryIO, name: str) -> Image.Image:
    """An open DICOM file → an RGB Image. Raises DataError, without a word of the header, for what cannot be read."""
    with _quiet_pydicom, _report_damage(name):
        return _open_frame(_read_dataset(file, name, stop_before_pixels=False), name)


def _open_frame(header: Any, name: str) -> Image.Image:
    height, width = _check_size(header, name)
    frame = choose_page(max(1, _number(header, "NumberOfFrames", 1)), name, "frames")
    kind = str(header.get("PhotometricInterpretation", "")).strip().upper()
    if kind not in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", *_COLOURS):
        raise DataError(f"{name}: the DICOM header does not say what its pixels mean; expected grey, RGB, YBR or a palette")
    values = _decode_frame(header, frame, name)
    if kind in _COLOURS:
        picture = _scale_bits(values, _number(header, "BitsStored", 8))
    elif kind == "PALETTE COLOR":
        picture = _look_up_colours(values, header)
    else:
        grey = _window_greys(values, header, name)
        picture = 255 - grey if kind == "MONOCHROME1" else grey
    if picture.shape[:2] != (height, width):
        raise DataError(f"{name}: the pixels have another size than the header says; export the file again or remove it")
    if active_options().channels:
        picture = choose_channels(picture, name)
    if picture.ndim == 3 and active_options().window != "auto":
        picture = scale_to_uint8(picture, name)
    return Image.fromarray(np.ascontiguousarray(picture)).convert("RGB")


def read_dicom_size(file: BinaryIO, name: str) -> tuple[int, int]:
    """(height, width) from the header. Raises DataError where it says none."""
    with _quiet_pydicom, _report_damage(name):
        return _check_size(_read_dataset(file, name, stop_before_pixels=True), name)


def read_dicom_facts(path: Path, name: str) -> DicomFacts:
    """Whom, where and what a header says of its file. Raises DataError naming `name`."""
    tags = ["PatientID", "IssuerOfPatientID", "PatientName", "OtherPatientNames", "StudyInstanceUID", "InstitutionName"]
    tags += ["BurnedInAnnotation", "RecognizableVisualFeatures", "SpecificCharacterSet"]
    try:
        with path.open("rb") as file, _quiet_pydicom, _report_damage(name):
            header = _read_dataset(file, name, stop_before_pixels=True, tags=tags)
            return DicomFacts(
                patient=_text(header, "PatientID"),
                exam=_text(header, "StudyInstanceUID"),
                institution=_text(header, "InstitutionName"),
                names=tuple(filter(None, (_text(header, "PatientName"), _text(header, "OtherPatientNames")))),
                burnt_in=_text(header, "BurnedInAnnotation").upper() == "YES",
                face=_text(header, "RecognizableVisualFeatures").upper() == "YES",
            )
    except OSError as error:
        raise DataError(f"{name}: the file cannot be read: {error.strerror or type(error).__name__}") from None


@contextmanager
def _report_damage(name: str) -> Iterator[None]:
    """Whatever pydicom raises in its body, which depends on the place of the damage → a DataError that quotes nothing."""
    try:
        yield
    except PhoropterError:
        raise
    except MemoryError:
        raise DataError(f"{name}: decoding needs more memory than is free") from None
    except Exception as error:
        raise DataError(
            f"{name}: the DICOM file is damaged or cut off ({type(error).__name__}); export it again or remove it"
        ) from None


def _read_dataset(file: BinaryIO, name: str, stop_before_pixels: bool, tags: list[str] | None = None) -> Any:
    try:
        import pydicom
    except ImportError:
        raise MissingExtraError("pydicom", "medical", f"{name}: a DICOM file") from None
    syntax = _read_transfer_syntax(file, name)
    if syntax == _DEFLATED:
        raise DataError(f"{name}: the DICOM file is deflated, which is not unpacked; export it uncompressed or as JPEG 2000")
    file.seek(0)
    counted = _CountedReads(file)
    try:
        found = pydicom.dcmread(counted, stop_before_pixels=stop_before_pixels, specific_tags=tags)
    finally:
        if counted.reads > MAX_READS:
            raise DataError(f"{name}: the DICOM header has more elements than any picture's; export the file again")
    for key in ("ModalityLUTSequence", "VOILUTSequence"):  # unpacked when they are asked for
        if key in found and (getattr(found.get_item(key), "length", 0) or 0) > MAX_META_BYTES:
            raise DataError(f"{name}: a table of values of the DICOM header is impossibly long; export the file again")
    return found


class _CountedReads:
    """An open file of which MAX_READS pieces are read: millions of empty elements in a small file would take many minutes."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.reads = file, 0
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    def read(self, size: int = -1) -> bytes:
        """Nothing, as at the end of the file, after too many."""
        self.reads += 1
        return self.file.read(size) if self.reads <= MAX_READS else b""


def _read_transfer_syntax(file: BinaryIO, name: str) -> str:
    """The transfer syntax of an open file, from group 2, which is always explicit and little-endian (PS3.10 7.1)."""
    file.seek(132)
    head = file.read(MAX_META_BYTES)
    at = 0
    try:
        while struct.unpack_from("<H", head, at)[0] == 2:
            element, kind = struct.unpack_from("<H2s", head, at + 2)
            long = kind in _LONG_LENGTH
            (length,) = struct.unpack_from("<I", head, at + 8) if long else struct.unpack_from("<H", head, at + 6)
            at += 12 if long else 8
            if element == 0x10:
                return head[at : at + length].rstrip(b"\0 ").decode("ascii", "replace")
            at += length
    except struct.error:
        pass
    raise DataError(f"{name}: the DICOM file names no transfer syntax, so its pixels cannot be read; export it again")


def _check_size(header: Any, name: str) -> tuple[int, int]:
    height, width = _number(header, "Rows"), _number(header, "Columns")
    if height < 1 or width < 1:
        raise DataError(f"{name}: the DICOM file holds no picture (a report, a plan or an index); leave it out")
    check_pixel_count(height * width, name)
    return height, width


def _decode_frame(header: Any, frame: int, name: str) -> NDArray[Any]:
    """(H, W) or (H, W, 3) stored values, colours as RGB."""
    from pydicom.pixels import pixel_array

    if "PixelData" not in header and "FloatPixelData" not in header and "DoubleFloatPixelData" not in header:
        raise DataError(f"{name}: the DICOM file holds no pixels; leave it out")
    if str(header.file_meta.TransferSyntaxUID).startswith(_JPEG_SYNTAXES):
        scans = header.PixelData.count(_JPEG_SCAN) if "PixelData" in header else 0
        if scans > _MAX_SCANS * max(1, _number(header, "NumberOfFrames", 1)):  # each is a pass over all pixels
            raise DataError(f"{name}: its JPEG has more scans than can be decoded in a sensible time; export it again")
    try:
        return np.asarray(pixel_array(header, index=frame))
    except MemoryError:
        raise
    except Exception as error:
        syntax = header.file_meta.TransferSyntaxUID
        if not syntax.is_private and syntax.is_compressed and not _can_decode(syntax):
            raise DataError(
                f"{name}: no decoder for its compression ({syntax.name}) is installed; install pylibjpeg with its plugins, "
                "which pydicom uses, or export it uncompressed"
            ) from None
        raise DataError(
            f"{name}: the pixels of the DICOM file are damaged or cut off ({type(error).__name__}); export it again or remove it"
        ) from None


def _can_decode(syntax: Any) -> bool:
    from pydicom.pixels import get_decoder

    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:
        return False


def _window_greys(values: NDArray[Any], header: Any, name: str) -> NDArray[np.uint8]:
    """Stored values → 0..255 by the modality transformation and the window, before any inversion."""
    from pydicom.pixels import apply_modality_lut, apply_voi

    stored_bits, signed = _number(header, "BitsStored", 16), _number(header, "PixelRepresentation", 0) == 1
    slope, intercept = _decimal(header, "RescaleSlope", 1.0), _decimal(header, "RescaleIntercept", 0.0)
    table = bool(header.get("ModalityLUTSequence"))
    plain = not table and (slope, intercept) == (1.0, 0.0)
    meant = values if plain else np.asarray(apply_modality_lut(values, header))
    if active_options().window != "auto":
        return scale_to_uint8(meant, name)
    if header.get("VOILUTSequence"):
        looked_up = apply_voi(np.rint(meant).astype(np.int64), header)
        return _scale_bits(looked_up, int(header.VOILUTSequence[0].LUTDescriptor[2]))
    if (window := _file_window(header)) is not None:
        return _apply_file_window(meant, *window)
    if table:
        return _scale_bits(meant, int(header.ModalityLUTSequence[0].LUTDescriptor[2]))
    if meant.dtype.kind == "f" and plain:
        return scale_to_uint8(meant, name)
    if plain and not signed and stored_bits >= 16:  # the header says 16 also where a camera has 12
        return scale_to_uint8(meant, name)
    low, high = (-(2 ** (stored_bits - 1)), 2 ** (stored_bits - 1) - 1) if signed else (0, 2**stored_bits - 1)
    ends = sorted((low * slope + intercept, high * slope + intercept))
    return _scale_range(meant, ends[0], ends[1])


def _file_window(header: Any) -> tuple[float, float, str] | None:
    """(centre, width, function) of the first window in the file."""
    centre, width = (_decimal(header, key, None) for key in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None:
        return None
    function = str(header.get("VOILUTFunction") or "LINEAR").strip().upper()
    return (centre, width, function) if width >= (1 if function == "LINEAR" else 1e-12) else None


def _apply_file_window(values: NDArray[Any], centre: float, width: float, function: str) -> NDArray[np.uint8]:
    """The window of PS3.3 C.11.2.1.2 and C.11.2.1.3, with an output of 0 to 255."""
    if function == "SIGMOID":
        shown = 255 / (1 + np.exp(np.clip(-4 * (values.astype(np.float64) - centre) / width, -700, 700)))
        return np.rint(shown).astype(np.uint8)
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    return _scale_range(values, centre - width / 2, centre + width / 2)


def _scale_range(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """low or less → 0, high or more → 255; a range of no width is a threshold."""
    wide = values.astype(np.float64)
    shares: NDArray[np.float64] = np.where(wide > high, 1.0, 0.0) if high <= low else np.clip((wide - low) / (high - low), 0, 1)
    return np.asarray(np.rint(shares * 255), dtype=np.uint8)


def _scale_bits(values: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Whole numbers of so many bits → 0..255."""
    if bits == 8:
        return np.asarray(values, dtype=np.uint8)
    return _scale_range(values, 0, 2**bits - 1)


def _look_up_colours(values: NDArray[Any], header: Any) -> NDArray[np.uint8]:
    from pydicom.pixels import apply_color_lut

    colours = np.asarray(apply_color_lut(values, header))[..., :3]
    return _scale_bits(colours, 8 * colours.dtype.itemsize)


def _number(header: Any, key: str, default: int = 0) -> int:
    try:
        return int(header.get(key) or default)
    except Exception:  # a value of another kind, which pydicom converts when it is asked for
        return default


def _decimal(header: Any, key: str, default: float | None) -> Any:
    """The number of a key, the first where it has several; the default where it has none."""
    try:
        value = header.get(key)
        value = value[0] if hasattr(value, "__len__") and not isinstance(value, (str, bytes)) and len(value) else value
        number = float(value)
        return number if np.isfinite(number) else default
    except Exception:
        return default


def _text(header: Any, key: str) -> str:
    try:
        return " ".join(str(header.get(key) or "").split())
    except Exception:
        return ""


_quiet_pydicom = QuietPackages(r"(PIL|pydicom|phoropter\.data\.images)\b", "pydicom")  # both would quote values of headers

"""Decoding of picture files into upright sRGB pixels, and resizing into the square that is stored.

Whatever a camera, scanner or screenshot tool writes becomes (H, W, 3) uint8: EXIF orientation is applied, palettes and grey are
converted to RGB, transparency is composited on white, CMYK converted to RGB, 16 bits scaled to 8. A file that cannot be decoded
raises a DataError that names the picture and describes its contents; a header with too many pixels is refused before decoding.

Left out on purpose: colour profiles and gamma, which the training pipelines of the public backbones ignore too; JPEG's coarse
decoding (`draft`), which is faster on large photographs but gives other pixels; formats that Pillow passes to other programs
(EPS) or that are no pictures (PDF, icons, fonts).
"""

from __future__ import annotations

import io
import threading
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from phoropter.core.errors import DataError
from phoropter.core.files import format_bytes

MAX_PIXELS = 100_000_000
MAX_BYTES = 512 * 1024**2
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000")
WHITE = (255, 255, 255, 255)

ResizeMode = Literal["center-crop", "stretch", "pad"]
Interpolation = Literal["bicubic", "bilinear"]


@dataclass(frozen=True)
class SquareResize:
    """How a picture of any shape becomes S×S pixels: the options of `data:` on which the stored pixels depend.

    size: S, the side in pixels
    resize: `center-crop` scales the short side to S and keeps the centre; `stretch` ignores proportions; `pad` scales the long
            side to S and fills with black
    """

    size: int
    resize: ResizeMode = "center-crop"
    interpolation: Interpolation = "bicubic"

    def resize_image(self, image: NDArray[np.uint8] | Image.Image) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 or an RGB Image → (3, S, S) uint8. Antialiased; a picture that is S×S already keeps its pixels."""
        picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
        if self.resize == "pad":
            square = self._pad_to_square(picture)
        else:
            box = self._centre_crop_box(picture) if self.resize == "center-crop" else None
            square = self._scale_image(picture, (self.size, self.size), box)
        return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))

    def _centre_crop_box(self, picture: Image.Image) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) of the part of the picture that fills the square.

        Scaling only this part equals scaling the picture and cropping, up to rounding, without the enormous intermediate of a
        1×10,000 picture. Lengths are truncated and offsets rounded as in torchvision.
        """
        short = min(picture.size)
        box = []
        for length in picture.size:
            scaled = int(self.size * length / short)
            start = round((scaled - self.size) / 2.0)
            box.append((start * length / scaled, min((start + self.size) * length / scaled, length)))
        (left, right), (top, bottom) = box
        return left, top, right, bottom

    def _pad_to_square(self, picture: Image.Image) -> Image.Image:
        long = max(picture.size)
        width, height = (max(1, round(self.size * length / long)) for length in picture.size)
        out = Image.new("RGB", (self.size, self.size))
        out.paste(self._scale_image(picture, (width, height), None), ((self.size - width) // 2, (self.size - height) // 2))
        return out

    def _scale_image(
        self, picture: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float] | None
    ) -> Image.Image:
        if picture.size == size:
            return picture
        return picture.resize(size, _RESAMPLING_FILTERS[self.interpolation], box=box)


def open_image_file(path: Path, name: str) -> Image.Image:
    """A picture file → an RGB Image, upright. Raises DataError naming `name` when it cannot be."""
    try:
        with path.open("rb") as file:
            return open_image(file, name)
    except OSError as error:
        raise DataError(f"{name}: the file cannot be read: {error.strerror or error}") from None


def decode_image(source: BinaryIO | bytes, name: str) -> NDArray[np.uint8]:
    """An open picture file or its bytes → (H, W, 3) uint8, upright sRGB. Raises DataError naming `name` when it cannot be."""
    return np.array(open_image(source, name))


def open_image(source: BinaryIO | bytes, name: str) -> Image.Image:
    """As `decode_image`, but returns an RGB Image, without copying the pixels into an array."""
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    head = _read_head(file, name)
    with pillow_warnings_ignored:
        try:
            with Image.open(file, formats=_supported_formats()) as image:
                _check_pixel_count(image.width * image.height, name)
                if 0 in image.size:
                    raise DataError(f"{name}: the picture has no pixels ({image.width}×{image.height}); remove it")
                image.load()
                return convert_to_rgb(_apply_exif_orientation(image), name)
        except DataError:
            raise
        except Image.DecompressionBombError:
            _check_pixel_count(MAX_PIXELS + 1, name)
            raise
        except UnidentifiedImageError:
            raise DataError(f"{name}: not a picture that can be read: {_guess_content(head)}") from None
        except MemoryError:
            raise DataError(f"{name}: decoding needs more memory than is free") from None
        except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, zlib.error, ValueError, ...
            raise DataError(
                f"{name}: the picture is damaged or cut off ({_shorten_message(error)}); download it again or remove it"
            ) from None


def read_image_size(source: BinaryIO, name: str) -> tuple[int, int]:
    """(height, width) as stored, from the header alone. Raises DataError when there is no such header."""
    head = _read_head(source, name)
    with pillow_warnings_ignored:
        try:
            with Image.open(source, formats=_supported_formats()) as image:
                return image.height, image.width
        except Image.DecompressionBombError:
            _check_pixel_count(MAX_PIXELS + 1, name)
            raise
        except Exception:
            raise DataError(f"{name}: not a picture that can be read: {_guess_content(head)}") from None


@cache
def _supported_formats() -> tuple[str, ...]:
    """The FORMATS that this build of Pillow can open. Loads all plugins first."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _read_head(file: BinaryIO, name: str) -> bytes:
    size = file.seek(0, io.SEEK_END)
    if size == 0:
        raise DataError(f"{name}: the file is empty (0 bytes); download it again or remove it")
    if size > MAX_BYTES:
        raise DataError(f"{name}: the file has {format_bytes(size)}; pictures of up to {format_bytes(MAX_BYTES)} are read")
    file.seek(0)
    head = file.read(64)
    file.seek(0)
    return head


def _check_pixel_count(pixels: int, name: str) -> None:
    if pixels > MAX_PIXELS:
        raise DataError(
            f"{name}: the header promises more than {MAX_PIXELS // 10**6} million pixels, which is refused before decoding; "
            "scale the picture down or remove it"
        )


def _apply_exif_orientation(image: Image.Image) -> Image.Image:
    try:
        turn = _EXIF_TRANSPOSES.get(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # a damaged EXIF block: the pixels are good, the orientation is unknown
        turn = None
    return image if turn is None else image.transpose(turn)


def convert_to_rgb(image: Image.Image, name: str) -> Image.Image:
    """An Image of any mode → RGB: transparency on white, 16-bit and float grey scaled by the full range of the type."""
    if image.mode[0] in "IF":  # I;16, I;16B, I, F: Pillow's own conversion to 8 bits would clip instead of scale
        image = Image.fromarray(_scale_to_uint8(np.asarray(image), name))
    elif image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _scale_to_uint8(values: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """16-bit and float grey → 0..255, by the range of the type, not of the picture, so that equal greys stay equal."""
    if values.dtype.kind == "f":
        if not bool(((values >= 0) & (values <= 1)).all()):
            raise DataError(
                f"{name}: floating-point pixels must lie in 0..1 to have a brightness; convert the picture to 8 or 16 bits"
            )
        return np.rint(values.astype(np.float64) * 255).astype(np.uint8)
    wide = values.astype(np.int64)
    if wide.min() < 0 or wide.max() > 65535:
        raise DataError(f"{name}: 32-bit pixels have no agreed brightness; convert the picture to 8 or 16 bits")
    return ((wide * 255 + 32767) // 65535).astype(np.uint8)


def _guess_content(head: bytes) -> str:
    """Describes the contents of a file that is no picture, for messages."""
    start = head.lstrip().lower()
    for sign, what in _FILE_SIGNATURES.items():
        if start.startswith(sign):
            return what
    if not any(byte < 9 or 13 < byte < 32 for byte in head):
        return "its contents are text"
    return f"its contents are none of {', '.join(FORMATS)}"


def _shorten_message(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text if len(text) <= 80 else text[:77] + "..."


class _PillowWarningFilter:
    """Suppresses Pillow's warnings while any thread decodes.

    Filters belong to the process, so the first thread that enters sets them and the last one that leaves restores them; a
    `catch_warnings` in each thread would leave them changed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._saved_filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._depth += 1
            if self._depth == 1:
                self._saved_filters = warnings.catch_warnings()
                self._saved_filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._saved_filters.__exit__(None, None, None)


pillow_warnings_ignored = _PillowWarningFilter()
_RESAMPLING_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_ORIENTATION_TAG = 0x0112
_EXIF_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FILE_SIGNATURES = {
    b"version https://git-lfs": "it is a Git LFS pointer; download the picture itself with git lfs pull",
    b"<!doctype": "it is a web page, probably a failed download",
    b"<html": "it is a web page, probably a failed download",
    b"<svg": "it is an SVG drawing; convert it to PNG",
    b"%pdf": "it is a PDF document; convert its pages to PNG",
    b"pk\x03\x04": "it is a ZIP archive; unpack it first",
}

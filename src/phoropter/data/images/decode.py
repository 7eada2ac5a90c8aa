"""Decoding of picture files into upright sRGB pixels, and resizing into the square that is stored.

Whatever a camera, scanner or screenshot tool writes becomes (H, W, 3) uint8: EXIF orientation is applied, palettes and grey are
converted to RGB, transparency is composited on white, CMYK converted to RGB, deep greys scaled to 8 bits (intensity.py); of a
TIFF one page is read, of a DICOM file one frame (formats/), of an animation the first picture. A file that cannot be decoded
raises a DataError that names the picture and describes its contents; a header with too many pixels is refused before decoding.

Left out on purpose: colour profiles and gamma, which the training pipelines of the public backbones ignore too; JPEG's coarse
decoding (`draft`), which is faster on large photographs but gives other pixels; formats that Pillow passes to other programs
(EPS) or that are no pictures (PDF, icons, fonts).
"""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError, features

from phoropter.core.errors import DataError
from phoropter.core.files import format_bytes
from phoropter.data.dicom_file import is_dicom_head, may_be_dicom
from phoropter.data.images.formats.dicom import open_dicom, read_dicom_size
from phoropter.data.images.formats.tiff import (
    TIFF_SIGNS,
    describe_tiff,
    is_negative,
    needs_tifffile,
    read_pillow_samples,
    read_tiff_channels,
    read_tiff_greys,
    read_tiff_size,
    select_tiff_page,
)
from phoropter.data.images.intensity import scale_to_uint8, show_values
from phoropter.data.images.options import MAX_PIXELS, active_options, check_pixel_count, choose_channels
from phoropter.data.images.quiet import QuietPackages

MAX_BYTES = 512 * 1024**2
HEAD_BYTES = 160  # of a file, to tell what it is; a DICOM names itself after 128
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")
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
            if not may_be_dicom(path.name) and is_dicom_head(file.read(HEAD_BYTES)):  # its identifiers would not be hidden
                raise DataError(f"{name}: it is a DICOM file by its contents; give it the suffix .dcm")
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
    if is_dicom_head(head):
        return open_dicom(file, name)
    if head.startswith(TIFF_SIGNS) and active_options().channels:
        return show_values(read_tiff_channels(file, name), name)
    if head.startswith(TIFF_SIGNS) and needs_tifffile(file):
        return _open_tiff_greys(file, name)
    with pillow_warnings_ignored:
        try:
            with Image.open(file, formats=_supported_formats()) as image:
                check_pixel_count(image.width * image.height, name)
                select_tiff_page(image, name)
                if 0 in image.size:
                    raise DataError(f"{name}: the picture has no pixels ({image.width}×{image.height}); remove it")
                image.load()
                samples = read_pillow_samples(image)
                shown = image if samples is None else show_values(samples, name)
                upright = turn_upright(shown, image)
                rgb = upright if samples is not None else convert_to_rgb(upright, name)
                return ImageOps.invert(rgb) if is_negative(image) else rgb
        except DataError:
            raise
        except Image.DecompressionBombError:
            check_pixel_count(MAX_PIXELS + 1, name)
            raise
        except UnidentifiedImageError:
            tiff = describe_tiff(file) if head.startswith(TIFF_SIGNS) else None
            raise DataError(f"{name}: " + (tiff or f"not a picture that can be read: {_guess_content(head)}")) from None
        except MemoryError:
            raise DataError(f"{name}: decoding needs more memory than is free") from None
        except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, zlib.error, ValueError, ...
            raise DataError(
                f"{name}: the picture is damaged or cut off ({_shorten_message(error)}); download it again or remove it"
            ) from None


def _open_tiff_greys(file: BinaryIO, name: str) -> Image.Image:
    """A grey TIFF that Pillow does not read, upright; where its lowest value is white, inverted at the end, as DICOM is."""
    values, low_is_white, orientation = read_tiff_greys(file, name)
    shown = show_values(values, name)
    shown = ImageOps.invert(shown) if low_is_white else shown
    turn = _EXIF_TRANSPOSES.get(orientation)
    return shown if turn is None else shown.transpose(turn)


def read_image_size(source: BinaryIO, name: str) -> tuple[int, int]:
    """(height, width) as stored, from the header alone. Raises DataError when there is no such header."""
    head = _read_head(source, name)
    if is_dicom_head(head):
        return read_dicom_size(source, name)
    with pillow_warnings_ignored:
        try:
            with Image.open(source, formats=_supported_formats()) as image:
                return image.height, image.width
        except Image.DecompressionBombError:
            check_pixel_count(MAX_PIXELS + 1, name)
            raise
        except Exception:
            size = read_tiff_size(source) if head.startswith(TIFF_SIGNS) else None
            if size is None:
                raise DataError(f"{name}: not a picture that can be read: {_guess_content(head)}") from None
            return size


@cache
def _supported_formats() -> tuple[str, ...]:
    """The FORMATS that this build of Pillow can open. Loads all plugins first."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN and (name != "AVIF" or features.check("avif")))


def _read_head(file: BinaryIO, name: str) -> bytes:
    size = file.seek(0, io.SEEK_END)
    if size == 0:
        raise DataError(f"{name}: the file is empty (0 bytes); download it again or remove it")
    if size > MAX_BYTES:
        raise DataError(f"{name}: the file has {format_bytes(size)}; pictures of up to {format_bytes(MAX_BYTES)} are read")
    file.seek(0)
    head = file.read(HEAD_BYTES)
    file.seek(0)
    return head


def turn_upright(image: Image.Image, original: Image.Image) -> Image.Image:
    """The image turned as the EXIF block of the original says, which may be the same image."""
    try:
        turn = _EXIF_TRANSPOSES.get(original.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # a damaged EXIF block: the pixels are good, the orientation is unknown
        turn = None
    return image if turn is None else image.transpose(turn)


def convert_to_rgb(image: Image.Image, name: str) -> Image.Image:
    """An Image of any mode → RGB: transparency on white, greys of more than 8 bits scaled by the intensity window."""
    if active_options().channels:
        image = image.convert("RGB") if image.mode in ("1", "P", "CMYK", "YCbCr", "LAB", "HSV") else image
        return Image.fromarray(scale_to_uint8(choose_channels(np.asarray(image), name), name))
    if image.mode[0] in "IF":  # I;16, I;16B, I, F: Pillow's own conversion to 8 bits would clip instead of scale
        return show_values(np.asarray(image), name)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = _composite_on_white(image.convert("RGBA"))
    image = image if image.mode == "RGB" else image.convert("RGB")
    return image if active_options().window == "auto" else Image.fromarray(scale_to_uint8(np.asarray(image), name))


def _composite_on_white(image: Image.Image) -> Image.Image:
    """An RGBA Image on white; a picture behind an alpha that is 0 everywhere is shown: many programs leave an unused byte so."""
    *colours, alpha = image.getextrema()
    if alpha == (0, 0) and any(low != high for low, high in colours):  # type: ignore[misc]
        return image.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image)


def _guess_content(head: bytes) -> str:
    """Describes the contents of a file that is no picture, for messages."""
    if head[4:8] == b"ftyp":
        return next((what for brand, what in _BOX_BRANDS.items() if head[8:12].startswith(brand)), "it is a video")
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


pillow_warnings_ignored = QuietPackages(r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())  # its words about damaged files do not reach stderr
_RESAMPLING_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_ORIENTATION_TAG = 0x0112
_UPGRADE = f"which Pillow {PIL.__version__} cannot read here"
_BOX_BRANDS = {  # of an ISO media file
    b"avi": f"it is an AVIF picture, {_UPGRADE}; install a newer Pillow, or convert it to PNG or JPEG",
    b"hei": f"it is a HEIC photograph, {_UPGRADE}; convert it to JPEG or PNG",
    b"hev": f"it is a HEIC photograph, {_UPGRADE}; convert it to JPEG or PNG",
    b"mif1": f"it is a HEIF picture, {_UPGRADE}; convert it to JPEG or PNG",
    b"msf1": f"it is a HEIF picture, {_UPGRADE}; convert it to JPEG or PNG",
    b"crx": f"it is a raw photograph (CR3), {_UPGRADE}; convert it to JPEG or PNG",
}
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
    b"8bps": "it is a Photoshop document; convert it to PNG",
    b"\xff\n": "it is a JPEG XL picture; convert it to PNG or JPEG",
    b"\x00\x00\x00\x0cjxl ": "it is a JPEG XL picture; convert it to PNG or JPEG",
    b"\x00\x00\x01\x00": "it is an icon (ICO); convert it to PNG",
    b"\x93numpy": "it is a NumPy array (.npy); write pictures, or one .npz with images and labels",
    b"\x89hdf": "it is an HDF5 file; write its pictures to PNG",
    b"\x1f\x8b": "it is compressed by gzip; unpack it first",
}

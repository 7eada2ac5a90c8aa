"""TIFF beyond what Pillow shows of it: the pages of a file, and pictures of any number of channels (by tifffile).

Pages are the full pictures of a file: thumbnails and masks, which a file may hold beside them, are not counted.
"""

from __future__ import annotations

import lzma
import math
import zlib
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from phoropter.core.errors import DataError, MissingExtraError, cut_message
from phoropter.data.images.options import active_options, check_pixel_count, choose_channels, choose_page
from phoropter.data.images.quiet import QuietPackages

_quiet_tifffile = QuietPackages("tifffile", "tifffile")
TIFF_SIGNS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MAX_RATIO = 1100  # of unpacked to packed bytes, in a file of more than UNCHECKED_BYTES: more than deflate reaches
UNCHECKED_BYTES = 16 * 1024**2
MAX_PAGES = 10_000
MAX_UNPACKED_BYTES = 2 * 1024**3
_WIDTH_TAG, _LENGTH_TAG, _COMPRESSION_TAG = 256, 257, 259
_PHOTOMETRIC_TAG, _LOW_IS_WHITE = 262, 0
_BIG_TIFF = 43  # in the header, where others have 42
_ORIENTATION_TAG, _SUBFILE_TAG, _BITS_TAG, _SAMPLES_TAG, _EXTRA_TAG, _FORMAT_TAG = 274, 254, 258, 277, 338, 339
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3  # values of the tag of sample formats
_TIFFFILE_KINDS = ((_FLOAT, 16), (_FLOAT, 64), (_UNSIGNED, 64), (_SIGNED, 64))
_OPENED_WHITE = (*((_UNSIGNED, bits) for bits in (1, 2, 4, 8)), (_FLOAT, 32))  # and 16 bits with the lowest byte first
_SWAPPED_TWICE = ((_SIGNED, 16), (_SIGNED, 32), (_FLOAT, 32))  # by libtiff and again by Pillow
_SIGNED_DTYPES = {(_SIGNED, 8): np.int8, (_UNSIGNED, 32): np.uint32}  # that Pillow takes for unsigned and signed
_REDUCED_OR_MASK = 0b101
_TILE_TAGS, _DEFLATED, _LZMA = (322, 323), (8, 32946), 34925


def select_tiff_page(image: Image.Image, name: str) -> None:
    """Turns an open TIFF to the page that is read. Raises DataError for 2 or more than 4 channels, and as `choose_page`."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return
    pages = []
    for at in range(min(image.n_frames, MAX_PAGES)):
        image.seek(at)
        if not int(image.tag_v2.get(_SUBFILE_TAG, 0)) & _REDUCED_OR_MASK:
            pages.append(at)
    image.seek(pages[choose_page(len(pages), name, "pages")] if pages else 0)
    check_pixel_count(image.width * image.height, name)
    _check_tile(math.prod(int(image.tag_v2.get(tag, 0)) for tag in _TILE_TAGS), image.width * image.height, name)
    samples = image.tag_v2.get(_SAMPLES_TAG, 1)
    extra = image.tag_v2.get(_EXTRA_TAG, (0,))
    if samples > 4 or (samples == 2 and not {1, 2} & set(extra)):  # 1, 2: the second is transparency
        raise DataError(f"{name}: {_describe_channels(samples, image.tag_v2.get(_BITS_TAG, (8,)))}")


def needs_tifffile(file: BinaryIO) -> bool:
    """Whether an open TIFF holds grey values that Pillow does not read, or reads wrong.

    These are numbers of 64 bits and floating-point ones of 16; with the highest byte first also unsigned ones of 32 bits and, in
    compressed files, signed and floating-point ones; and where the lowest value is white, those that Pillow does not open then.
    """
    try:
        directory = _read_first_directory(file)
        kind, packed = _find_sample_kind(directory), int(directory.get(_COMPRESSION_TAG, 1)) != 1
        swapped = directory.prefix == b"MM" and (kind == (_UNSIGNED, 32) or (packed and kind in _SWAPPED_TWICE))
        opened = kind in _OPENED_WHITE or (directory.prefix == b"II" and kind == (_UNSIGNED, 16))
        turned = _is_low_white(directory) and not opened
        return int(directory.get(_SAMPLES_TAG, 1)) == 1 and (kind in _TIFFFILE_KINDS or swapped or turned)
    except Exception:  # a damaged directory, of which Pillow says what is wrong
        return False
    finally:
        file.seek(0)


def _is_low_white(directory: Any) -> bool:
    return int(directory.get(_PHOTOMETRIC_TAG, 1)) == _LOW_IS_WHITE


def is_negative(image: Image.Image) -> bool:
    """Whether an open picture is a TIFF whose lowest value is white, and Pillow has left it so: it inverts up to 8 bits."""
    return isinstance(image, TiffImagePlugin.TiffImageFile) and image.mode[0] in "IF" and _is_low_white(image.tag_v2)


def read_pillow_samples(image: Image.Image) -> NDArray[Any] | None:
    """(H, W) values of an open grey TIFF whose numbers Pillow takes for others: signed bytes, and unsigned 32 bits; else None."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or image.tag_v2.get(_SAMPLES_TAG, 1) != 1 or image.mode not in "LI":
        return None
    dtype = _SIGNED_DTYPES.get(_find_sample_kind(image.tag_v2))
    return None if dtype is None else np.ascontiguousarray(np.asarray(image)).view(dtype)


def _find_sample_kind(directory: Any) -> tuple[int, int]:
    """(sample format, bits) of the first channel."""
    return int(directory.get(_FORMAT_TAG, (_UNSIGNED,))[0]), int(directory.get(_BITS_TAG, (1,))[0])


def describe_tiff(file: BinaryIO) -> str | None:
    """What a TIFF that Pillow cannot open holds, by its first directory; None when that cannot be read."""
    try:
        directory = _read_first_directory(file)
        floats = _find_sample_kind(directory)[0] == _FLOAT
        return _describe_channels(int(directory.get(_SAMPLES_TAG, 1)), tuple(directory.get(_BITS_TAG, (1,))), floats)
    except Exception:  # a damaged directory: what Pillow raises depends on where it is damaged
        return None


def read_tiff_size(file: BinaryIO) -> tuple[int, int] | None:
    """(height, width) of the first page, of any number of channels; None when it cannot be read."""
    try:
        directory = _read_first_directory(file)
        return int(directory[_LENGTH_TAG]), int(directory[_WIDTH_TAG])
    except Exception:  # as above
        return None


def _read_first_directory(file: BinaryIO) -> TiffImagePlugin.ImageFileDirectory_v2:
    file.seek(0)
    header = file.read(8)
    directory = TiffImagePlugin.ImageFileDirectory_v2(header + (file.read(8) if header[2] == _BIG_TIFF else b""))
    file.seek(directory.next)
    directory.load(file)
    return directory


def read_tiff_channels(file: BinaryIO, name: str) -> NDArray[Any]:
    """An open TIFF → (H, W, 3) of the file's own type: the channels that `channels` names.

    Channels are the samples of a page; where every page holds one sample and no page is chosen, the pages are the channels.
    Raises DataError for a damaged file, too many pixels, a channel or page that is not there, and without tifffile.
    """
    return choose_channels(_read_by_tifffile(file, name, join_pages=True), name)


def read_tiff_greys(file: BinaryIO, name: str) -> tuple[NDArray[Any], bool, int]:
    """An open TIFF of one channel → ((H, W) of the file's own type, whether its lowest value is white, its orientation from 1 to
    8, as in EXIF). Raises DataError as `read_tiff_channels`."""
    grey: NDArray[Any] = _read_by_tifffile(file, name, join_pages=False)[:, :, 0]
    directory = _read_first_directory(file)
    return grey, _is_low_white(directory), int(directory.get(_ORIENTATION_TAG, 1))


def _read_by_tifffile(file: BinaryIO, name: str, join_pages: bool) -> NDArray[Any]:
    """(H, W, C) values. join_pages: whether pages of one channel each are the channels of a picture"""
    try:
        import tifffile
    except ImportError:
        raise MissingExtraError("tifffile", "medical", f"{name}: a TIFF that Pillow does not read") from None
    file.seek(0)
    try:
        with _quiet_tifffile, tifffile.TiffFile(file) as opened:
            pages = [page for page in _list_pages(opened, name) if not int(page.subfiletype) & _REDUCED_OR_MASK]
            join = join_pages and len(pages) > 1 and active_options().page is None
            if join and all(page.samplesperpixel == 1 for page in pages):
                values = _stack_pages(pages, name)
            else:
                values = _read_page(pages[choose_page(len(pages), name, "pages")], name)
    except DataError:
        raise
    except MemoryError:
        raise DataError(f"{name}: decoding needs more memory than is free") from None
    except Exception as error:  # tifffile and its codecs raise what the place of the damage makes them raise
        what = cut_message(error, 100)
        raise DataError(f"{name}: the TIFF cannot be read ({what}); save it without compression, or leave it out") from None
    if values.dtype.kind not in "uif":
        raise DataError(f"{name}: the pixels of the TIFF are {values.dtype}, expected whole or floating-point numbers")
    return values


def _list_pages(opened: Any, name: str) -> list[Any]:
    pages: list[Any] = []
    seen: set[int] = set()
    for page in opened.pages:
        if page.offset in seen:
            raise DataError(f"{name}: the TIFF is damaged: its pages lead in a circle; download it again")
        if len(pages) == MAX_PAGES:
            raise DataError(f"{name}: the TIFF has more than {MAX_PAGES:,} pages; split it")
        seen.add(page.offset)
        pages.append(page)
    return pages


def _stack_pages(pages: list[Any], name: str) -> NDArray[Any]:
    """Pages of one shape and one sample each → (H, W, number of pages)."""
    if len({page.shape for page in pages}) > 1:
        raise DataError(f"{name}: the {len(pages)} pages differ in size, so they are no channels; choose one with page: 1")
    _check_unpacked_bytes(sum(int(page.nbytes) for page in pages), name)
    return np.stack([_read_page(page, name)[:, :, 0] for page in pages], axis=2)


def _read_page(page: Any, name: str) -> NDArray[Any]:
    """A page → (H, W, C)."""
    check_pixel_count(int(page.imagelength) * int(page.imagewidth), name)
    _check_unpacked_bytes(int(page.nbytes), name)
    if math.prod(page.chunked) != len(page.dataoffsets) or page.nbytes > max(
        UNCHECKED_BYTES, MAX_RATIO * page.parent.filehandle.size
    ):
        raise DataError(f"{name}: the TIFF is damaged or cut off: it holds less than its header promises; download it again")
    _check_segments(page, name)
    axes = str(page.axes)
    values: NDArray[Any] = page.asarray()
    if axes == "YX":
        return values[:, :, None]
    if axes == "SYX":  # planes one after another
        return values.transpose(1, 2, 0)
    if axes == "YXS":
        return values
    raise DataError(f"{name}: the TIFF holds the axes {axes}, expected one plane of pictures (height, width, channels)")


def _check_tile(tile: int, picture: int, name: str) -> None:
    """Raises DataError where a tile has far more pixels than its picture, all of which would be unpacked."""
    if tile > max(UNCHECKED_BYTES, 4 * picture):
        raise DataError(f"{name}: the TIFF is damaged: its tiles are far larger than the picture; save it again")


def _check_segments(page: Any, name: str) -> None:
    """Raises DataError for a strip or tile that unpacks to far more than it should: tifffile unpacks whatever is there."""
    pixels = math.prod(int(n) for n in page.chunks)
    _check_tile(pixels, int(page.size), name)
    _check_unpacked_bytes(pixels * page.dtype.itemsize * len(page.dataoffsets), name)
    most, kind, file = 2 * pixels * page.dtype.itemsize + 4096, int(page.compression), page.parent.filehandle
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if kind == 1 or not count:
            continue
        file.seek(offset)
        packed = file.read(count)
        if len(packed) > most or (kind in (*_DEFLATED, _LZMA) and _unpacks_beyond(packed, kind, most)):
            raise DataError(f"{name}: the TIFF is damaged: a part of it unpacks to far more than its pixels; save it again")


def _unpacks_beyond(packed: bytes, kind: int, most: int) -> bool:
    """Whether deflated or LZMA data has more than so many bytes; damaged data has not, and is told where it is read."""
    try:
        if kind in _DEFLATED:
            return len(zlib.decompressobj().decompress(packed, most + 1)) > most
        unpacked = lzma.LZMADecompressor()
        return len(unpacked.decompress(packed, most + 1)) > most or bool(unpacked.unused_data.strip(b"\0"))
    except (zlib.error, lzma.LZMAError):
        return False


def _check_unpacked_bytes(count: int, name: str) -> None:
    if count > MAX_UNPACKED_BYTES:
        raise DataError(f"{name}: the TIFF takes {count:,} bytes unpacked, which is refused before decoding; scale it down")


def _describe_channels(samples: int, bits: tuple[int, ...], floats: bool = False) -> str:
    kind = " in floating-point numbers" if floats else ""
    return (
        f"the TIFF has {samples} channel{'s' * (samples > 1)} of {max(bits)} bits{kind}, which is not read; expected grey of up "
        "to 64 bits or 3 to 4 channels of whole numbers: "
        + ("name those of red, green and blue with data: {channels: [1, 2, 2]}, or " if samples == 2 else "")
        + ("name three of them with data: {channels: [1, 2, 3]}, or " if samples > 2 else "")
        + "convert it to such a picture"
    )

from __future__ import annotations

import io
import logging
import struct
import threading
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, features

from phoropter.core.errors import DataError
from phoropter.data.images.decode import SquareResize, decode_image, open_image_file, read_image_size

RAMP = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises width×height pixels and holds none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


def test_rgb_comes_back_unchanged() -> None:
    np.testing.assert_array_equal(decode_image(saved(Image.fromarray(RAMP), "PNG"), "x"), RAMP)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    # By the EXIF standard: where the stored row 0 and column 0 are in the upright picture.
    upright = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, 1),
    }[orientation](RAMP)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        np.testing.assert_array_equal(decode_image(saved(Image.fromarray(RAMP), kind, exif=exif, **options), "x"), upright, kind)


def test_grey_and_bilevel_pictures_get_three_channels() -> None:
    grey = RAMP[:, :, 0]
    np.testing.assert_array_equal(decode_image(saved(Image.fromarray(grey), "PNG"), "x"), np.stack([grey] * 3, -1))
    bits = grey > 127
    np.testing.assert_array_equal(
        decode_image(saved(Image.fromarray(bits), "PNG"), "x"), np.stack([bits * np.uint8(255)] * 3, -1)
    )


def test_alpha_is_composited_on_white() -> None:
    alpha = np.random.default_rng(1).integers(0, 256, RAMP.shape[:2], dtype=np.uint8)
    found = decode_image(saved(Image.fromarray(np.dstack([RAMP, alpha])), "PNG"), "x").astype(float)
    share = alpha[:, :, None] / 255
    np.testing.assert_allclose(found, RAMP * share + 255 * (1 - share), atol=1)


def test_a_transparent_palette_colour_turns_white() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30, 200, 0, 0])
    image.putpixel((2, 1), 2)
    found = decode_image(saved(image, "PNG", transparency=1), "x")
    assert found[1, 2].tolist() == [200, 0, 0] and found[0, 0].tolist() == [255, 255, 255]
    assert decode_image(saved(image, "PNG"), "x")[0, 0].tolist() == [10, 20, 30]


def test_a_transparent_rgb_colour_key_turns_white() -> None:
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (9, 9, 9))
    assert decode_image(saved(image, "PNG", transparency=(1, 2, 3)), "x").tolist() == [[[255, 255, 255], [9, 9, 9]]]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_an_alpha_that_is_0_everywhere_is_no_transparency(mode: str) -> None:
    grey = Image.fromarray(RAMP).convert("RGB" if mode == "RGBA" else "L")
    image = grey.copy()
    image.putalpha(0)
    np.testing.assert_array_equal(decode_image(saved(image, "PNG"), "x"), np.asarray(grey.convert("RGB")))
    image.putpixel((0, 0), (*image.getpixel((0, 0))[:-1], 1))  # type: ignore[index]
    assert decode_image(saved(image, "PNG"), "x")[1, 1].tolist() == [255, 255, 255]


def test_cmyk_becomes_rgb() -> None:
    ink = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    for kind, options in (("TIFF", {}), ("JPEG", {"quality": 100})):
        assert decode_image(saved(ink, kind, **options), "x")[4, 4].tolist() == pytest.approx([255, 0, 0], abs=3), kind


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(kind: str) -> None:
    deep = np.array([[0, 128, 257, 32768], [65535, 65407, 300, 12345]], dtype=np.uint16)
    found = decode_image(saved(Image.fromarray(deep), kind), "x")
    np.testing.assert_array_equal(found[:, :, 0], np.rint(deep / 257))


def test_numbers_without_an_agreed_brightness_are_refused() -> None:
    with pytest.raises(DataError, match=r"whole numbers outside 0\.\.65535 have no agreed brightness"):
        decode_image(saved(Image.fromarray(np.array([[70000, 1]], dtype=np.int32)), "TIFF"), "x")
    with pytest.raises(DataError, match="must be finite"):
        decode_image(saved(Image.fromarray(np.array([[np.nan, 1]], dtype=np.float32)), "TIFF"), "x")
    with pytest.raises(
        DataError, match=r"must lie in 0\.\.1 to have a brightness, but run from 0 to 255; say which .*window: \[lo, hi\]"
    ):
        decode_image(saved(Image.fromarray(np.array([[0, 255]], dtype=np.float32)), "TIFF"), "x")
    assert decode_image(saved(Image.fromarray(np.array([[0.5]], dtype=np.float32)), "TIFF"), "x").tolist() == [[[128] * 3]]


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (3, 3), colour) for colour in ((250, 0, 0), (0, 250, 0))]
    found = decode_image(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]), "x")
    assert found[0, 0].tolist() == [250, 0, 0]


def box(brand: bytes) -> bytes:
    """The head of an ISO media file of a brand."""
    return struct.pack(">I", 24) + b"ftyp" + brand + b"\0\0\0\0mif1miaf" + b"\0" * 40


def many_channels(samples: int, bits: int = 16) -> bytes:
    """A TIFF of one pixel with so many channels, written out."""
    at = 8 + 2 + 9 * 12 + 4
    tags = [
        (256, 3, 1, 1),
        (257, 3, 1, 1),
        (258, 3, samples, at),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, at + 2 * samples),
        (277, 3, 1, samples),
        (278, 3, 1, 1),
        (279, 4, 1, samples * bits // 8),
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + b"\0" * 4
    return b"II*\0\x08\0\0\0" + directory + struct.pack(f"<{samples}H", *[bits] * samples) + b"\x01" * (samples * bits // 8)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow cannot read AVIF")
def test_avif_is_read_whatever_it_is_called() -> None:
    found = decode_image(saved(Image.new("RGB", (16, 16), (200, 30, 30)), "AVIF", quality=100), "x.jpg")
    assert found[5, 5].tolist() == pytest.approx([200, 30, 30], abs=4)


@pytest.mark.parametrize("samples", [5, 13])
def test_a_tiff_of_many_channels_is_refused_with_their_number(samples: int) -> None:
    for bits in (8, 16):
        with pytest.raises(
            DataError, match=rf"^x.tif: the TIFF has {samples} channels of {bits} bits, which is not read; expected"
        ):
            decode_image(many_channels(samples, bits), "x.tif")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (box(b"heic"), r"it is a HEIC photograph, which Pillow \S+ cannot read here; convert it to JPEG or PNG"),
        (box(b"mif1"), "it is a HEIF picture"),
        (box(b"mp42"), "it is a video"),
        (b"8BPS\0\x01" + b"\0" * 20, "it is a Photoshop document"),
        (b"\0" * 128 + b"DICM" + b"\x02\0\0\0", "the DICOM file names no transfer syntax"),
        (b"", r"x.png: the file is empty \(0 bytes\)"),
        (b"hello, I am a shopping list\n", "x.png: not a picture that can be read: its contents are text"),
        (b"<!DOCTYPE html><html>404</html>", "a web page, probably a failed download"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (b"\x00\x01\x02\x03" * 9, "its contents are none of JPEG"),
        (saved(Image.fromarray(RAMP), "PNG")[:-40], r"x.png: the picture is damaged or cut off"),
        (saved(Image.fromarray(np.tile(RAMP, (20, 20, 1))), "JPEG")[:2000], r"x.png: the picture is damaged or cut off"),
        (png_header(30_000, 30_000), "x.png: the header promises more than 100 million pixels"),
        (png_header(10_000, 10_001), "x.png: the header promises more than 100 million pixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture that can be read"),
    ],
)
def test_undecodable_files_are_named(content: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        decode_image(content, "x.png")


def test_a_damaged_exif_block_does_not_lose_the_picture() -> None:
    broken = saved(Image.fromarray(RAMP), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\x03\0\0")
    np.testing.assert_array_equal(decode_image(broken, "x"), RAMP)


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png: the file cannot be read: No such file"):
        open_image_file(tmp_path / "gone.png", "gone.png")


def test_the_size_is_read_from_the_header(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png_header(640, 480))
    with (tmp_path / "x.png").open("rb") as file:
        assert read_image_size(file, "x.png") == (480, 640)


def test_warnings_are_suppressed_only_while_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)  # Pillow warns of more, and refuses twice as many
    picture = saved(Image.fromarray(RAMP), "PNG")
    before = list(warnings.filters)
    decoded: list[bool] = []

    def work() -> None:
        decoded.extend((decode_image(picture, "x") == RAMP).all() for _ in range(50))

    threads = [threading.Thread(target=work) for _ in range(4)]
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not heard and warnings.filters == before and decoded == [True] * 200
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(io.BytesIO(picture))


def plainly(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Scale the whole picture, then cut out the centre: torchvision's Resize and CenterCrop, written out."""
    height, width = image.shape[:2]
    new = (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
    whole = np.asarray(Image.fromarray(image).resize(new, Image.Resampling.BICUBIC))
    top, left = round((whole.shape[0] - size) / 2.0), round((whole.shape[1] - size) / 2.0)
    return whole[top : top + size, left : left + size].transpose(2, 0, 1)


@pytest.mark.parametrize("shape", [(40, 60), (61, 40), (33, 33), (100, 101), (300, 451), (20, 90)])
@pytest.mark.parametrize("size", [24, 33, 64])
def test_center_crop_equals_scaling_and_cropping_the_centre(shape: tuple[int, int], size: int) -> None:
    # Smooth, because Pillow chooses by cost whether rows or columns come first, and noise is clipped in between.
    coarse = np.random.default_rng(2).integers(20, 236, (7, 9, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BILINEAR))
    found = SquareResize(size).resize_image(image)
    assert found.shape == (3, size, size) and found.dtype == np.uint8 and found.flags.c_contiguous
    assert np.abs(found.astype(int) - plainly(image, size).astype(int)).max() <= 1


def test_a_very_narrow_picture_needs_no_enormous_intermediate() -> None:
    image = np.full((1, 50_000, 3), 7, dtype=np.uint8)
    assert (SquareResize(64).resize_image(image) == 7).all()


def test_stretch_and_pad() -> None:
    image = np.full((10, 20, 3), 200, dtype=np.uint8)
    assert (SquareResize(16, "stretch").resize_image(image) == 200).all()
    padded = SquareResize(16, "pad").resize_image(image)
    assert (padded[:, 4:12] == 200).all() and (padded[:, :4] == 0).all() and (padded[:, 12:] == 0).all()


def test_a_picture_of_the_right_size_keeps_its_pixels() -> None:
    image = np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for resize in ("center-crop", "stretch", "pad"):
        np.testing.assert_array_equal(SquareResize(32, resize, "bilinear").resize_image(image), image.transpose(2, 0, 1))  # type: ignore[arg-type]


def test_pillow_s_own_words_about_a_file_are_not_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])  # those of pytest, which would keep Python from printing
    with pytest.raises(DataError, match="60000 channels"):
        decode_image(many_channels(60_000, 8), "x.tif")
    assert capsys.readouterr() == ("", "")

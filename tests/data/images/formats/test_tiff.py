"""Pages and channels of TIFF files, written by tifffile and Pillow."""

from __future__ import annotations

import io
import lzma
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from phoropter.core.errors import DataError, SpecError
from phoropter.core.spec import validate_as
from phoropter.data.images.decode import decode_image, read_image_size
from phoropter.data.images.options import PictureOptions, use_options
from phoropter.data.spec import DataSpec, open_dataset

tifffile = pytest.importorskip("tifffile")

BANDS = np.random.default_rng(0).integers(0, 4096, (6, 5, 13), dtype=np.uint16)
BANDS[0, 0] = 4095  # so that 12 bits are seen in every choice of channels


def written(array: NDArray[Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


def shown(content: bytes, **options: Any) -> NDArray[np.uint8]:
    with use_options(PictureOptions(**options)):
        return decode_image(content, "x.tif")


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_three_of_many_channels(planar: str, compression: str | None) -> None:
    array = BANDS if planar == "contig" else BANDS.transpose(2, 0, 1)
    content = written(array, photometric="minisblack", planarconfig=planar, compression=compression)
    np.testing.assert_allclose(shown(content, channels=(4, 3, 13)), BANDS[:, :, [3, 2, 12]] / 4095 * 255, atol=0.51)
    with pytest.raises(DataError, match=r"13 channels of 16 bits.*channels: \[1, 2, 3\]"):
        shown(content)
    with pytest.raises(DataError, match="channel 14 is asked for, and the picture has 13"):
        shown(content, channels=(1, 2, 14))


def test_a_window_scales_the_chosen_channels() -> None:
    content = written(BANDS, photometric="minisblack", planarconfig="contig")
    found = shown(content, channels=(1, 2, 3), window=(1000.0, 2000.0))
    np.testing.assert_allclose(found, np.clip((BANDS[:, :, :3] - 1000.0) / 1000, 0, 1) * 255, atol=0.51)


def test_rgb_of_16_bits_is_read_by_its_channels() -> None:
    content = written(BANDS[:, :, :3], photometric="rgb")
    np.testing.assert_allclose(shown(content, channels=(1, 2, 3)), BANDS[:, :, :3] / 4095 * 255, atol=0.51)


def test_pages_of_one_sample_are_the_channels() -> None:
    content = written(BANDS[:, :, :4].transpose(2, 0, 1), photometric="minisblack")
    np.testing.assert_allclose(shown(content, channels=(4, 1, 2)), BANDS[:, :, [3, 0, 1]] / 4095 * 255, atol=0.51)
    page = shown(content, page=3)
    np.testing.assert_allclose(page[:, :, 0], BANDS[:, :, 2] / 4095 * 255, atol=0.51)


def test_pages_are_refused_or_chosen_and_thumbnails_do_not_count() -> None:
    pages = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (10, 20, 30)]
    stream = io.BytesIO()
    pages[0].save(stream, "TIFF", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match=r"x\.tif: the file has 3 pages, and one is a picture here: choose it with data: \{page"):
        shown(stream.getvalue())
    assert [shown(stream.getvalue(), page=page)[0, 0, 0] for page in ("first", "middle", "last", 2)] == [10, 20, 30, 20]
    pyramid = io.BytesIO()
    with tifffile.TiffWriter(pyramid) as file:
        file.write(np.full((8, 8), 7, np.uint8))
        file.write(np.full((4, 4), 9, np.uint8), subfiletype=1)
    assert shown(pyramid.getvalue()).shape == (8, 8, 3) and shown(pyramid.getvalue())[0, 0, 0] == 7


def test_channels_act_on_every_format() -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "PNG")
    np.testing.assert_array_equal(shown(stream.getvalue(), channels=(3, 2, 1)), rgb[:, :, ::-1])
    stream = io.BytesIO()
    Image.fromarray(rgb[:, :, 0]).save(stream, "PNG")
    with pytest.raises(DataError, match="channel 3 is asked for, and the picture has 1"):
        shown(stream.getvalue(), channels=(1, 2, 3))


def test_damaged_and_enormous_files_are_named() -> None:
    content = written(BANDS, photometric="minisblack", planarconfig="contig")
    with pytest.raises(DataError, match=r"^x\.tif: the TIFF cannot be read"):
        shown(content[:200], channels=(1, 2, 3))
    with pytest.raises(DataError, match=r"takes .* bytes unpacked|promises more than"):
        large = written(np.zeros((4, 4, 5), np.uint8), photometric="minisblack", planarconfig="contig")
        shown(
            large.replace(
                b"\x00\x01\x04\x00\x01\x00\x00\x00\x04\x00\x00\x00", b"\x00\x01\x04\x00\x01\x00\x00\x00\xff\xff\xff\x0f"
            ),
            channels=(1, 2, 3),
        )


def test_the_keys_of_a_study(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "d" / name).mkdir(parents=True)
        (tmp_path / "d" / name / "x.tif").write_bytes(written(BANDS, photometric="minisblack", planarconfig="contig"))
    specs = [{"channels": [1, 2, 3]}, {"channels": [3, 2, 1]}, {"channels": [1, 2, 3], "page": "first"}]
    opened = [open_dataset(DataSpec.model_validate({"folder": tmp_path / "d", **spec})) for spec in specs]
    np.testing.assert_array_equal(opened[0].read(0)[:, :, ::-1], opened[1].read(0))
    assert len({dataset.content_digest for dataset in opened}) == 3
    for wrong in ({"channels": [0, 1, 2]}, {"channels": [1, 2]}, {"page": 0}, {"page": "second"}):
        with pytest.raises(SpecError, match=r"channels|page"):
            validate_as(DataSpec, {"folder": "d", **wrong})
    with pytest.raises(SpecError, match="'channels' belongs to folder, manifest"):
        validate_as(DataSpec, {"digits": True, "channels": [1, 2, 3]})


def test_two_channels_are_grey_and_transparency_only_where_the_file_says_so() -> None:
    two = np.random.default_rng(2).integers(0, 256, (6, 5, 2), dtype=np.uint8)
    with pytest.raises(DataError, match=r"2 channels of 8 bits.*channels: \[1, 2, 2\]"):
        shown(written(two, photometric="minisblack", planarconfig="contig"))
    np.testing.assert_array_equal(
        shown(written(two, photometric="minisblack", planarconfig="contig"), channels=(2, 1, 1)), two[:, :, [1, 0, 0]]
    )
    transparent = two.copy()
    transparent[..., 1] = 255
    content = written(transparent, photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(shown(content)[..., 0], two[..., 0])


def test_pages_in_a_circle_and_empty_promises_end_at_once() -> None:
    content = bytearray(written(BANDS, photometric="minisblack", planarconfig="contig"))
    count = int.from_bytes(content[8:10], "little")
    content[10 + 12 * count : 14 + 12 * count] = (8).to_bytes(4, "little")  # the next page is the first
    with pytest.raises(DataError, match="its pages lead in a circle"):
        shown(bytes(content), channels=(1, 2, 3))
    tall = written(BANDS, photometric="minisblack", planarconfig="contig", compression="zlib")
    entry = tall.index(b"\x01\x01")  # ImageLength, of 6 rows
    wrong = tall[: entry + 8] + (60_000).to_bytes(4, "little") + tall[entry + 12 :]
    with pytest.raises(DataError, match=r"it holds less than its header promises|takes .* bytes unpacked"):
        shown(wrong, channels=(1, 2, 3))


def test_the_size_is_read_whatever_the_number_of_channels() -> None:
    for planar, array in (("contig", BANDS), ("separate", BANDS.transpose(2, 0, 1))):
        content = written(array, photometric="minisblack", planarconfig=planar)
        assert read_image_size(io.BytesIO(content), "x") == (6, 5)
    with pytest.raises(DataError, match="not a picture that can be read"):
        read_image_size(io.BytesIO(content[:9]), "x")


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize(
    "kind", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64"]
)
def test_greys_of_every_kind_of_number(kind: str, compression: str | None, byteorder: str) -> None:
    values = np.linspace(0, 1 if kind.startswith("float") else 120, 64).reshape(8, 8).astype(kind)
    content = written(values, byteorder=byteorder, compression=compression)
    expected = values.astype(np.float64) * (255 if kind.startswith("float") else 1)
    np.testing.assert_allclose(shown(content)[:, :, 0], expected, atol=0.51)
    low, high = (-100.0, 50.0) if kind == "int8" else (0.25, 0.75) if kind.startswith("float") else (20.0, 100.0)
    window = np.clip((values.astype(np.float64) - low) / (high - low), 0, 1) * 255
    np.testing.assert_allclose(shown(content, window=(low, high))[:, :, 0], window, atol=0.51)
    assert read_image_size(io.BytesIO(content), "x.tif") == (8, 8)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize(
    ("values", "span"),
    [
        (np.int8([-100, 7]), "-100 to 7"),
        (np.int16([-1000, 7]), "-1000 to 7"),
        (np.uint32([5, 2**31 + 5]), "5 to 2147483653"),
    ],
)
def test_numbers_without_a_brightness_are_named_as_they_are(values: NDArray[Any], span: str, byteorder: str) -> None:
    with pytest.raises(DataError, match=f"run from {span}; say which range it is"):
        shown(written(np.tile(values, (4, 4)), byteorder=byteorder))


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kind", ["bool", "uint8", "uint16", "uint32", "int8", "int16", "float16", "float32", "float64"])
def test_greys_whose_lowest_value_is_white_are_shown_white(kind: str, compression: str | None, byteorder: str) -> None:
    values = np.linspace(0, 1 if kind.startswith(("float", "bool")) else 120, 64).reshape(8, 8).astype(kind)
    white, black = (
        written(values, photometric=p, byteorder=byteorder, compression=compression) for p in ("miniswhite", "minisblack")
    )
    np.testing.assert_array_equal(shown(white), 255 - shown(black))


def test_a_deep_grey_tiff_whose_lowest_value_is_white_needs_no_tifffile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tifffile", None)
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    for packing in ("raw", "tiff_lzw"):
        black, white = io.BytesIO(), io.BytesIO()
        Image.fromarray(values).save(black, "TIFF", compression=packing)
        Image.fromarray(values).save(white, "TIFF", compression=packing, tiffinfo={262: 0})
        np.testing.assert_array_equal(shown(white.getvalue()), 255 - shown(black.getvalue()))


@pytest.mark.parametrize("kind", ["uint16", "int16", "float16", "float32"])
def test_a_large_tiff_is_shown_as_a_plain_one(kind: str) -> None:
    values = np.linspace(0, 1 if kind.startswith("float") else 120, 64).reshape(8, 8).astype(kind)
    plain, large = (written(values, photometric="miniswhite", bigtiff=big) for big in (False, True))
    np.testing.assert_array_equal(shown(large), shown(plain))


@pytest.mark.parametrize("kind", [np.int8, np.float64])
def test_a_picture_of_other_numbers_is_turned_upright(kind: type) -> None:
    values: NDArray[Any] = (np.arange(12) / (1 if kind is np.int8 else 12)).reshape(3, 4).astype(kind)
    content = written(values, extratags=[(274, "H", 1, 6, True)])
    np.testing.assert_allclose(shown(content)[:, :, 0], np.rot90(values, -1) * (1 if kind is np.int8 else 255), atol=0.51)


def test_colours_of_floating_point_numbers_are_refused_with_the_way_out() -> None:
    values = np.random.default_rng(0).random((6, 5, 3)).astype(np.float32)
    content = written(values, photometric="rgb")
    with pytest.raises(DataError, match=r"3 channels of 32 bits in floating-point numbers.*channels: \[1, 2, 3\]"):
        shown(content)
    np.testing.assert_allclose(shown(content, channels=(1, 2, 3)), values * 255, atol=0.51)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kind", ["uint8", "uint16"])
def test_colours_are_the_same_in_either_byte_order(kind: str, compression: str | None, byteorder: str) -> None:
    values = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (6, 5, 3), dtype=kind, endpoint=True)
    content = written(values, photometric="rgb", byteorder=byteorder, compression=compression)
    np.testing.assert_allclose(shown(content), values / np.iinfo(kind).max * 255, atol=1)


def pack_tiff(packed: bytes, compression: int, bits: int = 64, tile: int = 0) -> bytes:
    """A grey TIFF of 10 × 10 pixels with one strip, or one tile of tile × tile, by hand."""
    kind = 3 if bits == 64 else 1
    tags = [(256, 10), (257, 10), (258, bits), (259, compression), (262, 1), (277, 1)]
    tags += [(322, tile), (323, tile), (324, 8), (325, len(packed))] if tile else [(273, 8), (278, 10), (279, len(packed))]
    tags = sorted([*tags, (339, kind)])
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    packed += bytes(len(packed) % 2)
    return b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize(("compression", "pack"), [(8, zlib.compress), (32946, zlib.compress), (34925, lzma.compress)])
def test_a_strip_that_unpacks_to_far_more_than_its_pixels_is_refused(compression: int, pack: Callable[[bytes], bytes]) -> None:
    assert shown(pack_tiff(pack(bytes(800)), compression)).shape == (10, 10, 3)
    beyond = [pack(bytes(6000))] + ([pack(bytes(800)) + pack(bytes(6000))] if compression == 34925 else [])
    for packed in beyond:
        with pytest.raises(DataError, match="a part of it unpacks to far more than its pixels"):
            shown(pack_tiff(packed, compression))


@pytest.mark.parametrize("bits", [8, 64])
def test_a_tile_far_larger_than_its_picture_is_refused_unread(bits: int) -> None:
    assert shown(pack_tiff(zlib.compress(bytes(32 * 32 * bits // 8)), 8, bits, 32)).shape == (10, 10, 3)
    with pytest.raises(DataError, match="its tiles are far larger than the picture"):
        shown(pack_tiff(zlib.compress(bytes(99)), 8, bits, 4112))

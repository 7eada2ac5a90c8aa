"""What a viewer shows of a DICOM file, held against pydicom's own windowing and tables, and what is refused."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from phoropter.core.errors import DataError
from phoropter.data.images.decode import decode_image, open_image_file, read_image_size
from phoropter.data.images.formats import dicom
from phoropter.data.images.formats.dicom import read_dicom_facts
from phoropter.data.images.options import PictureOptions, use_options

pydicom = pytest.importorskip("pydicom")
Write = Callable[..., Path]

RAMP12 = np.arange(4096, dtype=np.uint16).reshape(64, 64)
CT = (np.arange(4096, dtype=np.int16) - 1024).reshape(64, 64)


def grey(path: Path) -> NDArray[np.uint8]:
    """The decoded picture, which must be grey."""
    picture = decode_image(path.read_bytes(), "x.dcm")
    assert (picture[..., 0] == picture[..., 1]).all() and (picture[..., 1] == picture[..., 2]).all()
    return picture[..., 0]


def table_item(bits: int, first: int, values: list[int]) -> Any:
    item = pydicom.Dataset()
    item.LUTDescriptor, item.LUTData = [len(values), first, bits], np.array(values, "<u2").tobytes()
    return item


@pytest.mark.parametrize(
    "header",
    [
        {"WindowCenter": 40, "WindowWidth": 400, "RescaleSlope": 1, "RescaleIntercept": -1024},
        {"WindowCenter": [40, 300], "WindowWidth": [400, 2000], "RescaleSlope": 2.5, "RescaleIntercept": 7},
        {"WindowCenter": 1000.5, "WindowWidth": 800, "VOILUTFunction": "LINEAR_EXACT"},
        {"WindowCenter": 2000, "WindowWidth": 900, "VOILUTFunction": "SIGMOID"},
    ],
)
@pytest.mark.parametrize("pixels", [RAMP12, CT], ids=["unsigned", "signed"])
def test_the_window_of_the_file_is_pydicoms(tmp_path: Path, write_dicom: Write, header: dict[str, Any], pixels: Any) -> None:
    path = write_dicom(tmp_path / "x.dcm", pixels, BitsStored=12 if pixels is RAMP12 else 16, **header)
    file = pydicom.dcmread(path)
    shown = pydicom.pixels.apply_windowing(pydicom.pixels.apply_modality_lut(file.pixel_array, file), file)
    bits = file.BitsStored
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if file.PixelRepresentation else (0, 2**bits - 1)
    slope, intercept = header.get("RescaleSlope", 1), header.get("RescaleIntercept", 0)
    low, high = low * slope + intercept, high * slope + intercept
    np.testing.assert_allclose(grey(path), (shown - low) / (high - low) * 255, atol=0.501)


def test_a_voi_table_and_a_modality_table(tmp_path: Path, write_dicom: Write) -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    curve = [int(1023 * (at / 255) ** 2) for at in range(256)]
    voi = write_dicom(tmp_path / "voi.dcm", pixels, VOILUTSequence=[table_item(10, 0, curve)], WindowCenter=1, WindowWidth=2)
    np.testing.assert_array_equal(grey(voi), np.rint(np.array(curve).reshape(16, 16) / 1023 * 255))
    modality = write_dicom(tmp_path / "modality.dcm", pixels, ModalityLUTSequence=[table_item(16, 0, [64 * v for v in curve])])
    np.testing.assert_allclose(grey(modality), np.array(curve).reshape(16, 16) * 64 / 65535 * 255, atol=0.51)


def test_without_a_window_the_header_gives_the_range(tmp_path: Path, write_dicom: Write) -> None:
    eight = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(grey(write_dicom(tmp_path / "8.dcm", eight)), eight)
    np.testing.assert_allclose(grey(write_dicom(tmp_path / "12.dcm", RAMP12, BitsStored=12)), RAMP12 / 4095 * 255, atol=0.51)
    dark = RAMP12 // 8
    np.testing.assert_allclose(grey(write_dicom(tmp_path / "d.dcm", dark, BitsStored=10)), dark / 1023 * 255, atol=0.51)
    np.testing.assert_allclose(
        grey(write_dicom(tmp_path / "16.dcm", RAMP12)), RAMP12 / 4095 * 255, atol=0.51
    )  # as PNG of 16 bits
    hounsfield = write_dicom(tmp_path / "ct.dcm", RAMP12, BitsStored=12, RescaleSlope=1, RescaleIntercept=-1024)
    np.testing.assert_allclose(grey(hounsfield), RAMP12 / 4095 * 255, atol=0.51)


def test_monochrome1_is_inverted(tmp_path: Path, write_dicom: Write) -> None:
    eight = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = write_dicom(tmp_path / "x.dcm", eight, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(grey(path), 255 - eight)


def test_a_window_of_the_study_is_in_units_of_the_rescaled_values(tmp_path: Path, write_dicom: Write) -> None:
    path = write_dicom(tmp_path / "x.dcm", RAMP12, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=0, WindowWidth=1)
    with use_options(PictureOptions(window=(-160.0, 240.0))):
        np.testing.assert_allclose(grey(path), np.clip((RAMP12 - 1024.0 + 160) / 400, 0, 1) * 255, atol=0.51)
    with use_options(PictureOptions(window="percentile")):
        np.testing.assert_allclose(grey(path), np.clip((RAMP12 / 4095 - 0.01) / 0.98, 0, 1) * 255, atol=0.51)


def test_colours(tmp_path: Path, write_dicom: Write) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode_image(write_dicom(tmp_path / "rgb.dcm", rgb).read_bytes(), "x"), rgb)
    ycbcr = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    path = write_dicom(tmp_path / "ybr.dcm", ycbcr, PhotometricInterpretation="YBR_FULL")
    np.testing.assert_allclose(decode_image(path.read_bytes(), "x").astype(int), rgb, atol=3)
    colours = np.random.default_rng(1).integers(0, 256, (256, 3))
    tables = {
        f"{name}PaletteColorLookupTable{what}": value
        for at, name in enumerate(("Red", "Green", "Blue"))
        for what, value in (("Descriptor", [256, 0, 16]), ("Data", (colours[:, at] * 257).astype("<u2").tobytes()))
    }
    index = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = write_dicom(tmp_path / "palette.dcm", index, PhotometricInterpretation="PALETTE COLOR", **tables)
    np.testing.assert_array_equal(decode_image(path.read_bytes(), "x"), colours.reshape(16, 16, 3))


def test_frames_are_refused_or_chosen(tmp_path: Path, write_dicom: Write) -> None:
    frames = np.arange(5, dtype=np.uint8)[:, None, None] * np.full((1, 4, 4), 10, np.uint8)
    path = write_dicom(tmp_path / "x.dcm", frames, NumberOfFrames=5)
    with pytest.raises(
        DataError, match=r"the file has 5 frames, and one is a picture here: choose it with data: \{page: first\}"
    ):
        grey(path)
    for page, value in (("first", 0), ("middle", 20), ("last", 40), (2, 10)):
        with use_options(PictureOptions(page=page)):  # type: ignore[arg-type]
            assert grey(path).tolist() == [[value] * 4] * 4
    with use_options(PictureOptions(page=6)), pytest.raises(DataError, match="page 6 is asked for, and the file has 5 frames"):
        grey(path)


@pytest.mark.parametrize("syntax", ["RLELossless", "JPEG2000Lossless", "JPEGBaseline8Bit"])
def test_compressed_pixels(tmp_path: Path, write_dicom: Write, syntax: str) -> None:
    smooth = np.add.outer(np.arange(32), np.arange(32)).astype(np.uint8)
    path = write_dicom(tmp_path / "x.dcm", smooth)
    file = pydicom.dcmread(path)
    if syntax == "RLELossless":
        file.compress(pydicom.uid.RLELossless)
    else:
        stream = io.BytesIO()
        Image.fromarray(smooth).save(
            stream, **({"format": "JPEG", "quality": 95} if "JPEGB" in syntax else {"format": "JPEG2000"})
        )
        file.PixelData = pydicom.encaps.encapsulate([stream.getvalue()])
        file["PixelData"].VR = "OB"
        file.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
    file.save_as(path)
    np.testing.assert_allclose(grey(path).astype(int), smooth, atol=3 if "JPEGB" in syntax else 0)


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded(tmp_path: Path, write_dicom: Write) -> None:
    path = write_dicom(tmp_path / "x.dcm", np.zeros((8, 8), np.uint8))
    file = pydicom.dcmread(path)
    file.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8" + b"\xff\xda" * 101])
    file["PixelData"].VR = "OB"
    file.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    file.save_as(path)
    with pytest.raises(DataError, match="its JPEG has more scans than can be decoded in a sensible time"):
        grey(path)


@pytest.mark.parametrize("undefined", [True, False])
def test_a_header_of_millions_of_elements_is_given_up(
    tmp_path: Path, write_dicom: Write, monkeypatch: pytest.MonkeyPatch, undefined: bool
) -> None:
    path = write_dicom(tmp_path / "x.dcm", np.zeros((8, 8), np.uint8))
    assert read_image_size(io.BytesIO(path.read_bytes()), "x") == (8, 8)
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * (1000 if undefined else 200_000)
    length = 0xFFFFFFFF if undefined else len(items)
    items += struct.pack("<HHI", 0xFFFE, 0xE0DD, 0) * undefined
    sequence = struct.pack("<HH2sHI", 0x28, 0x3000, b"SQ", 0, length) + items
    data = path.read_bytes()
    at = data.index(struct.pack("<HH", 0x7FE0, 0x10))
    monkeypatch.setattr(dicom, "MAX_READS", 500)
    with pytest.raises(DataError, match="more elements than any picture's" if undefined else "impossibly long"):
        read_image_size(io.BytesIO(data[:at] + sequence + data[at:]), "x")


def test_a_compression_without_a_decoder_is_named(tmp_path: Path, write_dicom: Write) -> None:
    path = write_dicom(tmp_path / "x.dcm", RAMP12)
    file = pydicom.dcmread(path)
    file.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8" + bytes(50)])
    file["PixelData"].VR = "OB"
    file.file_meta.TransferSyntaxUID = pydicom.uid.HTJ2KLossless
    file.save_as(path)
    with pytest.raises(DataError, match=r"no decoder for its compression \(High-Throughput JPEG 2000.*pylibjpeg"):
        grey(path)


def test_what_holds_no_picture_or_too_much_is_refused_before_decoding(tmp_path: Path, write_dicom: Write) -> None:
    path = write_dicom(tmp_path / "x.dcm", RAMP12)
    for change, words in (
        ({"Rows": 60_000, "Columns": 60_000}, "the header promises more than 100 million pixels"),
        ({"Rows": 0}, "holds no picture"),
        ({"Rows": 65}, "the pixels of the DICOM file are damaged or cut off"),
        ({"PhotometricInterpretation": "CIELAB"}, "does not say what its pixels mean"),
    ):
        file = pydicom.dcmread(path)
        for keyword, value in change.items():
            setattr(file, keyword, value)
        file.save_as(tmp_path / "y.dcm")
        with pytest.raises(DataError, match=f"^x.dcm: .*{words}"):
            grey(tmp_path / "y.dcm")
    file = pydicom.dcmread(path)
    del file.PixelData
    file.save_as(tmp_path / "z.dcm")
    with pytest.raises(DataError, match="holds no pixels"):
        grey(tmp_path / "z.dcm")
    with pytest.raises(DataError, match=r"^x\.dcm: "):
        decode_image(path.read_bytes()[:700], "x.dcm")


def test_a_deflated_file_is_not_unpacked(tmp_path: Path, write_dicom: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_dicom(tmp_path / "x.dcm", RAMP12)
    file = pydicom.dcmread(path)
    file.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    file.save_as(path)
    assert pydicom.dcmread(path).Rows == 64  # pydicom itself would unpack it

    def refuse(*given: Any) -> bytes:
        raise AssertionError("unpacked")

    monkeypatch.setattr(zlib, "decompress", refuse)
    with pytest.raises(DataError, match="deflated, which is not unpacked"):
        grey(path)


def test_size_and_facts_of_the_header(tmp_path: Path, write_dicom: Write) -> None:
    pixels = np.zeros((30, 40), np.uint8)
    path = write_dicom(
        tmp_path / "x.dcm", pixels, PatientID=" 7 ", PatientName="Doe^Jane", InstitutionName="St. X", BurnedInAnnotation="YES"
    )
    with path.open("rb") as file:
        assert read_image_size(file, "x") == (30, 40)
    facts = read_dicom_facts(path, "x")
    assert (facts.patient, facts.institution, facts.names) == ("7", "St. X", ("Doe^Jane",))
    assert facts.burnt_in and not facts.face and facts.exam == ""


def test_a_dicom_file_of_another_suffix_is_refused(tmp_path: Path, write_dicom: Write) -> None:
    path = write_dicom(tmp_path / "x.png", RAMP12)
    with pytest.raises(DataError, match=r"it is a DICOM file by its contents; give it the suffix \.dcm"):
        open_image_file(path, "row 3")


def test_values_that_break_the_standard_are_not_quoted(
    tmp_path: Path, write_dicom: Write, caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = write_dicom(tmp_path / "x.dcm", RAMP12, StudyInstanceUID="1.2.3", PatientBirthDate="19701231")
    broken = path.read_bytes().replace(b"19701231", b"DOE JANE").replace(b"1.2.3\0", b"DOE^JA")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decode_image(broken, "x.dcm")
        path.write_bytes(broken)
        read_dicom_facts(path, "x.dcm")
    assert not caught and "DOE" not in caplog.text


def test_damage_of_any_element_is_a_data_error(tmp_path: Path, write_dicom: Write) -> None:
    content = write_dicom(tmp_path / "x.dcm", RAMP12, WindowCenter=40, WindowWidth=400).read_bytes()
    for at in range(132, len(content) - RAMP12.nbytes, 3):  # every third byte of the header
        broken = content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]
        try:
            assert decode_image(broken, "x.dcm").shape == (64, 64, 3)
        except DataError as error:
            assert str(error).startswith("x.dcm: ")

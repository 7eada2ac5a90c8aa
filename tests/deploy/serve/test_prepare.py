"""Uploaded files become what files of a study become, under limits, and nothing of them stays."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from running_server import Made

from phoropter.data.sources.dicom_names import hide_identifiers
from phoropter.deploy.inputs import open_pictures
from phoropter.deploy.serve.limits import ServeLimits
from phoropter.deploy.serve.prepare import prepare_inputs
from phoropter.deploy.serve.uploads import Upload

LIMITS = ServeLimits()


def upload(*files: tuple[str, bytes]) -> list[Upload]:
    return [Upload(name, data) for name, data in files]


def png(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.new("L", (width, height)).save(out, "PNG")
    return out.getvalue()


def test_a_picture_is_the_square_of_its_file(pictures: Made) -> None:
    given = prepare_inputs(pictures.served, upload(*pictures.load(0), *pictures.load(7)), LIMITS)
    for one, number in zip(given, (0, 7), strict=True):
        expected = pictures.served.predictor.preprocess(Image.open(pictures.files[number][0])).numpy()
        assert np.array_equal(one.squares, expected) and one.name == pictures.files[number][0].name


@pytest.mark.parametrize("kind", ["ecg", "ctg"])
def test_a_recording_is_cut_and_drawn_as_its_file(kind: str, request: pytest.FixtureRequest) -> None:
    made: Made = request.getfixturevalue(kind)
    (given,) = prepare_inputs(made.served, upload(*made.load(0)), LIMITS)
    by_path = made.served.predictor.predict(made.files[0][0], device="cpu")
    assert given.dataset is not None and given.squares is not None
    assert given.dataset.ids.tolist() == by_path.dataset.ids.tolist()
    logits = made.served.predict_squares(pixels_of(given.squares))
    assert np.array_equal(logits, by_path.logits)


def pixels_of(squares: Any) -> Any:
    from phoropter.data.images.pixels import InMemoryPixels

    return InMemoryPixels(squares)


def test_nothing_stays_in_the_temporary_folder(ecg: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    header, signal = ecg.load(0)
    prepare_inputs(ecg.served, upload(header, signal, ("bad.edf", b"0" * 700)), LIMITS)
    assert list(tmp_path.iterdir()) == []


def refused(made: Made, limits: ServeLimits, *files: tuple[str, bytes]) -> str:
    """The one sentence of the first file."""
    first = prepare_inputs(made.served, upload(*files), limits)[0]
    assert first.squares is None and first.error and "Traceback" not in first.error and tempfile.gettempdir() not in first.error
    return first.error


def test_pixels_are_counted_before_they_are_decoded(pictures: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*given: Any) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("phoropter.deploy.serve.prepare.open_image", decode)
    told = refused(pictures, replace(LIMITS, megapixels=0.01), ("big.png", png(200, 100)))
    assert told.startswith("big.png: the header promises 200 × 100 pixels")


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("empty.png", b"", "empty.png: the file is empty"),
        ("cut.png", png(30, 30)[:50], "cut.png: the picture is damaged"),
        ("page.html", b"<!doctype html>", "page.html: not a picture that can be read: it is a web page"),
        ("x.npy", b"\x93NUMPY", "x.npy: not a picture"),
    ],
)
def test_what_is_no_picture_has_a_sentence(pictures: Made, name: str, data: bytes, told: str) -> None:
    assert refused(pictures, LIMITS, (name, data)).startswith(told)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ([("a.dat", b"1")], "a.dat: a signal file without its header; send a.hea with it"),
        ([("a.hea", b"a 1 100 10\na.dat 16 200 16 0 0 0 0 ECG\n")], "its signal file 'a.dat' did not come"),
        (
            [("a.hea", b"a 1 100 10\n../../../etc/passwd 16 200 16 0 0 0 0 ECG\n")],
            "its signal file '../../../etc/passwd' did not",
        ),
        ([("a.hea", b"a/2 1 100 10\nb 5\nc 5\n")], "a record of several segments"),
        ([("a.hea", b"\xff\xfe")], "a.hea: "),
        ([("a.pkl", b"\x80\x04.")], "a.pkl: a recording should end in .hea, .edf, .bdf, .csv or .parquet"),
        ([("m.csv", b"path,rate_hz\n/etc/passwd,100\n")], "m.csv: it is a manifest, which names files of this machine"),
        ([("m.csv", b"PATH;rate_hz\n../x.csv;100\n")], "m.csv: it is a manifest"),
        ([("p.parquet", b"PAR1xxxxPAR1")], "p.parquet: it is no sound Parquet file"),
        ([("é.csv", b"ECG\n1\n")], "the name of a recording here has letters of ASCII"),
        ([(".hidden.csv", b"ECG\n1\n")], "the name of a recording here has letters of ASCII"),
        ([("a.csv", b"ECG\n1\n2\n"), ("a.csv", b"ECG\n1\n2\n")], "two files of the request have this name"),
        ([("a.csv", b"ECG\n1\n2\n")], "a.csv: recording a: 0.02 s is shorter than one window"),
        ([("a.csv", b"RESP\n" + b"1\n2\n" * 800)], "a.csv: "),
        ([("a.edf", b"0" * 600)], "a.edf: "),
    ],
)
def test_what_is_no_recording_has_a_sentence(ecg: Made, files: list[tuple[str, bytes]], told: str) -> None:
    assert told in refused(ecg, LIMITS, *files)


def test_a_recording_longer_than_the_limit_is_refused(ecg: Made) -> None:
    told = refused(ecg, replace(LIMITS, recording_hours=0.01), *ecg.load(0))
    assert "hours, expected at most 0.01; cut it" in told


def test_a_parquet_file_of_many_rows_is_refused_unread(ecg: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas as pd

    out = io.BytesIO()
    pd.DataFrame({"ECG": np.zeros(3_000_000, np.float32)}).to_parquet(out)
    assert len(out.getvalue()) < 100_000
    monkeypatch.setattr("phoropter.deploy.serve.prepare.read_recording_paths", lambda *given: pytest.fail("it was read"))
    assert "3,000,000 rows, more than 4 hours" in refused(ecg, LIMITS, ("a.parquet", out.getvalue()))


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded(pictures: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan of a few bytes is a pass over all pixels: one megabyte of them would take a core for many minutes."""
    out = io.BytesIO()
    Image.new("L", (64, 64)).save(out, "JPEG", progressive=True)
    *first, last = out.getvalue().split(b"\xff\xda")
    assert prepare_inputs(pictures.served, upload(("a.jpg", out.getvalue())), LIMITS)[0].squares is not None
    monkeypatch.setattr("phoropter.deploy.serve.prepare.open_image", lambda *given: pytest.fail("it was decoded"))
    many = b"\xff\xda".join([*first, *[last[:-2]] * 100]) + b"\xff\xd9"
    assert "the JPEG has more than 100 scans" in refused(pictures, LIMITS, ("a.jpg", many))


@pytest.mark.parametrize("columns", [{"ECG": [0.0] * 9, "note": ["x"] * 9}, {"ECG": [[0.0] * 9]}])
def test_texts_and_lists_in_a_parquet_file_are_refused_unread(
    ecg: Made, monkeypatch: pytest.MonkeyPatch, columns: dict[str, Any]
) -> None:
    """They may unpack to any size, whatever the number of rows."""
    import pandas as pd

    out = io.BytesIO()
    pd.DataFrame(columns).to_parquet(out)
    monkeypatch.setattr("phoropter.deploy.serve.prepare.read_recording_paths", lambda *given: pytest.fail("it was read"))
    assert "holds texts or lists; send the columns of numbers alone" in refused(ecg, LIMITS, ("a.parquet", out.getvalue()))


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("a.parquet", None, "a.parquet: it unpacks to 900,000 numbers, expected at most 524,288; cut it"),
        ("a.hea", b"# compressed\na 1 250/1(0)900000\na.dat 516 200/mV\n", "a.hea: it unpacks to 900,000 numbers"),
        ("a.csv", b",".join(b"c%d" % at for at in range(1001)) + b"\n", "a.csv: it has 1,001 columns, expected at most 1,000"),
        ("a.hea", b"# comment\na/2 1 250 2000\na.dat 1000\n", "a record of several segments, which is not read here"),
    ],
)
def test_a_small_file_that_promises_much_is_refused_unread(
    ecg: Made, monkeypatch: pytest.MonkeyPatch, name: str, data: bytes | None, told: str
) -> None:
    import pandas as pd

    out = io.BytesIO()
    pd.DataFrame(np.zeros((9000, 100), np.float32), columns=[f"c{at}" for at in range(100)]).to_parquet(out)
    monkeypatch.setattr("phoropter.deploy.serve.prepare.read_recording_paths", lambda *given: pytest.fail("it was read"))
    files = [(name, data or out.getvalue()), ("a.dat", b"fLaC")]
    assert told in refused(ecg, replace(LIMITS, body_mib=0.5), *files)


def test_a_file_is_answered_by_its_own_contents_whatever_has_a_name_like_it(ecg: Made) -> None:
    """a.csv came before a.hea and was once read in its place."""
    header, signal = ecg.load(0)
    stem = Path(header[0]).stem
    other = "ECG\n" + "".join(f"{value:.3f}\n" for value in np.random.default_rng(0).normal(size=2500))
    (alone,) = prepare_inputs(ecg.served, upload(header, signal), LIMITS)
    table, record = prepare_inputs(ecg.served, upload((f"{stem}.csv", other.encode()), header, signal), LIMITS)
    assert (table.name, record.name) == (f"{stem}.csv", header[0]) and alone.squares is not None
    assert np.array_equal(record.squares, alone.squares)
    assert table.squares is None or len(table.squares) != len(alone.squares)


@pytest.mark.parametrize("name", ["DOE^JOHN.dcm", "DOE_JOHN", "DOE_JOHN.png"])
def test_a_dicom_file_has_the_name_that_a_study_gives_it(
    pictures: Made, tmp_path: Path, write_dicom: Callable[..., Path], name: str
) -> None:
    file = write_dicom(tmp_path / "x.dcm", np.arange(900, dtype=np.uint16).reshape(30, 30), PatientName="Doe^John")
    named = hide_identifiers(open_pictures([file], ("a", "b"), "stop"), read_groups=False).ids.tolist()
    good, cut = prepare_inputs(pictures.served, upload((name, file.read_bytes()), (name, file.read_bytes()[:300])), LIMITS)
    assert [good.name] == named and good.squares is not None
    assert cut.error.startswith(cut.name) and cut.name.startswith("image-")
    assert "doe" not in (good.name + cut.name + cut.error).lower()

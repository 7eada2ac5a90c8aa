"""Files of a request, by name and by each kind of body."""

from __future__ import annotations

import base64
import json

import pytest
from running_server import Running

from phoropter.deploy.serve.limits import RequestRefused
from phoropter.deploy.serve.uploads import MAX_NAME, Upload, clean_upload_name, parse_json_items


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("a.png", "a.png"),
        ("../../etc/passwd", "passwd"),
        ("C:\\scans\\Röntgen 1.dcm", "Röntgen 1.dcm"),
        ("a\n\x00\x1b[31mb.png", "a[31mb.png"),
        ("..", "file"),
        ("", "file"),
        ("\ud800.png", ".png"),
    ],
)
def test_a_name_is_its_last_part_in_letters_that_print(given: str, kept: str) -> None:
    assert clean_upload_name(given) == kept


def test_a_long_name_keeps_its_beginning_and_its_ending() -> None:
    kept = clean_upload_name("x" * 500 + ".png")
    assert len(kept) == MAX_NAME and kept.startswith("xxx") and kept.endswith("x.png")


def test_json_items_are_decoded_in_order() -> None:
    items = [{"name": "b/a.png", "data": base64.b64encode(b"one").decode()}, {"data": ""}]
    assert parse_json_items(json.dumps({"items": items}).encode(), 2) == [Upload("a.png", b"one"), Upload("file-1", b"")]


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"{", 400, "no sound JSON"),
        (b"[" * 5_000, 400, "no sound JSON"),
        (b'{"items": [' + b"[]," * 100_000, 413, "more lists and objects than 32 files need"),
        (b"\xff\xfe\x00", 400, "no sound JSON"),
        (b"[]", 422, "another shape"),
        (b'{"items": [], "more": 1}', 422, "another shape"),
        (b'{"items": [1]}', 422, r"items\[0\] should have a text 'data'"),
        (b'{"items": [{"data": "aGk=", "path": "/etc"}]}', 422, "nothing else"),
        (b'{"items": [{"data": "aGk=", "name": 3}]}', 422, "name should be text"),
        (b'{"items": [{"data": "a*"}]}', 422, "no sound base64"),
        ('{"items": [{"data": "é"}]}'.encode(), 422, "no sound base64"),
    ],
)
def test_other_json_is_refused_in_one_sentence(body: bytes, status: int, told: str) -> None:
    with pytest.raises(RequestRefused, match=told) as refused:
        parse_json_items(body, 32)
    assert refused.value.status == status


@pytest.mark.parametrize(
    ("kind", "body", "status", "told"),
    [
        ("application/x-www-form-urlencoded", b"a=b", 415, "Content-Type is 'application/x-www-form-urlencoded', expected"),
        ("multipart/form-data", b"x", 400, "no sound multipart"),
        ("multipart/form-data; boundary=x", b"junk", 400, "no sound multipart"),
        ("multipart/form-data; boundary=x", b"--x--\r\n", 422, "has no file"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n',
            422,
            "the field 'a' holds no file",
        ),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--\r\n", 400, "no sound"),
        ("application/json", b'{"items": []}', 422, "has no file"),
    ],
)
def test_bodies_that_are_none_are_refused(asked: Running, kind: str, body: bytes, status: int, told: str) -> None:
    answer = asked.ask("POST", "/predict", body, {"Content-Type": kind})
    assert answer.status == status and told in answer.error

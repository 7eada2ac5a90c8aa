"""The files of a request, from its body: multipart/form-data, JSON with base64, or one file as it is. Nothing touches a disk.

Names are what the client says, so that it knows its files again. They are cut to their last part, to letters that print and to
100 of them; a path of the client never becomes a path here.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import re
import unicodedata
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from phoropter.core.errors import join_words
from phoropter.deploy.serve.limits import RequestRefused, ServeLimits

MAX_NAME = 100
_MARKS = 2 * MAX_NAME  # of JSON for each file, those in its name among them
_SEPARATORS = re.compile(r"[/\\]")
_RAW_ENDINGS = {
    **{"text/csv": ".csv", "application/vnd.apache.parquet": ".parquet", "application/dicom": ".dcm"},
    **{"image/png": ".png", "image/jpeg": ".jpg", "image/tiff": ".tif", "image/webp": ".webp", "image/gif": ".gif"},
    **{"image/bmp": ".bmp", "image/avif": ".avif", "image/jp2": ".jp2", "image/x-portable-pixmap": ".ppm"},
    **{"application/edf": ".edf", "application/octet-stream": ""},
}
KINDS_OF_BODY = ("multipart/form-data", "application/json", *_RAW_ENDINGS)


@dataclass(frozen=True)
class Upload:
    """A file of a request. name: without folders, printable, at most MAX_NAME letters"""

    name: str
    data: bytes


class _InMemoryParser(MultiPartParser):
    """Keeps files in memory, whose size is bounded by that of the body, where the standard parser writes large ones to a disk."""

    spool_max_size = 2**62
    is_whole = False

    def on_end(self) -> None:
        """Called at the last boundary, which a body that was cut off lacks."""
        self.is_whole = True

    def close_files(self) -> None:
        """Of all parts, those that were cut off too."""
        for file in self._files_to_close_on_error:
            file.close()


async def read_uploads(request: Request, limits: ServeLimits) -> list[Upload]:
    """At least one file. Raises RequestRefused for another kind of body, too many files, none, and an empty one."""
    kind = request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        uploads = await _read_parts(request, limits)
    elif kind == "application/json":
        uploads = parse_json_items(await request.body(), limits.files)
    elif kind in _RAW_ENDINGS:
        name = request.query_params.get("name") or f"file{_RAW_ENDINGS[kind]}"
        uploads = [Upload(clean_upload_name(name), await request.body())]
    else:
        raise RequestRefused(415, f"Content-Type is {kind[:60]!r}, expected {join_words(KINDS_OF_BODY, 30)}")
    if not uploads:
        raise RequestRefused(422, "the request has no file; send at least one")
    if len(uploads) > limits.files:
        raise RequestRefused(413, f"the request has {len(uploads)} files, expected at most {limits.files}; send fewer at a time")
    return uploads


async def _read_parts(request: Request, limits: ServeLimits) -> list[Upload]:
    parser = _InMemoryParser(request.headers, request.stream(), max_files=limits.files, max_fields=limits.files)
    try:
        form = await parser.parse()
        if not parser.is_whole:
            raise MultiPartException("cut off")
        return [await _read_part(field, value) for field, value in form.multi_items()]
    except MultiPartException as error:
        status = 413 if error.message.startswith("Too many files") else 400
        told = f"it has more than {limits.files} files; send fewer at a time" if status == 413 else "it cannot be taken apart"
        raise RequestRefused(status, f"the body is no sound multipart/form-data: {told}") from None
    except (UnicodeDecodeError, ValueError, KeyError, AttributeError, HTTPException):
        raise RequestRefused(400, "the body is no sound multipart/form-data: it cannot be taken apart") from None
    finally:
        parser.close_files()


async def _read_part(field: str, value: UploadFile | str) -> Upload:
    if not isinstance(value, UploadFile):
        raise RequestRefused(422, f"the field {clean_upload_name(field)!r} holds no file; send files only")
    return Upload(clean_upload_name(value.filename or field), await value.read())


def parse_json_items(body: bytes, files: int) -> list[Upload]:
    """`{"items": [{"name": …, "data": base64}, …]}` → files. Raises RequestRefused for anything else.

    files: about as many as may come. Base64 holds no brackets and commas; millions of them would be parsed for many seconds,
    in which nobody else is answered.
    """
    if sum(body.count(mark) for mark in (b"{", b"[", b",")) > _MARKS * (1 + files):
        raise RequestRefused(413, f"the JSON has more lists and objects than {files} files need; send fewer at a time")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestRefused(400, "the body is no sound JSON") from None
    items: Any = value.get("items") if isinstance(value, dict) else None
    if not isinstance(items, list) or set(value) != {"items"}:
        raise RequestRefused(422, 'expected {"items": [{"name": "a.png", "data": "…base64…"}]}, and the body has another shape')
    return [_parse_item(item, number) for number, item in enumerate(items)]


def _parse_item(item: Any, number: int) -> Upload:
    if not isinstance(item, dict) or not set(item) <= {"name", "data"} or not isinstance(item.get("data"), str):
        raise RequestRefused(422, f"items[{number}] should have a text 'data' and perhaps a 'name', and nothing else")
    name = item.get("name", f"file-{number}")
    if not isinstance(name, str):
        raise RequestRefused(422, f"items[{number}].name should be text")
    try:
        data = base64.b64decode(item["data"], validate=True)
    except (binascii.Error, ValueError):
        raise RequestRefused(422, f"items[{number}].data is no sound base64") from None
    return Upload(clean_upload_name(name), data)


logging.getLogger("python_multipart").addHandler(logging.NullHandler())  # its words about damaged bodies do not reach stderr


def clean_upload_name(text: str) -> str:
    """The last part of a path, NFC, with letters that print; `file` where nothing is left."""
    last = _SEPARATORS.split(unicodedata.normalize("NFC", text))[-1]
    shown = "".join(letter for letter in last if letter.isprintable()).strip()
    if len(shown) > MAX_NAME:  # the ending says what the file is
        shown = shown[: MAX_NAME - 12] + "…" + shown[-11:]
    return shown if shown.strip(".") else "file"

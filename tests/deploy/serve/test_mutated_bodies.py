"""Damaged pictures, recordings and JSON as bodies: no 500, no crash, and no file outside the bundle and a temporary folder.

The suite tries a few of each kind; by hand, `python tests/deploy/serve/by_hand.py 5000` tries that many and prints
the figures. The draws are functions of the kind and a number, so a failure is found again.
"""

from __future__ import annotations

import base64
import io
import json
import os
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from running_server import Made, Running, encode_files, run_server

import phoropter
from mutations import mutate_bytes
from phoropter.core.seeds import named_generator

TRIES = int(os.environ.get("PHOROPTER_FUZZ", "12"))  # of each kind, in the suite
Files = list[tuple[str, bytes]]
PIXELS = np.random.default_rng(0).integers(0, 256, (24, 30, 3), dtype=np.uint8)


def picture(ending: str) -> Files:
    out = io.BytesIO()
    Image.fromarray(PIXELS).save(out, ending)
    return [(f"a.{ending}", out.getvalue())]


def wfdb() -> Files:
    digital = np.random.default_rng(1).integers(-300, 300, 1200).astype("<i2")
    sums = int(digital.astype(int).sum() % 65536)
    header = f"a 1 100 {len(digital)}\na.dat 16 200(0)/mV 16 0 {digital[0]} {sums} 0 ECG\n"
    return [("a.hea", header.encode()), ("a.dat", digital.tobytes())]


def edf() -> Files:
    def field(text: object, size: int) -> bytes:
        return str(text).encode().ljust(size)[:size]

    columns = [(16, "ECG"), (80, ""), (8, "mV"), (8, -32.768), (8, 32.767), (8, -32768), (8, 32767), (80, ""), (8, 100), (32, "")]
    head = field(0, 8) + field("X", 80) + field("", 80) + b"01.01.1100.00.00" + field(512, 8) + field("", 44)
    head += field(12, 8) + field(1, 8) + field(1, 4) + b"".join(field(value, size) for size, value in columns)
    return [("a.edf", head + (np.arange(1200, dtype="<i2") % 900).tobytes())]


def table() -> Files:
    return [("a.csv", b"time,ECG\n" + b"".join(b"%.2f,%d\n" % (i / 100, i % 9) for i in range(1200)))]


def coded() -> Files:
    ((name, data),) = picture("png")
    return [("body", json.dumps({"items": [{"name": name, "data": base64.b64encode(data).decode()}]}).encode())]


KINDS: dict[str, tuple[str, Callable[[], Files]]] = {
    "png": ("pictures", lambda: picture("png")),
    "jpeg": ("pictures", lambda: picture("jpeg")),
    "tiff": ("pictures", lambda: picture("tiff")),
    "json": ("pictures", coded),
    "multipart": ("pictures", lambda: [("body", encode_files(picture("png")))]),
    "wfdb": ("ecg", wfdb),
    "edf": ("ecg", edf),
    "csv": ("ecg", table),
}


class OpenedFiles:
    """Notes which files this process opens, by an audit hook, which cannot be taken away again and so is switched."""

    def __init__(self) -> None:
        self.watching = False
        self.seen: set[str] = set()
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.watching and event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
            self.seen.add(os.fsdecode(arguments[0]))

    @contextmanager
    def watched(self) -> Iterator[None]:
        self.seen, self.watching = set(), True
        try:
            yield
        finally:
            self.watching = False

    def outside(self, bundle: Path) -> list[str]:
        """What was opened elsewhere than in the bundle, the temporary folder and this Python with its packages.

        Left out: where Linux says how many cores there are.
        """
        python = [*sysconfig.get_paths().values(), sys.prefix, sys.base_prefix, str(Path(phoropter.__file__).parent)]
        allowed = [Path(place).resolve() for place in (bundle, tempfile.gettempdir(), "/sys/fs/cgroup", *python)]
        found = [Path(name).resolve() for name in self.seen]
        return sorted(str(f) for f in found if not any(f.is_relative_to(place) for place in allowed))


OPENED = OpenedFiles()


def try_bodies(running: Running, name: str, numbers: range) -> tuple[list[str], float]:
    """What came back that may not, and the seconds of the slowest answer."""
    sound, faults, slowest = KINDS[name][1](), [], 0.0
    for number in numbers:
        random = named_generator("bodies", name, number)
        at = int(random.integers(len(sound)))
        files = [(file, mutate_bytes(data, random) if i == at else data) for i, (file, data) in enumerate(sound)]
        path = "/explain" if number % 8 == 7 else "/predict"
        began = time.monotonic()
        if name == "json":
            answer = running.ask("POST", path, files[0][1], {"Content-Type": "application/json"})
        elif name == "multipart":
            kind = f"multipart/form-data; boundary={encode_files([])[2:-4].decode()}"
            answer = running.ask("POST", path, files[0][1], {"Content-Type": kind})
        else:
            answer = running.post(path, files)
        slowest = max(slowest, time.monotonic() - began)
        known = {"items", "bundle", "notes", "details"} if answer.status == 200 else {"error"}
        if answer.status not in (200, 400, 413, 415, 422) or not set(answer.json) <= known:
            faults.append(f"{name} {number}: {answer.status} {answer.body[:200]!r}")
        if "\n" in json.dumps(answer.json.get("error", "")) or "Traceback" in answer.body.decode():
            faults.append(f"{name} {number}: no sentence: {answer.body[:200]!r}")
    return faults + [line for line in running.lines if "a fault of ours" in line], slowest


@pytest.mark.parametrize("name", KINDS)
def test_damaged_bodies_are_refused_in_one_sentence(name: str, request: pytest.FixtureRequest) -> None:
    made: Made = request.getfixturevalue(KINDS[name][0])
    before = set(Path(tempfile.gettempdir()).glob("phoropter-serve-*/*"))  # of other servers on this machine
    with run_server([made.served]) as running:
        sound = KINDS[name][1]()
        if name not in ("json", "multipart"):
            assert running.post("/predict", sound).status == 200, "undamaged it is answered"
        with OPENED.watched():
            faults, slowest = try_bodies(running, name, range(TRIES))
    assert faults == []
    assert OPENED.outside(made.bundle) == []
    assert slowest < 60  # a hang, not a measurement: machines of tests are shared
    assert not set(Path(tempfile.gettempdir()).glob("phoropter-serve-*/*")) - before, "nothing is left"


def test_the_audit_hook_sees_a_file_that_is_opened_elsewhere(pictures: Made) -> None:
    with OPENED.watched():
        threading.Thread(target=lambda: Path("/etc/hostname").exists() and Path("/etc/hostname").read_bytes()).start()
        with Path("/dev/null").open("rb"):
            pass
    assert "/dev/null" in OPENED.outside(pictures.bundle)

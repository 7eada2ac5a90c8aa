"""A server of its own on a free port of this machine, and how tests ask it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from phoropter.deploy.serve.app import ServeService
from phoropter.deploy.serve.guard import GuardRules
from phoropter.deploy.serve.limits import ServeLimits
from phoropter.deploy.serve.served_bundle import ServedBundle
from phoropter.deploy.serve.server import ServeAddress, make_guarded_application, make_uvicorn_server, open_listening_socket
from phoropter.signals.recording import Recording

BOUNDARY = "0123456789boundary"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        assert set(self.json) == {"error"}, self.body[:300]
        return str(self.json["error"])


@dataclass
class Running:
    """lines: of its log"""

    port: int
    service: ServeService
    lines: list[str] = field(default_factory=list)

    def ask(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body or None, headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def post(self, path: str, files: Sequence[tuple[str, bytes]], headers: dict[str, str] | None = None) -> Answer:
        """Files as multipart/form-data."""
        kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        return self.ask("POST", path, encode_files(files), kind | (headers or {}))

    def begin_request(self, headers: str, body: bytes) -> socket.socket:
        """A connection on which /predict was asked with these lines of headers, and with no more of its body than this."""
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        raw.sendall(f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n\r\n".encode() + body)
        return raw

    def count_waiting(self) -> float | None:
        return self.service.meters.registry.get_sample_value("phoropter_waiting_requests")

    def wait_for_waiting(self, requests: int) -> None:
        while self.count_waiting() != requests:
            time.sleep(0.01)


def encode_files(files: Sequence[tuple[str, bytes]]) -> bytes:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode() + data + b"\r\n"
        for name, data in files
    ]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


@dataclass(frozen=True)
class Made:
    """bundle: its folder · files: to ask it with, those of one recording together"""

    bundle: Path
    files: list[list[Path]]
    served: ServedBundle

    def load(self, number: int) -> list[tuple[str, bytes]]:
        return [(file.name, file.read_bytes()) for file in self.files[number]]


@contextmanager
def run_server(
    bundles: Sequence[ServedBundle], rules: GuardRules | None = None, limits: ServeLimits | None = None
) -> Iterator[Running]:
    service = ServeService(bundles, limits or ServeLimits(), torch.device("cpu"))
    with open_listening_socket(ServeAddress(port=0)) as listening:
        running = Running(listening.getsockname()[1], service)
        server = make_uvicorn_server(make_guarded_application(service, rules or GuardRules(), running.lines.append))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        try:
            yield running
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


def write_wfdb(recording: Recording, folder: Path) -> tuple[Path, Path]:
    """A header and its 16-bit signal file, named like the recording."""
    low, high = np.nanmin(recording.samples, axis=1), np.nanmax(recording.samples, axis=1)
    gain = np.round(20000 / np.maximum(high - low, 1e-6), 3)
    base = np.round(-10000 - low * gain).astype(int)
    digital = np.round(np.nan_to_num(recording.samples * gain[:, None] + base[:, None], nan=-32768)).astype("<i2").T
    lines = [f"{recording.id} {len(recording.channels)} {recording.rate_hz:g} {recording.length}"]
    for at, channel in enumerate(recording.channels):
        sums = int(digital[:, at].astype(int).sum() % 65536)
        first, unit = digital[0, at], recording.units[at] or "mV"
        lines.append(f"{recording.id}.dat 16 {gain[at]:.3f}({base[at]})/{unit} 16 0 {first} {sums} 0 {channel}")
    header, signal = folder / f"{recording.id}.hea", folder / f"{recording.id}.dat"
    header.write_text("\n".join(lines) + "\n")
    signal.write_bytes(digital.tobytes())
    return header, signal


def write_table(recording: Recording, folder: Path) -> Path:
    """A CSV with one column a channel."""
    rows = [",".join("" if not np.isfinite(v) else f"{v:.3f}" for v in row) for row in recording.samples.T.tolist()]
    file = folder / f"{recording.id}.csv"
    file.write_text("\n".join([",".join(recording.channels), *rows]) + "\n")
    return file

"""A connection that does nothing ends; one that is computed or read does not."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from running_server import Made, run_server

from phoropter.deploy.serve.connections import PatientProtocol
from phoropter.deploy.serve.server import ServeAddress, make_uvicorn_server, open_listening_socket


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(PatientProtocol, "idle_s", 0.2)
    monkeypatch.setattr(PatientProtocol, "stalled_s", 0.4)
    yield


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def receive_to_the_end(raw: socket.socket) -> bytes:
    """What comes until the server ends the connection; a time-out is an error."""
    got = b""
    with suppress(ConnectionResetError):
        while part := raw.recv(4000):
            got += part
    return got


@pytest.mark.parametrize("begin", [b"", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"])
def test_a_header_that_comes_letter_by_letter_or_never_ends_its_connection(pictures: Made, begin: bytes) -> None:
    with run_server([pictures.served]) as running, connect(running.port) as raw:
        raw.sendall(begin)
        ended = threading.Event()

        def drip() -> None:
            with suppress(OSError):
                while begin and not ended.wait(0.02):
                    raw.sendall(b"x")

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            assert receive_to_the_end(raw) == b""
        finally:
            ended.set()
            thread.join()


def test_a_second_header_has_its_time_too(pictures: Made) -> None:
    with run_server([pictures.served]) as running, connect(running.port) as raw:
        raw.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        first = raw.recv(4000)
        raw.sendall(b"GET /hea")
        assert (first + receive_to_the_end(raw)).count(b"HTTP/1.1 200 ") == 1


def test_what_is_computed_longer_is_answered(pictures: Made) -> None:
    def compute_late(pixels: Any) -> Any:
        time.sleep(0.8)
        return pictures.served.predict_squares(pixels)

    with run_server([replace(pictures.served, predict_squares=compute_late)]) as running:
        assert running.post("/predict", pictures.load(0)).status == 200


def test_an_answer_that_nobody_reads_ends_its_connection() -> None:
    size = 64 << 20  # more than any socket holds

    async def send_much(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(size).encode())]})
            await send({"type": "http.response.body", "body": bytes(size)})

    with open_listening_socket(ServeAddress(port=0)) as listening:
        server = make_uvicorn_server(send_much)  # type: ignore[arg-type]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            with connect(listening.getsockname()[1]) as raw:
                raw.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                assert raw.recv(10) == b"HTTP/1.1 2"
                while server.server_state.connections:
                    time.sleep(0.01)
        finally:
            server.should_exit = True
            thread.join(30)

"""What is refused before the interface sees it, what every answer carries, and what the log says."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from dataclasses import replace
from typing import Any

import pytest
from running_server import Made, Running, encode_files, run_server

from phoropter.deploy.serve.guard import SECURITY_HEADERS, GuardRules, RequestGuard
from phoropter.deploy.serve.limits import ServeLimits
from phoropter.deploy.serve.meters import ServeMeters
from phoropter.deploy.serve.prepare import prepare_inputs
from phoropter.deploy.serve.uploads import Upload
from phoropter.signals.simulate import ecg_simulate
from small_recordings import PEOPLE

TOKEN = "a-token-of-many-letters"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "127.0.0.2", "[::2]", "evil.example:80"])
def test_another_host_is_refused(asked: Running, host: str) -> None:
    answer = asked.ask("GET", "/version", headers={"Host": host})
    assert answer.status == 403 and "names another server" in answer.error


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:1", "LOCALHOST", "[::1]:99"])
def test_every_name_of_this_machine_is_its_own(asked: Running, host: str) -> None:
    assert asked.ask("GET", "/health", headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    ],
)
def test_a_page_of_another_server_cannot_post(asked: Running, pictures: Made, headers: dict[str, str]) -> None:
    answer = asked.post("/predict", pictures.load(0), headers)
    assert answer.status == 403 and "another server" in answer.error
    own = {"Origin": f"http://127.0.0.1:{asked.port}", "Sec-Fetch-Site": "same-origin"}
    assert asked.post("/predict", pictures.load(0), own).status == 200


def test_a_link_elsewhere_may_lead_here(asked: Running) -> None:
    assert asked.ask("GET", "/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}).status == 200


@pytest.mark.parametrize("path", ["/", "/page.js", "/version", "/nothing", "/metrics"])
def test_every_answer_carries_the_security_headers(asked: Running, path: str) -> None:
    headers = asked.ask("GET", path).headers
    assert {name: headers.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS
    assert "server" not in headers and "unsafe" not in headers["content-security-policy"]
    refused = asked.ask("GET", path, headers={"Host": "evil.example"}).headers
    assert refused["x-content-type-options"] == "nosniff"


def test_a_token_is_needed_where_one_is_set(pictures: Made) -> None:
    with run_server([pictures.served], GuardRules(token=TOKEN)) as running:
        for path in ("/", "/page.css", "/page.js", "/health", "/ready"):
            assert running.ask("GET", path).status == 200
        for path in ("/version", "/metrics", "/openapi.json", "/examples/shapes-net/1.png"):
            answer = running.ask("GET", path)
            assert answer.status == 401 and answer.headers["www-authenticate"] == "Bearer" and "token" in answer.error
        for given in (f"Bearer {TOKEN}x", TOKEN, f"bearer {TOKEN}", f"Bearer {TOKEN[:-1]}", "Bearer é"):
            headers = {"Authorization": given.encode("latin-1").decode("latin-1")}
            assert running.post("/predict", pictures.load(0), headers).status == 401
        assert running.post("/predict", pictures.load(0), {"Authorization": f"Bearer {TOKEN}"}).status == 200


def test_a_body_larger_than_the_limit_is_refused_before_and_while_it_comes(pictures: Made) -> None:
    with run_server([pictures.served], limits=ServeLimits(body_mib=0.01)) as running:
        body = encode_files([("a.png", b"x" * 200_000)])
        told = running.ask("POST", "/predict", body, {"Content-Type": "application/octet-stream"})
        assert told.status == 413 and "larger than 0.01 MiB" in told.error
        with socket.create_connection(("127.0.0.1", running.port), timeout=30) as raw:  # without a length
            raw.sendall(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
            raw.sendall(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
            assert raw.recv(100).startswith(b"HTTP/1.1 413 ")
        assert running.ask("GET", "/health").status == 200


def test_a_body_that_does_not_come_ends_after_its_time(pictures: Made) -> None:
    with run_server([pictures.served], limits=ServeLimits(seconds=0.2)) as running:
        with running.begin_request("Content-Length: 100", b"abc") as raw:
            assert raw.recv(4000).startswith(b"HTTP/1.1 408 ")
        assert running.count_waiting() == 0


def test_an_answer_that_takes_too_long_is_given_up(pictures: Made) -> None:
    gate = threading.Event()

    def compute_late(pixels: Any) -> Any:
        assert gate.wait(60)
        return pictures.served.predict_squares(pixels)

    with run_server([replace(pictures.served, predict_squares=compute_late)], limits=ServeLimits(seconds=0.5)) as running:
        answer = running.post("/predict", pictures.load(0))
        assert answer.status == 503 and "took longer than 0.5 s" in answer.error and answer.headers["retry-after"] == "1"
        assert running.count_waiting() == 0
        gate.set()


def test_one_request_more_than_may_wait_is_told_to_come_again(pictures: Made) -> None:
    with run_server([pictures.served], limits=ServeLimits(waiting=1, seconds=30)) as running:
        with running.begin_request("Content-Length: 100", b"abc"):
            running.wait_for_waiting(1)
            answer = running.post("/predict", pictures.load(0))
            assert answer.status == 429 and int(answer.headers["retry-after"]) >= 1 and "come again" in answer.error
            assert running.ask("GET", "/ready").status == 200, "a supervisor is answered all the same"
        running.wait_for_waiting(0)
        assert running.post("/predict", pictures.load(0)).status == 200


def test_the_bytes_of_all_bodies_are_bounded_too(pictures: Made) -> None:
    with (
        run_server([pictures.served], limits=ServeLimits(body_mib=1, waiting_mib=1)) as running,
        running.begin_request("Content-Length: 1048000", b"abc"),
    ):
        running.wait_for_waiting(1)
        assert running.post("/predict", pictures.load(0)).status == 429


def test_a_length_that_the_body_need_not_have_reserves_nothing(pictures: Made) -> None:
    """Transfer-Encoding overrules Content-Length, so a chunked body counts as the largest."""
    with (
        run_server([pictures.served], limits=ServeLimits(body_mib=1, waiting_mib=1)) as running,
        running.begin_request("Content-Length: 1\r\nTransfer-Encoding: chunked", b""),
    ):
        running.wait_for_waiting(1)
        assert running.post("/predict", pictures.load(0)).status == 429


def test_a_dicom_file_has_no_name_in_the_log_of_a_request_that_was_given_up(pictures: Made) -> None:
    gate = threading.Event()

    with run_server([pictures.served], GuardRules(log_names=True), ServeLimits(seconds=0.3)) as running:
        for _ in range(64):  # all threads that prepare are busy
            running.service._threads.submit(gate.wait, 60)
        assert running.post("/predict", [("DOE^JOHN.dcm", b"x" * 200)]).status == 503
        gate.set()
    assert "image-" in running.lines[0] and "DOE" not in running.lines[0]


def test_what_is_decoded_of_all_requests_is_bounded_and_given_back(ecg: Made) -> None:
    (given,) = prepare_inputs(ecg.served, [Upload(*file) for file in ecg.load(0)], ServeLimits())
    assert given.squares is not None
    recording = ecg_simulate(PEOPLE)[0]  # whose files were sent
    needed = (given.squares.nbytes + recording.samples.nbytes) / 1024**2
    with run_server([ecg.served], limits=ServeLimits(decoded_mib=1.5 * needed)) as running:
        assert running.post("/predict", ecg.load(0)).status == 200
        with running.service.decoded.open_share() as share:
            share.take_bytes(int(0.75 * needed * 1024**2), "another request")
            answer = running.post("/predict", ecg.load(0))
            assert answer.status == 429 and answer.headers["retry-after"] == "1" and "come again" in answer.error
        assert running.post("/predict", ecg.load(0)).status == 200
        both = running.post("/predict", [*ecg.load(0), *ecg.load(1)]).json["items"]
        assert "error" not in both[0] and "cut it, or send fewer files at a time" in both[1]["error"]
        assert running.service.decoded.held == 0


@pytest.mark.parametrize("line", [b"OPTIONS *", b"GET examples", b"GET http://127.0.0.1"])
def test_an_address_without_a_slash_is_answered_and_logged(pictures: Made, line: bytes) -> None:
    with (
        run_server([pictures.served], GuardRules(token="a-token-of-many-letters")) as running,
        socket.create_connection(("127.0.0.1", running.port), timeout=30) as raw,
    ):
        raw.sendall(line + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert raw.recv(4000).startswith(b"HTTP/1.1 401 ")
    assert len(running.lines) == 1 and " other 401 " in running.lines[0]


def test_the_log_has_no_names_unless_asked(pictures: Made) -> None:
    files = [("Müller\nGET forged 200.png", pictures.load(0)[0][1])]
    for log_names in (False, True):
        with run_server([pictures.served], GuardRules(log_names=log_names)) as running:
            assert running.post("/predict?name=secret", files).status == 200
            running.ask("GET", "/etc/passwd-of-Mueller")
        predicted, other = running.lines
        assert predicted.startswith("POST /predict 200 ") and other.startswith("GET other 404 ")
        assert ("M\\u00fcller" in predicted) == log_names
        assert not any("secret" in line or "Mueller" in line or "\n" in line for line in running.lines)


def run_application(app: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """(messages, log) of one GET / through the guard."""
    sent: list[dict[str, Any]] = []
    lines: list[str] = []
    guard = RequestGuard(app, GuardRules(), ServeLimits(), ServeMeters(), lines.append)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"localhost")]}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    asyncio.run(guard(scope, receive, send))  # type: ignore[arg-type]
    return sent, lines


def test_a_fault_of_ours_is_one_sentence_and_a_place_in_the_log() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("patient Mueller")

    (start, body), lines = run_application(broken)
    assert start["status"] == 500 and json.loads(body["body"]) == {"error": "a fault of the server; its log has the place"}
    assert lines[0].startswith("a fault of ours in /: KeyError at test_guard.py:") and "Mueller" not in "".join(lines)

"""Watching: the server on loopback, its state before and after the first run, and what it refuses."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from made_study import Made, make_study

from phoropter.core.errors import StoreError
from phoropter.report.live import server as live_server
from phoropter.results.preparation import PreparationNote
from phoropter.results.store import Store, write_progress_note

SMALL = Made(accuracies={"a": 0.9, "b": 0.8}, classes=("x", "y"), rows=40, folds=2, seeds=(0,), epochs=1, pictures=0)


@dataclass
class Watching:
    """A server of its own on a free port; `look` is called by the test, so that nothing depends on the clock."""

    folder: Path
    watched: live_server.WatchedFolder
    port: int

    def ask(self, path: str, method: str = "GET", host: str | None = None) -> tuple[int, bytes, dict[str, str]]:
        request = Request(f"http://127.0.0.1:{self.port}{path}", method=method, headers={"Host": host} if host else {})
        try:
            with urlopen(request, timeout=30) as answer:
                return answer.status, answer.read(), {k.title(): v for k, v in answer.headers.items()}
        except HTTPError as error:
            with error:
                return error.code, error.read(), {k.title(): v for k, v in error.headers.items()}

    def raw(self, path: str) -> int:
        """As it stands, unlike urllib, which might tidy it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.putrequest("GET", path)
        connection.endheaders()
        status = connection.getresponse().status
        connection.close()
        return status


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watching]:
    (tmp_path / "pages").mkdir()
    watched = live_server.WatchedFolder(tmp_path / "study", tmp_path / "pages")
    with live_server.ReportServer(watched, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield Watching(tmp_path / "study", watched, server.server_address[1])
        server.shutdown()
        thread.join(30)


def test_what_is_being_prepared_is_told_before_the_first_run(watching: Watching) -> None:
    one, other = PreparationNote(watching.folder), PreparationNote(watching.folder / "part-two")
    one.write_progress("decoding images", 1200, 5000)
    other.write_progress("reading the data")
    state = watching.watched.refresh_state()
    assert state["parts"] == [] and state["preparing"] == ["study: decoding images: 1,200 of 5,000", "part-two: reading the data"]
    one.clear()
    other.clear()
    assert watching.watched.refresh_state()["preparing"] == []


def test_state_and_page_from_before_the_study_to_its_first_runs(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_server, "REST_FACTOR", 0.0)
    assert json.loads(watching.ask("/state.json")[1]) == {"folder": "study", "parts": [], "preparing": []}
    watching.watched.refresh_state()
    assert b"phoropter" in watching.ask("/")[1] and watching.ask("/0/index.html")[0] == 404
    store = make_study(watching.folder, Made(**{**vars(SMALL), "missing": 4}))
    key = store.study["plan"][0]["key"]
    write_progress_note(store.work_folder(key), {"candidate": "a", "split": "fold 1", "epoch": 2, "epochs": 9})
    assert watching.watched.refresh_state()["parts"][0]["rows"][0]["running"] == 0, "a note that a killed process left"
    with store.hold_lease(key) as mine:
        assert mine
        (part,) = watching.watched.refresh_state()["parts"]
    assert (part["done"], part["total"], part["page"], part["left"]) == (0, 4, 0, "")
    assert part["rows"][0] == {"candidate": "a", "done": 0, "running": 1, "failed": 0, "missing": 1}
    assert part["running"][0] == "a · fold 1: epoch 2 of 9"
    make_study(watching.folder, Made(**{**vars(SMALL), "missing": 1, "failed": 1}))
    (part,) = watching.watched.refresh_state()["parts"]
    assert (part["done"], part["page"]) == (2, 2) and "the loss left the finite numbers" in part["failures"][0]
    runs = [r.record["cost"] for r in Store(watching.folder).runs()]
    assert part["left"].endswith(" left") and len(runs) == 2 and part["error"] == ""
    status, page, head = watching.ask("/0/index.html?runs=2")
    assert status == 200 and b"fter 2 of 4 runs" in page and head["Content-Type"] == "text/html; charset=utf-8"
    assert watching.ask("/0/tables/leaderboard.csv")[0] == 200
    assert json.loads(watching.ask("/state.json")[1])["parts"][0]["done"] == 2
    assert not (watching.folder / "report").exists(), "the results folder is only read"


def test_a_folder_of_several_parts(watching: Watching) -> None:
    for name in ("x-lax", "x-strict"):
        make_study(watching.folder / name, Made(**{**vars(SMALL), "name": name, "missing": 4}))
    assert [p["name"] for p in watching.watched.refresh_state()["parts"]] == ["x-lax", "x-strict"]


@pytest.mark.parametrize(
    "path",
    [
        "/0/../../study/study.json",
        "/0/..%2f..%2fstudy/study.json",
        "/../study/study.json",
        "/0//index.html",
        "/0/.hidden.html",
        "/0/tables/..",
        "/0/link.html",
        "/0/notes.json",
        "/0/%00.html",
        "/0\\index.html",
        "/x/index.html",
        "/0/a/b/c.html",
        "/0",
        "/etc/passwd",
    ],
)
def test_nothing_but_the_pages_is_served(watching: Watching, path: str) -> None:
    pages = watching.watched.pages / "0"
    pages.mkdir()
    watching.folder.mkdir()
    for name in ("index.html", ".hidden.html", "notes.json"):
        (pages / name).write_text("secret")
    (watching.folder / "study.json").write_text("{}")
    (watching.folder / "outside.html").write_text("secret")
    (pages / "link.html").symlink_to(watching.folder / "outside.html")
    assert watching.ask("/0/index.html")[0] == 200
    assert watching.raw(path) == 404


def test_get_and_head_only_from_this_machine_alone(watching: Watching) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        status, _, head = watching.ask("/", method)
        assert status == 405 and head["Allow"] == "GET, HEAD"
    status, body, head = watching.ask("/", "HEAD")
    assert status == 200 and body == b"" and int(head["Content-Length"]) > 1000
    assert watching.ask("/", host="example.org")[0] == 403
    assert watching.ask("/", host=f"localhost:{watching.port}")[0] == 200
    assert "default-src 'none'" in head["Content-Security-Policy"] and "unsafe" not in head["Content-Security-Policy"]


def test_it_listens_on_loopback_and_says_when_a_port_is_taken(watching: Watching) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(StoreError, match="--port 0"):
        live_server.serve_report(watching.folder, taken.getsockname()[1], lambda line: None)
    assert live_server.HOST == "127.0.0.1"


def test_connections_beyond_the_limit_are_closed(watching: Watching) -> None:
    idle = [socket.create_connection(("127.0.0.1", watching.port), timeout=30) for _ in range(live_server.MAX_REQUESTS)]
    deadline = time.monotonic() + 30
    turned_away = False
    while not turned_away and time.monotonic() < deadline:
        with socket.create_connection(("127.0.0.1", watching.port), timeout=30) as late:
            late.sendall(f"GET /state.json HTTP/1.0\r\nHost: 127.0.0.1:{watching.port}\r\n\r\n".encode())
            try:
                turned_away = late.recv(100) == b""
            except ConnectionError:
                turned_away = True
    for each in idle:
        each.close()
    assert turned_away


def test_the_server_stops_on_interrupt_and_removes_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    said: list[str] = []

    def make_folder(purpose: str) -> Path:
        made.append(tmp_path / "pages")
        made[0].mkdir()
        return made[0]

    monkeypatch.setattr(live_server, "make_temporary_folder", make_folder)

    class Impatient(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            raise KeyboardInterrupt

    live_server.serve_report(tmp_path / "nothing", 0, lambda line: said.append(line), Impatient())
    assert said[0].startswith(f"serving {tmp_path / 'nothing'}: http://127.0.0.1:") and said[1].startswith("stopped serving")
    assert made and not made[0].exists()


def test_the_time_left_is_estimated_from_runs_of_the_same_candidate(tmp_path: Path) -> None:
    store = make_study(tmp_path, Made(**{**vars(SMALL), "folds": 4, "missing": 3}))
    state = live_server.read_study_state(live_server.WatchedStudy(store, tmp_path / "page"))
    costs: dict[str, list[float]] = {}
    for run in store.runs():
        costs.setdefault(run.candidate_name, []).append(
            run.record["cost"]["train_seconds"] + run.record["cost"]["predict_seconds"]
        )
    missing = [p["candidate"] for p in store.study["plan"][-3:]]
    seconds = sum(sum(costs[name]) / len(costs[name]) for name in missing)
    assert state["left"] == live_server.format_time_left(seconds)

"""The page of a study, served on this machine while it runs: how far it is, and the latest report of what is finished.

    GET /                 the state, refreshed every few seconds, and the page below it
    GET /state.json       the same as data
    GET /N/index.html     the latest page of part N, and the files it links

It binds to loopback and answers GET and HEAD for these names alone. It only reads the results folder: pages are written to a
folder of its own that is gone at the end. No locks are taken, so it never stands in a run's way; what is under way is what left a
note (work/KEY/now.json), and how old that note is.
"""

from __future__ import annotations

import json
import mimetypes
import posixpath
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from phoropter.core.durations import format_duration
from phoropter.core.errors import PhoropterError, StoreError
from phoropter.report.page import write_report
from phoropter.report.render.document import content_security_policy, read_page_asset
from phoropter.results.store import Store, read_bounded_json

HOST = "127.0.0.1"
POLL_SECONDS = 2.0  # how often the folder is looked at
REST_FACTOR = 4.0  # a page is written anew at most for a fifth of the time: writing must not slow the runs down
MAX_REQUESTS, MAX_STUDIES, SILENT_SECONDS = 16, 20, 60.0
_SERVED_SUFFIXES = {".html", ".csv", ".md", ".tex", ".svg", ".pdf", ".txt"}


@dataclass
class WatchedStudy:
    """One part of a study: its folder, and where its latest page lies. made: runs finished when it was written, -1: none yet."""

    store: Store
    page_folder: Path
    n_reported: int = -1
    error_message: str = ""
    run_seconds: dict[str, tuple[str, float]] = field(default_factory=dict)


class WatchedFolder:
    """A results folder under watch, or one of several; it may not be there yet."""

    def __init__(self, folder: Path, pages: Path) -> None:
        self.folder, self.pages = folder, pages
        self.parts: list[WatchedStudy] = []
        self._state: dict[str, Any] = {"folder": folder.name, "parts": []}
        self._rest_until = 0.0

    def refresh_state(self) -> dict[str, Any]:
        """Reads the folder, writes pages that have grown old, and remembers the state."""
        known = {w.store.folder for w in self.parts}
        for found in _find_studies(self.folder):
            if found not in known:
                self.parts.append(WatchedStudy(Store(found), self.pages / str(len(self.parts))))
        parts = []
        for watched in self.parts:
            with suppress(PhoropterError, OSError):  # a file that is being replaced: the next look sees it
                state = read_study_state(watched)
                self._refresh_page(watched, state["done"], state["total"])
                parts.append({**state, "page": max(0, watched.n_reported), "trouble": watched.error_message})
        self._state = {"folder": self.folder.name, "parts": parts}
        return self._state

    @property
    def state(self) -> dict[str, Any]:
        """What the last look found."""
        return self._state

    def _refresh_page(self, watched: WatchedStudy, done: int, total: int) -> None:
        if not done or done == watched.n_reported or (done < total and time.monotonic() < self._rest_until):
            return
        began = time.monotonic()
        try:
            write_report(watched.store.folder, watched.page_folder)
            watched.error_message = ""
        except PhoropterError as error:
            watched.error_message = str(error)
        watched.n_reported = done
        self._rest_until = time.monotonic() + REST_FACTOR * (time.monotonic() - began)


def _find_studies(folder: Path) -> list[Path]:
    """The folder, or those in it, that hold a study."""
    if (folder / "study.json").is_file():
        return [folder]
    return sorted(p.parent for p in folder.glob("*/study.json"))[:MAX_STUDIES]


def read_study_state(watched: WatchedStudy) -> dict[str, Any]:
    """What is done, under way, failed and missing, by candidate, and about how long the rest takes."""
    store = watched.store
    study = store.study
    plan = study["plan"]
    failures = store.read_failures()
    now = _read_running(store)
    rows: dict[str, dict[str, Any]] = {}
    for planned in plan:
        key, name = str(planned["key"]), str(planned["candidate"])
        row = rows.setdefault(name, {"candidate": name, "done": 0, "under way": 0, "failed": 0, "missing": 0})
        kind = "done" if key in store else "under way" if key in now else "failed" if key in failures else "missing"
        row[kind] += 1
        if kind == "done" and key not in watched.run_seconds:
            cost = store.run(key).record["cost"]
            watched.run_seconds[key] = name, float(cost.get("train_seconds") or 0) + float(cost.get("predict_seconds") or 0)
    done = sum(r["done"] for r in rows.values())
    alive = sum(n["silent_s"] < SILENT_SECONDS for n in now.values())
    return {
        "name": str(study.get("name", store.folder.name)),
        "done": done,
        "total": len(plan),
        "rows": list(rows.values()),
        "now": list(now.values()),
        "failures": [f"{n.get('candidate')} · {n.get('split')}: {n.get('error')}" for n in failures.values()],
        "left": _estimate_remaining(watched, rows, max(1, alive)) if done < len(plan) else "",
    }


def _read_running(store: Store) -> dict[str, dict[str, Any]]:
    """Key → what a run under way last said, and how long ago."""
    found = {}
    for note in sorted((store.folder / "work").glob("*/now.json")):
        with suppress(StoreError, OSError, KeyError, TypeError):
            said = read_bounded_json(note)
            silent = max(0.0, time.time() - note.stat().st_mtime)
            words = f"{said['candidate']} · {said['split']}: epoch {said['epoch']} of {said['epochs']}"
            words += f", silent for {format_duration(silent)}" if silent >= SILENT_SECONDS else ""
            if note.parent.name not in store:
                found[note.parent.name] = {"words": words, "silent_s": silent}
    return found


def _estimate_remaining(watched: WatchedStudy, rows: dict[str, dict[str, Any]], workers: int) -> str:
    """By the mean of each candidate's finished runs; of one without, by the mean of all."""
    if not watched.run_seconds:
        return ""
    everything = [s for _, s in watched.run_seconds.values()]
    whole = 0.0
    for name, row in rows.items():
        own = [s for n, s in watched.run_seconds.values() if n == name] or everything
        whole += (row["under way"] + row["missing"]) * sum(own) / len(own)
    return f"about {format_duration(whole / workers)} left" if whole else ""


# ------------------------------------------------------------------------------------------------------------ the server


class ReportServer(ThreadingHTTPServer):
    """Answers on loopback, at most AT_ONCE requests at a time; more are turned away."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, folder: WatchedFolder, port: int) -> None:
        self.watched = folder
        self._free = threading.BoundedSemaphore(MAX_REQUESTS)
        super().__init__((HOST, port), ReportHandler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that went away is no news."""


class ReportHandler(BaseHTTPRequestHandler):
    """GET and HEAD of a few names; everything else is refused."""

    server: ReportServer
    server_version, sys_version = "phoropter", ""
    timeout = 10  # seconds a reader may take

    def do_GET(self) -> None:
        self._answer_request(body=True)

    def do_HEAD(self) -> None:
        self._answer_request(body=False)

    def _refuse_method(self) -> None:
        self._send_content(
            HTTPStatus.METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", b"GET and HEAD only\n", True, {"Allow": "GET, HEAD"}
        )

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _refuse_method

    def _answer_request(self, body: bool) -> None:
        port = self.server.server_address[1]
        if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):  # a name from elsewhere that leads here
            self._send_content(HTTPStatus.FORBIDDEN, "text/plain; charset=utf-8", b"this page is for this machine alone\n", body)
            return
        path = unquote(urlsplit(self.path).path)
        if path == "/":
            css, script = (
                read_page_asset("watch.css", "phoropter.report.live"),
                read_page_asset("watch.js", "phoropter.report.live"),
            )
            page = read_page_asset("watch.html", "phoropter.report.live").replace("{css}", css).replace("{script}", script)
            rules = {
                "Content-Security-Policy": f"{content_security_policy(css, script)}; connect-src 'self'; frame-src 'self'; base-uri 'none'"
            }
            self._send_content(HTTPStatus.OK, "text/html; charset=utf-8", page.encode(), body, rules)
        elif path == "/state.json":
            state = json.dumps(self.server.watched.state).encode()
            self._send_content(HTTPStatus.OK, "application/json", state, body)
        elif (file := _find_page_file(self.server.watched, path)) is not None:
            kind = mimetypes.guess_type(file.name)[0] or "text/plain"
            self._send_content(
                HTTPStatus.OK, kind + ("; charset=utf-8" if kind.startswith("text/") else ""), file.read_bytes(), body
            )
        else:
            self._send_content(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"there is no such page\n", body)

    def _send_content(self, status: HTTPStatus, kind: str, data: bytes, body: bool, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        always = {"Content-Type": kind, "Content-Length": str(len(data)), "Cache-Control": "no-store"}
        always |= {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Connection": "close"}
        for name, value in (always | (more or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """The terminal is for the one who watches."""


def _find_page_file(folder: WatchedFolder, path: str) -> Path | None:
    """A file of a part's page: N/name or N/tables|figures/name, plain names only; None for anything else."""
    parts = path.split("/")[1:]
    if posixpath.normpath(path) != path or len(parts) not in (2, 3) or "\\" in path or "\x00" in path:
        return None
    if not parts[0].isdecimal() or any(p.startswith(".") or not p for p in parts):
        return None
    file = folder.pages.joinpath(*parts)
    inside = file.resolve().is_relative_to(folder.pages.resolve())
    return file if inside and file.suffix in _SERVED_SUFFIXES and file.is_file() else None


def serve_report(folder: Path, port: int, say: Callable[[str], object], stop: threading.Event | None = None) -> None:
    """Serves until Ctrl-C (or `stop`). say: told the address, and that it has ended.

    Raises StoreError where the port is taken.
    """
    stop = stop or threading.Event()
    pages = Path(tempfile.mkdtemp(prefix="phoropter-watch-"))
    try:
        watched = WatchedFolder(folder, pages)
        with _open_server(watched, port) as server:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
            say(f"watching {folder}: http://{HOST}:{server.server_address[1]}/ (Ctrl-C ends the watching, not the study)")
            try:
                while not stop.wait(POLL_SECONDS if watched.parts else POLL_SECONDS / 4):
                    watched.refresh_state()
            except KeyboardInterrupt:
                pass
            server.shutdown()
        say("stopped watching; the study goes on, if it is running")
    finally:
        shutil.rmtree(pages, ignore_errors=True)


def _open_server(watched: WatchedFolder, port: int) -> ReportServer:
    try:
        return ReportServer(watched, port)
    except OSError as error:
        raise StoreError(f"port {port} of this machine cannot be used ({error.strerror}): name another, or --port 0") from None

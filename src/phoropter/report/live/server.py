"""The page of a study, served on this machine while it runs: its progress, and the latest report of the finished runs.

    GET /                 progress, refreshed every two seconds, above the report
    GET /state.json       the same as data
    GET /N/index.html     the latest report of study N in the folder, and the files that it links

The results folder is only read: pages are written to a temporary folder, which is all that is served. The server binds to the
loopback address, checks the Host header (against DNS rebinding) and answers GET and HEAD of these names alone.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from phoropter.core.durations import format_duration, format_time_left
from phoropter.core.errors import PhoropterError, StoreError
from phoropter.core.files import make_temporary_folder, write_text
from phoropter.report.page import write_report
from phoropter.report.render.document import content_security_policy, read_page_asset
from phoropter.results.preparation import describe_preparation
from phoropter.results.store import RunState, Store

HOST = "127.0.0.1"
POLL_SECONDS = 2.0  # between two looks at the folder
REST_FACTOR = 4.0  # reports take at most a fifth of the time, so that writing them does not slow the runs down
MAX_REQUESTS, MAX_STUDIES, SILENT_SECONDS = 16, 20, 60.0
_SERVED_SUFFIXES = {".html", ".csv", ".md", ".tex", ".svg", ".pdf", ".txt"}
_ROW_STATES: tuple[RunState, ...] = ("done", "running", "failed", "missing")


@dataclass
class WatchedStudy:
    """One study of the folder and its latest report. n_reported: finished runs in that report, -1 before the first."""

    store: Store
    page_folder: Path
    n_reported: int = -1
    error_message: str = ""
    run_seconds: dict[str, tuple[str, float]] = field(default_factory=dict)


class WatchedFolder:
    """A results folder, or a folder of several; it need not exist yet. `pages`: the folder that is served."""

    def __init__(self, folder: Path, pages: Path) -> None:
        self.folder, self.pages = folder, pages
        self.parts: list[WatchedStudy] = []
        self._rest_until = 0.0
        write_text(pages / "index.html", render_watch_page()[0])
        self._write_state([])

    def refresh_state(self) -> dict[str, Any]:
        """Reads the folder, rewrites outdated reports and state.json, and returns the state."""
        known = {w.store.folder for w in self.parts}
        for path in _find_studies(self.folder):
            if path not in known:
                self.parts.append(WatchedStudy(Store(path), self.pages / str(len(self.parts))))
        parts = []
        for watched in self.parts:
            with suppress(PhoropterError, OSError):  # a file that is being replaced is read at the next look
                state = read_study_state(watched)
                self._refresh_page(watched, state["done"], state["total"])
                parts.append({**state, "page": max(0, watched.n_reported), "error": watched.error_message})
        return self._write_state(parts)

    def _write_state(self, parts: list[dict[str, Any]]) -> dict[str, Any]:
        state = {"folder": self.folder.name, "parts": parts, "preparing": self._describe_preparations()}
        write_text(self.pages / "state.json", json.dumps(state))
        return state

    def _describe_preparations(self) -> list[str]:
        """What is being prepared in the folder and its subfolders: a study has runs to show only after that."""
        folders = [self.folder, *sorted(p.parent.parent for p in self.folder.glob("*/work/preparing.json"))[:MAX_STUDIES]]
        return [f"{folder.name}: {words}" for folder in folders if (words := describe_preparation(folder))]

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
    """The folder itself or its subfolders, whichever hold a study."""
    if (folder / "study.json").is_file():
        return [folder]
    return sorted(p.parent for p in folder.glob("*/study.json"))[:MAX_STUDIES]


def read_study_state(watched: WatchedStudy) -> dict[str, Any]:
    """Counts of done, running, failed and missing runs by candidate, and the estimated time left."""
    store = watched.store
    study, states = store.study, store.read_run_states()
    rows: dict[str, dict[str, Any]] = {}
    planned_rows = store.planned_rows
    for planned in planned_rows:
        key, name = str(planned["key"]), str(planned["candidate"])
        row = rows.setdefault(name, {"candidate": name, **dict.fromkeys(_ROW_STATES, 0)})
        row["missing" if states[key] == "damaged" else states[key]] += 1
        if states[key] == "done" and key not in watched.run_seconds:
            cost = store.run(key).record["cost"]
            own, shared = (
                sum(float(cost.get(f"{part}_seconds") or 0) for part in parts)
                for parts in (("train", "predict"), ("train_pass", "predict_pass"))
            )
            watched.run_seconds[key] = name, own - shared  # a pass that is done is not to come again
    done = sum(r["done"] for r in rows.values())
    notes = store.read_progress_notes().values()
    active = sum(note["silent_s"] < SILENT_SECONDS for note in notes)
    return {
        "name": str(study.get("name", store.folder.name)),
        "done": done,
        "total": len(planned_rows),
        "rows": list(rows.values()),
        "running": [_describe_running(note) for note in notes],
        "failures": [f"{n.get('candidate')} · {n.get('split')}: {n.get('error')}" for n in store.read_failures().values()],
        "left": _estimate_remaining(watched, rows, max(1, active)) if done < len(planned_rows) else "",
    }


def _describe_running(note: dict[str, Any]) -> str:
    text = f"{note.get('candidate')} · {note.get('split')}: epoch {note.get('epoch')} of {note.get('epochs')}"
    silent = note["silent_s"]
    return f"{text}, no progress for {format_duration(silent)}" if silent >= SILENT_SECONDS else text


def _estimate_remaining(watched: WatchedStudy, rows: dict[str, dict[str, Any]], workers: int) -> str:
    """From the mean time of each candidate's finished runs, or of all finished runs where it has none."""
    if not watched.run_seconds:
        return ""
    all_seconds = [s for _, s in watched.run_seconds.values()]
    total = 0.0
    for name, row in rows.items():
        seconds = [s for n, s in watched.run_seconds.values() if n == name] or all_seconds
        total += (row["running"] + row["missing"]) * sum(seconds) / len(seconds)
    return format_time_left(total / workers if total else None)


def render_watch_page() -> tuple[str, str]:
    """The page around the reports, and its content security policy."""
    css, script = (read_page_asset(name, "phoropter.report.live") for name in ("watch.css", "watch.js"))
    page = read_page_asset("watch.html", "phoropter.report.live").replace("{css}", css).replace("{script}", script)
    return page, f"{content_security_policy(css, script)}; connect-src 'self'; frame-src 'self'; base-uri 'none'"


class ReportServer(ThreadingHTTPServer):
    """Serves at most MAX_REQUESTS requests at a time and closes further connections."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, folder: WatchedFolder, port: int) -> None:
        self.pages, self.policy = folder.pages, render_watch_page()[1]
        self._free = threading.BoundedSemaphore(MAX_REQUESTS)
        super().__init__((HOST, port), partial(ReportHandler, directory=str(folder.pages)))

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
        """Silent: a client that disconnects is not an error."""


class ReportHandler(SimpleHTTPRequestHandler):
    """The standard file handler, restricted to the names that are served and to requests from this machine."""

    server: ReportServer
    server_version, sys_version = "phoropter", ""
    timeout = 10  # seconds that a client may take

    def send_head(self) -> Any:
        port = self.server.server_address[1]
        if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):
            return self._refuse(HTTPStatus.FORBIDDEN)
        path = unquote(urlsplit(self.path).path)
        if path not in ("/", "/state.json") and not _is_served_file(self.server.pages, path):
            return self._refuse(HTTPStatus.NOT_FOUND)
        del self.headers["If-Modified-Since"]  # a page may be rewritten twice in the second that this header can tell
        return super().send_head()

    def _refuse(self, status: HTTPStatus) -> BinaryIO | None:
        self.send_error(status)
        return None

    def _refuse_method(self) -> None:
        self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _refuse_method

    def end_headers(self) -> None:
        headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
        headers |= {"Allow": "GET, HEAD"}
        if urlsplit(self.path).path == "/":  # reports carry a policy of their own
            headers["Content-Security-Policy"] = self.server.policy
        for name, value in headers.items():
            self.send_header(name, value)
        super().end_headers()

    def guess_type(self, path: Any) -> str:
        kind = super().guess_type(path)
        return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: the terminal shows the address only."""


def _is_served_file(pages: Path, path: str) -> bool:
    """Whether the path is N/name or N/tables|figures/name of a report, without links, dots and empty parts."""
    parts = path.split("/")[1:]
    plain = all(part and not part.startswith(".") and not set(part) & {"\\", "\x00"} for part in parts)
    if not plain or len(parts) not in (2, 3) or not parts[0].isdecimal():
        return False
    file = pages.joinpath(*parts)
    return file.suffix in _SERVED_SUFFIXES and file.is_file() and file.resolve().is_relative_to(pages.resolve())


def serve_report(folder: Path, port: int, say: Callable[[str], object], stop: threading.Event | None = None) -> None:
    """Serves until Ctrl-C or `stop`. say: called with the address, and at the end. Raises StoreError where the port is taken."""
    stop = stop or threading.Event()
    pages = make_temporary_folder("live")
    try:
        watched = WatchedFolder(folder, pages)
        with _open_server(watched, port) as server:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
            say(f"serving {folder}: http://{HOST}:{server.server_address[1]}/ (Ctrl-C stops the server, not the study)")
            try:
                while not stop.wait(POLL_SECONDS if watched.parts else POLL_SECONDS / 4):
                    watched.refresh_state()
            except KeyboardInterrupt:
                pass
            server.shutdown()
        say("stopped serving; the study goes on if it is running")
    finally:
        shutil.rmtree(pages, ignore_errors=True)


def _open_server(watched: WatchedFolder, port: int) -> ReportServer:
    try:
        return ReportServer(watched, port)
    except OSError as error:
        raise StoreError(f"port {port} of this machine cannot be used ({error.strerror}): name another, or --port 0") from None

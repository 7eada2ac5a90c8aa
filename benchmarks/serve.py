"""`phoropter serve` under load, on the loopback address of this machine: answers, memory, latency, batching, ONNX Runtime.

    python -m benchmarks.serve                       200 clients for 60 s, about four minutes in all
    python -m benchmarks.serve --seconds 5 --clients 50

The server is a process of its own; all clients are one other process, which keeps its connections open and posts JPEG files as
fast as they are answered. A client that is told 429 comes again after the seconds that the answer names.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line has it
sys.path.insert(0, str(Path(__file__).parent))  # for `python -m benchmarks.serve`

from _sides import figure, in_turns, row, write

NETWORK, SIDE, CLASSES = "mobilenetv3_small_050", 96, 10
SETTLED_S = 10.0  # after which memory should not grow
BATCHED = 32


def make_bundle(folder: Path) -> Path:
    """A small network with random weights, as a study would save it: how fast it answers does not depend on what it learnt."""
    from phoropter.models.classifier import build_classifier, save_classifier
    from phoropter.models.spec import BackboneSpec, ClassifierSpec
    from phoropter.training.candidates.candidate_entry import parse_candidates
    from phoropter.training.candidates.recipe import Recipe

    backbone = BackboneSpec(name=NETWORK, weights="random", size=SIDE)
    spec = ClassifierSpec(backbones=(backbone,), classes=tuple(f"class {i}" for i in range(CLASSES)), picture=SIDE)
    (candidate,) = parse_candidates([{"name": NETWORK, "backbone": NETWORK, "weights": "random"}], Recipe())
    training = {"candidate": candidate.plain(), "data": {"folder": "pictures", "size": SIDE}}
    save_classifier(build_classifier(spec, seed=0), folder, training=training)
    return folder


def make_jpegs(count: int = 64) -> list[bytes]:
    """Photographs of 200 × 150 pixels, as far as noise of several scales is one."""
    draw = np.random.default_rng(0)
    files = []
    for _ in range(count):
        coarse = Image.fromarray(draw.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((200, 150), Image.Resampling.BICUBIC)
        out = io.BytesIO()
        coarse.save(out, "JPEG", quality=85)
        files.append(out.getvalue())
    return files


@contextmanager
def serving(bundle: Path, *limits: str) -> Iterator[tuple[int, psutil.Process]]:
    """(port, process) of a server. Its log is drained, so that it never waits for it."""
    command = [sys.executable, "-m", "phoropter", "serve", str(bundle), "--port", "0", "--device", "cpu"]
    command += [word for limit in limits for word in ("--limit", limit)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", first := process.stderr.readline())
        if not found:
            process.kill()
            raise SystemExit(f"the server did not start: {first}")
        reader = threading.Thread(target=process.stderr.read, daemon=True)
        reader.start()
        try:
            yield int(found[1]), psutil.Process(process.pid)
        finally:
            process.terminate()
            reader.join(30)


@dataclass
class Load:
    """What all clients saw. seconds: of each answered request · began, ended: of the load"""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    began: float = 0.0
    ended: float = 0.0

    @property
    def per_second(self) -> float:
        return len(self.seconds) / (self.ended - self.began)

    def quantile_ms(self, share: float) -> float:
        return 1000 * float(np.quantile(self.seconds, share))


async def ask_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[int, dict[bytes, bytes]]:
    """(status, headers) of one answer, whose body is read too."""
    writer.write(request)
    await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    headers = dict(line.lower().split(b": ", 1) for line in lines if line)
    await reader.readexactly(int(headers.get(b"content-length", b"0")))
    return int(first.split()[1]), headers


async def run_client(port: int, files: list[bytes], number: int, until: float, load: Load) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    at = number
    while time.monotonic() < until:
        body = files[at % len(files)]
        head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
        began = time.monotonic()
        status, headers = await ask_once(reader, writer, head.encode() + body)
        load.statuses[status] += 1
        if status == 200:
            load.seconds.append(time.monotonic() - began)
            at += 1
        elif status == 429:
            await asyncio.sleep(float(headers[b"retry-after"]))
    writer.close()


def put_under_load(port: int, files: list[bytes], clients: int, seconds: float) -> Load:
    """So many clients for so many seconds."""
    load = Load(began=time.monotonic())

    async def run_all() -> None:
        until = load.began + seconds
        await asyncio.gather(*(run_client(port, files, number, until, load) for number in range(clients)))

    asyncio.run(run_all())
    load.ended = time.monotonic()
    return load


@contextmanager
def watching_memory(process: psutil.Process) -> Iterator[list[tuple[float, int]]]:
    """(seconds, bytes of resident memory), every half second."""
    seen: list[tuple[float, int]] = []
    began, done = time.monotonic(), threading.Event()

    def look() -> None:
        while not done.wait(0.5):
            seen.append((time.monotonic() - began, process.memory_info().rss))

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


def measure_load(bundle: Path, files: list[bytes], clients: int, seconds: float) -> dict[str, Any]:
    """The server under many clients: statuses, memory after the first seconds, latency."""
    with serving(bundle) as (port, process), watching_memory(process) as seen:
        load = put_under_load(port, files, clients, seconds)
    settled = [rss for at, rss in seen if at >= min(SETTLED_S, seconds / 2)]
    growth = max(settled) / settled[0]
    other = {status: n for status, n in load.statuses.items() if status not in (200, 429)}
    return figure(
        f"{clients} clients for {seconds:g} s: resident memory at most, of that after {min(SETTLED_S, seconds / 2):g} s",
        [growth],
        1.05,
        f"{max(settled) / 2**20:.0f} MiB",
        f"{settled[0] / 2**20:.0f} MiB",
        statuses=dict(sorted(load.statuses.items())),
        other_statuses=other,
        per_second=round(load.per_second, 1),
        p50_ms=round(load.quantile_ms(0.5), 1),
        p99_ms=round(load.quantile_ms(0.99), 1),
        request_bytes=round(statistics.mean(map(len, files))),
    )


def measure_batching(bundle: Path, files: list[bytes], seconds: float, turns: int = 3) -> dict[str, Any]:
    """Answers a second with batches across requests, in those of a server that computes one picture at a time."""
    with serving(bundle) as (ours, _), serving(bundle, "batch_rows=1") as (theirs, _):
        rates: dict[int, list[float]] = {ours: [], theirs: []}
        for turn in range(turns + 1):  # the first warms both
            for port in (ours, theirs)[:: 1 if turn % 2 else -1]:
                rates[port].append(put_under_load(port, files, BATCHED, seconds).per_second)
    return figure(
        f"answers a second to {BATCHED} clients, batches of up to {BATCHED} against one by one",
        [a / b for a, b in zip(rates[ours][1:], rates[theirs][1:], strict=True)],
        2.0,
        f"{statistics.median(rates[ours][1:]):,.0f} /s",
        f"{statistics.median(rates[theirs][1:]):,.0f} /s",
    )


def measure_one(bundle: Path, files: list[bytes], seconds: float) -> dict[str, Any]:
    """One client: the time of one picture from its bytes to its answer, against the network alone."""
    from phoropter.data.images.pixels import InMemoryPixels

    with serving(bundle) as (port, _):
        put_under_load(port, files, 1, 1.0)
        load = put_under_load(port, files, 1, seconds)
    compute, squares = load_network(bundle)
    times = []
    for _ in range(50):
        began = time.perf_counter()
        compute(InMemoryPixels(squares[:1]))
        times.append(time.perf_counter() - began)
    alone = statistics.median(times[10:])
    return figure(
        "one picture of one client, from its bytes to its answer, in times of the network alone",
        [s / alone for s in load.seconds],
        None,
        f"{load.quantile_ms(0.5):.1f} ms (p99 {load.quantile_ms(0.99):.1f})",
        f"{1000 * alone:.1f} ms",
    )


def load_network(bundle: Path) -> tuple[Any, np.ndarray[Any, np.dtype[np.uint8]]]:
    """The function of the bundle's network, and squares for it."""
    import torch

    from phoropter.deploy.bundle import load_bundle
    from phoropter.deploy.predict import make_square_predictor

    squares = np.random.default_rng(1).integers(0, 256, (BATCHED, 3, SIDE, SIDE), dtype=np.uint8)
    return make_square_predictor(load_bundle(bundle), torch.device("cpu")), squares


def measure_onnx(bundle: Path, files: list[bytes], folder: Path, turns: int) -> Iterator[dict[str, Any]]:
    """The exported network in ONNX Runtime against eager torch, both on all cores."""
    from phoropter.data.images.pixels import InMemoryPixels
    from phoropter.deploy.export.onnx_file import open_onnx

    pictures = folder / "pictures"
    pictures.mkdir()
    for number, data in enumerate(files[:16]):
        (pictures / f"{number}.jpg").write_bytes(data)
    command = [
        sys.executable,
        "-m",
        "phoropter",
        "export",
        str(bundle),
        "-o",
        str(folder / "net.onnx"),
        "--inputs",
        str(pictures),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"phoropter export: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    exported = open_onnx(folder / "net.onnx")
    compute, squares = load_network(bundle)
    for rows in (1, BATCHED):
        some = squares[:rows]
        calls = max(8, 100 // rows)

        def run_ours(some: Any = some, calls: int = calls) -> None:
            for _ in range(calls):
                exported(some)

        def run_theirs(some: Any = some, calls: int = calls) -> None:
            for _ in range(calls):
                compute(InMemoryPixels(some))

        taken = in_turns(run_ours, run_theirs, turns, clock="wall")
        yield row(f"ONNX Runtime against eager torch, batches of {rows}", taken, None, calls * rows, "pictures")


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of the load")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--name", default="serve", help="of the file in results/")
    given = parser.parse_args(words)

    def rows() -> Iterator[dict[str, Any]]:
        with tempfile.TemporaryDirectory() as name:
            bundle, files = make_bundle(Path(name) / "net"), make_jpegs()
            load = measure_load(bundle, files, given.clients, given.seconds)
            print(json.dumps({key: load[key] for key in ("statuses", "per_second", "p50_ms", "p99_ms")}))
            yield load
            yield measure_batching(bundle, files, max(2.0, given.seconds / 6))
            yield measure_one(bundle, files, max(2.0, given.seconds / 6))
            yield from measure_onnx(bundle, files, Path(name), 5)

    write(given.name, rows())


if __name__ == "__main__":
    main()

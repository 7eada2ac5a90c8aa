"""Many small pictures in a folder, in Parquet shards and in tars: seconds and memory to pack, to look at and to read them.

    python -m benchmarks.packed_pictures [FOLDER] [--pictures 200000] [--work DIR] [--size 32] [--without-folder]

FOLDER has a folder of pictures for each class; without it, so many of 64 pixels are made, in minutes. `phoropter pack` writes
the Parquet files; the tars, whose samples are a picture and a `.cls`, are written by tarfile and not timed. Each step is a
process of its own, timed with its start on a cache of its own: `inspect` twice, then decoding into the pixel cache and reading
all pixels once in random order. Memory is what all its processes hold for themselves (anonymous pages), sampled ten times a
second: pages of mapped files, such as those of the pixel cache, are the system's to drop.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parent))
from _pictures import folder_of

OUT = Path(__file__).parent / "results" / "packed_pictures.json"
TARS = 8


def time_process(command: list[str], cache: Path) -> dict[str, Any]:
    """Seconds on the wall and the largest MiB of a command and its children; it must end well."""
    began, largest = time.monotonic(), 0
    running = subprocess.Popen(
        [sys.executable, "-m", *command], env={**os.environ, "PHOROPTER_CACHE": str(cache)}, stdout=subprocess.PIPE, text=True
    )
    while True:
        try:
            said, _ = running.communicate(timeout=0.1)
            break
        except subprocess.TimeoutExpired:
            largest = max(largest, measure_memory(running.pid))
    if running.returncode:
        raise SystemExit(f"{' '.join(command)} ended with exit code {running.returncode}: {said[-1000:]}")
    lines = [line for line in said.splitlines() if line.startswith("{")]
    told = json.loads(lines[-1]) if command[0].startswith("benchmarks") else {}
    return {"seconds": round(time.monotonic() - began, 1), "mib": largest >> 20, **told}


def measure_memory(pid: int) -> int:
    """Anonymous bytes of a process and its children."""
    total = 0
    with suppress(psutil.Error, OSError):  # one of them has just ended
        for process in [(me := psutil.Process(pid)), *me.children(recursive=True)]:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
            total += sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
    return total


def write_tars(folder: Path, out: Path) -> None:
    """TARS shards; the pictures of each class are spread over all of them."""
    out.mkdir(parents=True)
    files = sorted(path for kind in folder.iterdir() if kind.is_dir() for path in kind.iterdir())
    for number in range(TARS):
        with tarfile.open(out / f"data-{number:03d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for path in files[number::TARS]:
                name = f"{path.parent.name}-{path.stem}"
                for ending, content in ((path.suffix, path.read_bytes()), (".cls", path.parent.name.encode())):
                    member = tarfile.TarInfo(f"{name}{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def read_epoch(source: str, path: Path, size: int) -> dict[str, float]:
    """Seconds to open the data, to decode them into the cache of this process, and to read all rows once in random order."""
    from phoropter.core.files import cache_dir
    from phoropter.data.images.cache import prepare_pixels
    from phoropter.data.spec import DataSpec, open_dataset

    began = time.monotonic()
    dataset = open_dataset(DataSpec(**{source: path}))
    opened = time.monotonic()
    dataset, pixels = prepare_pixels(dataset, size, cache=cache_dir())[:2]
    decoded = time.monotonic()
    order = np.random.default_rng(0).permutation(len(dataset))
    for start in range(0, len(order), 256):
        pixels.batch(order[start : start + 256])
    ended = time.monotonic()
    return {"rows": len(dataset), "open_s": opened - began, "decode_s": decoded - opened, "read_s": ended - decoded}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--pictures", type=int, default=200_000)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--without-folder", action="store_true")
    parser.add_argument("--source", help="read one epoch of FOLDER as this source, in this process")
    asked = parser.parse_args()
    if asked.source:
        print(json.dumps(read_epoch(asked.source, asked.folder, asked.size)))
        return
    with tempfile.TemporaryDirectory(dir=asked.work) as made:
        work, rows = Path(made), dict[str, Any]()
        folder = asked.folder or folder_of("pictures of 64 pixels", asked.pictures, (64, 64), work / "pictures")
        (work / "study.yaml").write_text(f"name: many\ndata: {{folder: {folder.resolve()}}}\ncandidates: [resnet18]\n")
        rows["pack"] = time_process(
            ["phoropter", "pack", str(work / "study.yaml"), "-o", str(work / "parquet")], work / "packing"
        )
        print("pack", rows["pack"], flush=True)
        write_tars(folder, work / "tars")
        sources = {"folder": folder, "parquet": work / "parquet", "shards": work / "tars"}
        for source, path in list(sources.items())[asked.without_folder :]:
            cache = work / f"cache-{source}"
            for step in ("inspect first", "inspect again"):
                rows[f"{source}: {step}"] = time_process(["phoropter", "inspect", str(path)], cache)
                print(source, step, rows[f"{source}: {step}"], flush=True)
            words = ["benchmarks.packed_pictures", str(path), "--source", source, "--size", str(asked.size)]
            for step in ("epoch first", "epoch again"):
                rows[f"{source}: {step}"] = time_process(words, cache)
                print(source, step, rows[f"{source}: {step}"], flush=True)
    known = {"load": round(os.getloadavg()[0], 1), "date": time.strftime("%Y-%m-%d"), "steps": rows}
    OUT.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()

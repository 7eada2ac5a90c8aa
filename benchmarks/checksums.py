"""What comparing checksums costs: bytes per second of the function, and its share of a whole study.

    python benchmarks/checksums.py [FOLDER OF PICTURES]

The share is the processor time of all functions of core/storage that read, compute or write checksums, of the processor time
of the whole study (decoding, features, training); then of the same study with its runs deleted,
which reads everything back from the cache.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from phoropter.core.storage import checksums
from phoropter.study.executors import execute_study
from phoropter.study.spec import read_study
from phoropter.study.worker import ComputeOptions

STUDY = """\
name: checksums
data: {DATA, size: 224, max_samples: 600}
protocol: {split: stratified-k-fold, folds: 5}
recipe: {preset: probe, epochs: 10}
save_models: all
candidates:
  - {name: probe, backbone: resnet18, weights: random, frozen: true}
  - {name: tuned, backbone: mobilenetv3_small_100, weights: random, recipe: {preset: scratch, epochs: 1}}
"""
_spent = {"seconds": 0.0, "depth": 0.0}


def _timed(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, whose processor time is added up; of calls inside one another, only the outermost counts."""

    def run(*args: Any, **options: Any) -> Any:
        _spent["depth"] += 1
        began = time.process_time()
        try:
            return function(*args, **options)
        finally:
            _spent["depth"] -= 1
            if not _spent["depth"]:
                _spent["seconds"] += time.process_time() - began

    return run


def measure_rates() -> None:
    data = np.random.default_rng(0).bytes(256 << 20)
    functions: dict[str, Callable[[bytes], Any]] = {
        "XXH3 (128 bits)": lambda d: xxhash.xxh3_128(d).digest(),
        "SHA-256": lambda d: hashlib.sha256(d).digest(),
        "BLAKE2b": lambda d: hashlib.blake2b(d).digest(),
    }
    for name, function in functions.items():
        times = []
        for _ in range(3):
            began = time.process_time()
            function(data)
            times.append(time.process_time() - began)
        print(f"{name}: {len(data) / 1e9 / min(times):.1f} GB/s")


def main() -> None:
    measure_rates()
    for owner, name in ((checksums, "compare_files"), (checksums, "describe_files")):
        timed = _timed(getattr(owner, name))
        for module in [m for m in sys.modules.values() if getattr(m, name, None) is getattr(owner, name) and m is not owner]:
            setattr(module, name, timed)
        setattr(owner, name, timed)
    for method in ("add_block", "count_sound_blocks"):
        setattr(checksums.BlockChecksums, method, _timed(getattr(checksums.BlockChecksums, method)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = f"folder: {Path(sys.argv[1]).resolve()}" if len(sys.argv) > 1 else "digits: true"
        (folder / "study.yaml").write_text(STUDY.replace("DATA", data))
        study = read_study(folder / "study.yaml")[0]
        for what in ("everything computed", "runs deleted, caches read back"):
            _spent["seconds"] = 0.0
            checksums._sound.clear()
            began = time.process_time()
            store = execute_study(
                study, folder / "out", lambda event: None, options=ComputeOptions("cpu", threads=1), cache=folder / "cache"
            )
            total = time.process_time() - began
            share = _spent["seconds"] / total
            print(f"{what}: {_spent['seconds']:.2f} s of {total:.1f} s processor time are checksums: {share:.2%}")
            assert not store.read_failures()
            shutil.rmtree(folder / "out" / "runs")


if __name__ == "__main__":
    main()

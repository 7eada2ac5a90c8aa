"""Writes src/phoropter/models/catalog.json.gz: what the installed timm offers, so that planning needs neither timm nor torch.

Run it after timm's version in constraints.txt has changed (about half an hour on one core; nothing is downloaded):

    python scripts/make_catalog.py [--only 'resnet*'] [--limit-s 60]

An architecture that cannot be built on the meta device, or whose pooled features are not one vector a picture, is left out and
named on the error stream. Measured lines are kept in `--work`: an interrupted run goes on where it stopped. Delete that file to
measure anew.
"""

from __future__ import annotations

import argparse
import fnmatch
import gzip
import json
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from phoropter.models import catalog_build, timm_compat

OUT = Path(__file__).parent.parent / "src" / "phoropter" / "models" / "catalog.json.gz"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default="*", help="fnmatch pattern of the architectures to measure")
    parser.add_argument("--limit-s", type=int, default=60, help="seconds for one architecture")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "phoropter-catalog.jsonl")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    lines = asked.work.read_text().splitlines() if asked.work.exists() else []
    done = {facts["name"]: facts for facts in map(json.loads, lines)}
    names = [n for n in timm_compat.import_timm().list_models() if fnmatch.fnmatch(n, asked.only) and n not in done]
    with asked.work.open("a") as work:
        for name in names:
            done[name] = _measured(name, asked.limit_s)
            work.write(json.dumps(done[name]) + "\n")
            work.flush()
    for name, facts in done.items():
        if "left_out" in facts:
            print(f"left out {name}: {facts['left_out']}", file=sys.stderr)
    _write({name: facts for name, facts in done.items() if "left_out" not in facts} | dict(catalog_build.measure_non_timm()))


def _measured(name: str, limit_s: int) -> dict[str, Any]:
    try:
        with _time_limit(limit_s):
            return {"name": name, **catalog_build.measure_architecture(name)}
    except Exception as error:
        return {"name": name, "left_out": f"{type(error).__name__}: {error}".splitlines()[0][:160]}


def _write(measured: dict[str, dict[str, Any]]) -> None:
    configs: dict[str, int] = {}
    architectures = {name: catalog_build.format_catalog_line(name, facts, configs) for name, facts in sorted(measured.items())}
    value = {
        "timm": timm_compat.import_timm().__version__,
        "configs": [json.loads(c) for c in configs],
        "architectures": architectures,
        "renamed": {old: new for old, new in sorted(timm_compat.import_timm().models.get_deprecated_models().items()) if new},
    }
    text = json.dumps(value, separators=(",", ":"), sort_keys=True)
    OUT.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    unknown = sum(line[7] is None for line in architectures.values())
    print(f"{OUT}: {len(architectures)} architectures, {unknown} without multiply-adds, {OUT.stat().st_size:,} bytes")


@contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TimeoutError(f"took more than {seconds} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


if __name__ == "__main__":
    main()

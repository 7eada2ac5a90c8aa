"""`python tests/deploy/serve/by_hand.py 5000`: as many damaged bodies of test_mutated_bodies.py, with their figures."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from pathlib import Path


def try_many(total: int) -> list[str]:
    """Tries as many, tells the figures of each kind, and returns the faults."""
    import psutil
    from running_server import run_server
    from test_mutated_bodies import KINDS, OPENED, try_bodies

    from conftest import make_ecg, make_pictures

    faults: list[str] = []
    each = -(-total // len(KINDS))
    for room, make in (("pictures", make_pictures), ("ecg", make_ecg)):
        with tempfile.TemporaryDirectory() as folder:
            made = make(Path(folder))
            with run_server([made.served]) as running:
                for name in [n for n, (wanted, _) in KINDS.items() if wanted == room]:
                    with OPENED.watched():
                        found, slowest = try_bodies(running, name, range(each))
                    running.lines.clear()
                    faults += [f"{name} opened {path}" for path in OPENED.outside(made.bundle)]
                    mib = psutil.Process().memory_info().rss / 2**20
                    print(f"{name}: {each} bodies, {len(found)} faults, slowest {slowest:.2f} s, {mib:.0f} MiB", flush=True)
                    faults += found
    return faults


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    sys.path[:0] = [str(here), str(here.parents[1])]
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["PHOROPTER_CACHE"] = cache
        came = try_many(int(sys.argv[1]) if len(sys.argv) > 1 else 5000)
    print("\n".join(came) or "no fault, and no file opened elsewhere")
    sys.exit(bool(came))

"""Many clients at once, by the clients of the benchmark: answers or 429, and afterwards nobody waits."""

from __future__ import annotations

import runpy
from pathlib import Path

from running_server import Made, run_server

from phoropter.deploy.serve.limits import ServeLimits

BENCHMARK = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "serve.py"))


def test_more_clients_than_may_wait_get_answers_or_429(pictures: Made) -> None:
    files = [file.read_bytes() for (file,) in pictures.files]
    with run_server([pictures.served], limits=ServeLimits(waiting=4)) as running:
        load = BENCHMARK["put_under_load"](running.port, files, 24, 1.5)
        waiting = running.count_waiting()
        rows = running.service.meters.registry.get_sample_value("phoropter_batch_rows_sum")
        batches = running.service.meters.registry.get_sample_value("phoropter_batch_rows_count")
    assert set(load.statuses) == {200, 429} and waiting == 0
    assert rows == load.statuses[200] == len(load.seconds), "every picture that was answered was computed once"
    assert batches <= rows

"""Counters in the format of Prometheus, read by its own parser."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from phoropter.deploy.serve.meters import ServeMeters


def test_requests_and_batches_are_counted() -> None:
    meters = ServeMeters()
    for status in (200, 200, 429):
        meters.count_request("/predict", status, 0.02)
    meters.count_batch(3)
    meters.waiting.set(2)
    text = meters.render_text().decode()
    found = {s.name + str(sorted(s.labels.values())): s.value for f in text_string_to_metric_families(text) for s in f.samples}
    assert found["phoropter_requests_total['/predict', '200']"] == 2
    assert found["phoropter_requests_total['/predict', '429']"] == 1
    assert found["phoropter_batch_rows_sum[]"] == 3 and found["phoropter_waiting_requests[]"] == 2
    assert found["phoropter_request_seconds_count['/predict']"] == 3

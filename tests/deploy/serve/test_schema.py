"""The interface against its own description, by schemathesis: requests that fit it and requests that do not."""

from __future__ import annotations

from typing import Any

import pytest
from running_server import Running

PATHS = ["/predict", "/explain", "/version", "/health", "/ready", "/metrics", "/examples/{bundle}/{name}"]


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_is_as_described(asked: Running, path: str) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    from hypothesis import HealthCheck, given, settings
    from schemathesis.generation import GenerationMode
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{asked.port}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations() if found.ok().path == path]
    assert len(operations) == 1, "every path has one method"
    takes_body = path in ("/predict", "/explain")  # of the others every request fits
    for mode in [GenerationMode.POSITIVE, GenerationMode.NEGATIVE] if takes_body else [GenerationMode.POSITIVE]:

        @settings(max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operations[0].as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            case.call_and_validate(excluded_checks=[positive_data_acceptance])  # bytes that fit may still be no picture

        ask()

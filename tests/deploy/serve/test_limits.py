"""Limits as words: known names, numbers above zero, and the refusal that carries its status."""

from __future__ import annotations

import pytest

from phoropter.core.errors import SpecError
from phoropter.deploy.serve.limits import RequestRefused, ServeLimits, parse_limits


def test_words_change_the_limits_they_name() -> None:
    limits = parse_limits(["body_mib=0.5", "files=2"])
    assert (limits.max_body_bytes, limits.files, limits.seconds) == (512 * 1024, 2, ServeLimits().seconds)
    assert ServeLimits(waiting_mib=1).max_waiting_bytes == ServeLimits().max_body_bytes, "one whole request always fits"


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("fils=2", "limit 'fils' is unknown, .*did you mean 'files'"),
        ("files=2.5", "expected a whole number"),
        ("seconds=soon", "expected a number, as in seconds=60"),
        ("seconds=0", "expected a number above zero"),
        ("seconds=nan", "expected a number above zero"),
    ],
)
def test_other_words_are_refused(word: str, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        parse_limits([word])


def test_a_refusal_has_the_headers_of_its_status() -> None:
    assert RequestRefused(429, "later", 3).headers == {"Retry-After": "3"}
    assert RequestRefused(401, "who").headers == {"WWW-Authenticate": "Bearer"}
    assert RequestRefused(413, "less").headers == {}

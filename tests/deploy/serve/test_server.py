"""What the server binds to, and when it asks for a token."""

from __future__ import annotations

import socket

import pytest

from phoropter.core.errors import SpecError, StoreError
from phoropter.deploy.serve.server import ServeAddress, make_rules, open_listening_socket

TOKEN = "a-token-of-many-letters"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "server.example"])
def test_a_host_that_others_reach_needs_a_token(host: str) -> None:
    with pytest.raises(SpecError, match=r"lets other machines ask, which needs a token: pass --token-file"):
        make_rules(ServeAddress(host), None)
    assert make_rules(ServeAddress(host), TOKEN).token == TOKEN


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.0.0.9"])
def test_this_machine_needs_none_unless_it_has_a_public_name(host: str) -> None:
    assert make_rules(ServeAddress(host), None).token is None
    with pytest.raises(SpecError, match="with a public name lets other machines ask"):
        make_rules(ServeAddress(host, public_names=("x.example",)), None)


def test_names_are_those_that_were_given() -> None:
    rules = make_rules(ServeAddress("::1", public_names=("Scans.Example",)), TOKEN)
    assert rules.hosts == {"127.0.0.1", "localhost", "[::1]", "scans.example"} and not rules.any_address
    assert make_rules(ServeAddress("0.0.0.0"), TOKEN).any_address


@pytest.mark.parametrize(
    "token", ["short", "", "with a space in it, long", "änderungsvorschlag-lang", "line\nbreak-and-more-letters"]
)
def test_a_token_that_cannot_be_one_is_refused(token: str) -> None:
    with pytest.raises(SpecError, match="at least 16 printable letters of ASCII"):
        make_rules(ServeAddress(), token)


def test_a_taken_port_is_told_in_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StoreError, match=rf"port {port} of 127.0.0.1 cannot be used \(.*\): name another, or --port 0"):
            open_listening_socket(ServeAddress(port=port))


def test_answers_do_not_wait_for_nagle() -> None:
    """asyncio sets TCP_NODELAY only where a socket names its protocol."""
    with open_listening_socket(ServeAddress(port=0)) as listening:
        assert listening.proto == socket.IPPROTO_TCP

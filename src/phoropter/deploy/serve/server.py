"""Runs the server: what it binds to, who may ask it, and that it ends cleanly."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import uvicorn

from phoropter.core.errors import SpecError, StoreError
from phoropter.deploy.serve.app import ServeService, create_application
from phoropter.deploy.serve.connections import IDLE_S, PatientProtocol
from phoropter.deploy.serve.guard import LOOPBACK_NAMES, GuardRules, RequestGuard
from phoropter.deploy.serve.limits import ServeLimits
from phoropter.deploy.serve.served_bundle import open_served_bundles
from phoropter.training.loop.devices import resolve_device
from phoropter.training.malloc import limit_malloc_arenas

MIN_TOKEN = 16  # letters: fewer could be tried out
MAX_CONNECTIONS, BACKLOG = 512, 256
MALLOC_ARENAS = 2  # so that memory stays flat


@dataclass(frozen=True)
class ServeAddress:
    """host: that the server binds to · port: 0 for a free one · public_names: other names that it is reached by, without ports"""

    host: str = "127.0.0.1"
    port: int = 8360
    public_names: tuple[str, ...] = ()

    @property
    def is_loopback(self) -> bool:
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False


def make_rules(address: ServeAddress, token: str | None, log_names: bool = False) -> GuardRules:
    """Raises SpecError for a host that others reach without a token, for a short token and for one that no header can carry."""
    if token is None and not (address.is_loopback and not address.public_names):
        raise SpecError(
            f"--host {address.host}{' with a public name' if address.is_loopback else ''} lets other machines ask, which needs a "
            "token: pass --token-file FILE, or bind to 127.0.0.1"
        )
    if token is not None and (len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable() or " " in token):
        raise SpecError(
            f"the token should have at least {MIN_TOKEN} printable letters of ASCII without spaces; make a longer one"
        )
    names = {*LOOPBACK_NAMES, address.host, *address.public_names}
    hosts = frozenset(f"[{name}]" if ":" in name and not name.startswith("[") else name.lower() for name in names)
    return GuardRules(hosts, address.host in ("0.0.0.0", "::"), token, log_names)


def make_guarded_application(
    service: ServeService, rules: GuardRules, say: Callable[[str], object] = lambda line: None
) -> RequestGuard:
    """The whole application, for uvicorn or for tests. say: called with one line a request"""
    return RequestGuard(create_application(service), rules, service.limits, service.meters, say)


def serve_bundles(
    folders: Sequence[Path],
    address: ServeAddress,
    rules: GuardRules,
    *,
    limits: ServeLimits | None = None,
    device: str = "auto",
    say: Callable[[str], object] = print,
) -> None:
    """Serves until Ctrl-C or SIGTERM. Raises WeightsError for what is no bundle, and StoreError where the port is taken."""
    limit_malloc_arenas(MALLOC_ARENAS)
    limits, chosen = limits or ServeLimits(), resolve_device(device)
    service = ServeService(open_served_bundles(folders, chosen), limits, chosen)
    app = make_guarded_application(service, rules, say)
    with open_listening_socket(address) as listening:
        host, port = listening.getsockname()[:2]
        where = f"[{host}]" if ":" in host else host
        say(f"serving {', '.join(service.bundles)}: http://{where}:{port}/ (Ctrl-C stops it)")
        with _signals_end_serving():
            make_uvicorn_server(app).run(sockets=[listening])
    say("stopped serving")


@contextmanager
def _signals_end_serving() -> Iterator[None]:
    """Ctrl-C and SIGTERM end a server, and are no error: uvicorn raises them again once it has ended, which is heard here."""
    known = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, lambda *_: None) for number in known}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def make_uvicorn_server(app: RequestGuard) -> uvicorn.Server:
    """uvicorn with its own logs off: the guard logs without names and without tracebacks."""
    config = uvicorn.Config(
        app,
        backlog=BACKLOG,
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        http=PatientProtocol,
        ws="none",
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=int(IDLE_S),
        timeout_graceful_shutdown=10,
        proxy_headers=False,
    )
    return uvicorn.Server(config)


def open_listening_socket(address: ServeAddress) -> socket.socket:
    """Raises StoreError where the address cannot be bound."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # The protocol by name: asyncio turns Nagle's algorithm off only for sockets that name it, and with it answers wait 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((address.host.strip("[]"), address.port))
        listening.listen(BACKLOG)  # now, so that whoever is told the address may ask at once
    except OSError as error:
        listening.close()
        raise StoreError(
            f"port {address.port} of {address.host} cannot be used ({error.strerror}): name another, or --port 0"
        ) from None
    return listening

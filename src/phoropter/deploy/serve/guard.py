"""What is checked of every request before the interface sees it, and what every answer carries.

Host         a name of this server, so that a page elsewhere cannot reach it by renaming an address of its own (DNS rebinding)
Origin       where a browser sends one: this server's, so that no other page posts to it
token        where one is asked for, in constant time; the page itself and the two questions of a supervisor need none
size, time   of one request; how many wait, and with how many bytes

An answer never holds a traceback: what nobody foresaw is one sentence here and one line, without contents, in the log.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from phoropter.deploy.serve.limits import RETRY_S, RequestRefused, ServeLimits
from phoropter.deploy.serve.meters import ServeMeters

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
PAGE_PATHS = ("/", "/page.css", "/page.js")
OPEN_PATHS = (*PAGE_PATHS, "/health", "/ready")
COMPUTING_PATHS = ("/predict", "/explain")
KNOWN_PATHS = (*OPEN_PATHS, *COMPUTING_PATHS, "/version", "/metrics", "/openapi.json", "/examples")
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


@dataclass(frozen=True)
class GuardRules:
    """hosts: names without ports under which the server is asked · any_address: whether every plain IP address is one too

    token: that a request must bring; None: none · log_names: whether the log has the names of files
    """

    hosts: frozenset[str] = frozenset(LOOPBACK_NAMES)
    any_address: bool = False
    token: str | None = None
    log_names: bool = False


@dataclass
class _Request:
    """What is known of a request while it is answered."""

    scope: Scope
    began: float = field(default_factory=time.monotonic)
    received: int = 0
    reserved: int = 0
    whole: bool = False
    status: int = 0

    @property
    def path(self) -> str:
        path = str(self.scope["path"])
        if path in KNOWN_PATHS:
            return path
        return "/examples" if path.startswith("/examples/") else "other"  # `OPTIONS *` has no slash

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.scope["headers"] if key == name.encode()]
        return found[0].decode("latin-1") if found else None


class RequestGuard:
    """The application behind these checks. say: called with one line a request"""

    def __init__(
        self, app: ASGIApp, rules: GuardRules, limits: ServeLimits, meters: ServeMeters, say: Callable[[str], object]
    ) -> None:
        self.app, self.rules, self.limits, self.meters, self.say = app, rules, limits, meters, say
        self._waiting, self._waiting_bytes = 0, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # the start and the end of the server; it has no web sockets
            await self.app(scope, receive, send)
            return
        request = _Request(scope)

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                request.status = message["status"]
                extra = [(key.encode(), value.encode()) for key, value in SECURITY_HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        try:
            self._check_request(request)
            await self._answer_in_time(request, receive, send_on)
        except RequestRefused as refused:
            if request.status:  # the answer had begun; what is left of it cannot be another
                raise
            await _send_error(send_on, refused)
        except Exception as error:
            self.say(f"a fault of ours in {request.path}: {type(error).__name__} {_find_place(error)}")
            if not request.status:
                await _send_error(send_on, RequestRefused(500, "a fault of the server; its log has the place"))
        finally:
            self._log_request(request)

    def _check_request(self, request: _Request) -> None:
        host = request.header("host") or ""
        if not self._is_own_name(host):
            raise RequestRefused(403, "the Host header names another server; ask for this one by its own name")
        origin, site = request.header("origin"), request.header("sec-fetch-site")
        if (origin is not None and _find_host(origin) != host.lower()) or site == "cross-site":
            navigates = origin is None and request.scope["method"] == "GET" and request.header("sec-fetch-mode") == "navigate"
            if not navigates:
                raise RequestRefused(403, "the request comes from a page of another server, and only this server's page may ask")
        if self.rules.token is not None and request.path not in OPEN_PATHS:
            given = (request.header("authorization") or "").encode("latin-1")
            if not hmac.compare_digest(given, f"Bearer {self.rules.token}".encode()):
                raise RequestRefused(401, "a token is needed: send the header Authorization: Bearer TOKEN")

    def _is_own_name(self, host: str) -> bool:
        name = host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]
        if name.lower() in self.rules.hosts:
            return True
        try:
            return self.rules.any_address and bool(ip_address(name.strip("[]")))
        except ValueError:
            return False

    async def _answer_in_time(self, request: _Request, receive: Receive, send: Send) -> None:
        if request.path not in COMPUTING_PATHS or request.scope["method"] != "POST":
            await self.app(request.scope, self._count_body(request, receive), send)
            return
        self._admit(request)
        try:
            async with asyncio.timeout(self.limits.seconds):
                await self.app(request.scope, self._count_body(request, receive), send)
        except TimeoutError:
            if request.whole:
                told = f"the answer took longer than {self.limits.seconds:g} s; send fewer or smaller files"
                raise RequestRefused(503, told, RETRY_S) from None
            raise RequestRefused(408, f"the body did not come within {self.limits.seconds:g} s; send it faster or less") from None
        finally:
            self._waiting -= 1
            self._waiting_bytes -= request.reserved
            self.meters.waiting.set(self._waiting)

    def _admit(self, request: _Request) -> None:
        """Takes a place among those that wait. Raises RequestRefused where there is none, and for a body that is too large."""
        limit = self.limits.max_body_bytes
        text = request.header("content-length")
        known = text is not None and text.isdecimal() and request.header("transfer-encoding") is None  # which would overrule it
        length = int(text) if text is not None and known else limit  # unknown: as much as it may have
        if length > limit:
            raise RequestRefused(413, self._too_large())
        if self._waiting >= self.limits.waiting or self._waiting_bytes + length > self.limits.max_waiting_bytes:
            raise RequestRefused(429, f"{self._waiting} requests are waiting already; come again in a moment", RETRY_S)
        request.reserved = length
        self._waiting += 1
        self._waiting_bytes += length
        self.meters.waiting.set(self._waiting)

    def _too_large(self) -> str:
        return f"the body is larger than {self.limits.body_mib:g} MiB, the most for one request; send fewer or smaller files"

    def _count_body(self, request: _Request, receive: Receive) -> Receive:
        async def receive_counted() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                request.received += len(message.get("body", b""))
                request.whole = not message.get("more_body", False)
                if request.received > self.limits.max_body_bytes:
                    raise RequestRefused(413, self._too_large())
            return message

        return receive_counted

    def _log_request(self, request: _Request) -> None:
        seconds = time.monotonic() - request.began
        self.meters.count_request(request.path, request.status, seconds)
        names = request.scope.get("phoropter.names") if self.rules.log_names else None
        told = f" {json.dumps(names, ensure_ascii=True)}" if names else ""
        method = request.scope["method"] if request.scope["method"] in ("GET", "POST", "HEAD") else "other"
        self.say(f"{method} {request.path} {request.status} {seconds * 1000:.0f} ms {request.received} bytes{told}")


def _find_host(origin: str) -> str | None:
    """None for what is no address, such as `null` and `http://[`."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


async def _send_error(send: Send, refused: RequestRefused) -> None:
    body = json.dumps({"error": refused.sentence}, ensure_ascii=False).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **refused.headers}
    start = [(key.lower().encode(), value.encode()) for key, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": start})
    await send({"type": "http.response.body", "body": body})


def _find_place(error: BaseException) -> str:
    """The line where it was raised, without what was computed there."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace is not None else ""

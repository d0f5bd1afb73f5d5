"""The door of the server: who may ask, what every answer carries, and one line of log per request.

A pure ASGI layer around the whole application, so that refusals are counted, logged and hardened like any answer.
"""

import hmac
import logging
import time
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apn.server.metrics import Metrics
from apn.server.settings import ServerSettings

log = logging.getLogger("apn.server")

OPEN_PATHS = frozenset({"/", "/docs", "/openapi.json", "/healthz"})  # they hold no data of anybody
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Guard:
    """Checks host, origin and token before the application sees a request; measures and hardens every answer."""

    def __init__(self, app: ASGIApp, settings: ServerSettings, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics
        token = settings.token
        self.token = token.get_secret_value().encode() if token else None
        allowed = frozenset(name.lower() for name in settings.allowed_hosts)
        if not allowed and settings.loopback:
            allowed = LOOPBACK_HOSTS | {settings.host}
        self.hosts = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status, method = time.perf_counter(), 0, scope["method"]
        if method == "HEAD":  # as GET, the head of whose answer it asks for; uvicorn leaves out the body
            scope = {**scope, "method": "GET"}

        async def hardened_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            answer = self.refusal(method, scope["path"], Headers(scope=scope)) or self.app
            await answer(scope, receive, hardened_send)
        except Exception:
            log.exception("request failed")
            if not status:
                await _refuse(500, "internal error: the server's log says more")(scope, receive, hardened_send)
        finally:
            seconds = time.perf_counter() - begun
            route = getattr(scope.get("route"), "path", "other")  # the template: a path may hold anything
            self.metrics.requests.labels(route, status or "aborted").inc()
            self.metrics.request_seconds.labels(route).observe(seconds)
            log.info("%s %s %s %.3f s", method, route, status or "aborted", seconds)

    def refusal(self, method: str, path: str, headers: Headers) -> ASGIApp | None:
        """The answer to a request that may not pass, None for one that may.

        Host guards against DNS rebinding (a foreign name that resolves to this machine), Origin against a foreign page
        that posts to it; programs send no Origin and pass.
        """
        host = headers.get("host", "")
        if self.hosts and _host_name(host) not in self.hosts:
            return _refuse(403, f"Host {host!r} is not a name of this server: see allowed_hosts")
        origin = headers.get("origin")
        foreign = origin is not None and _netloc(origin) != host.lower()
        foreign = foreign or headers.get("sec-fetch-site", "none") not in ("same-origin", "none")
        if foreign and method not in ("GET", "HEAD"):
            known = f"Origin {origin!r} is not this server, Host {host!r} (a reverse proxy has to pass Host on)"
            return _refuse(403, f"cross-origin requests are refused; {known}")
        if self.token and path not in OPEN_PATHS:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            right = hmac.compare_digest(given.strip().encode("latin-1"), self.token)
            if not right or scheme.lower() != "bearer":  # a scheme may be written in any case: RFC 9110, 11.1
                return _refuse(401, "expected 'Authorization: Bearer <token>' with this server's token")
        return None


def _refuse(status: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, {"WWW-Authenticate": "Bearer"} if status == 401 else None)


def _host_name(netloc: str) -> str | None:
    try:
        return urlsplit(f"//{netloc}").hostname
    except ValueError:
        return None


def _netloc(origin: str) -> str | None:
    # None for `null` and for nonsense
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None

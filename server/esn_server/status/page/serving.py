"""The server of the status page: loopback only, read only, and nothing from elsewhere."""

import threading
import time
from collections.abc import Callable
from importlib.resources import files

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from esn_core.errors import ConfigError, EsnError
from esn_core.system.loopback import is_free
from esn_server.status.page.rendering import now_html, page_html
from esn_server.status.status import CentreStatus

_HOST = "127.0.0.1"
# However many windows are open, the SuperLink is asked once in so long.
_FRESH_S = 1.0

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Look = Callable[[], CentreStatus]
"""Gathers the status."""


def serve_page(look: Look, *, port: int, ready: Callable[[str], None]) -> None:
    """Serve the page until interrupted.

    Parameters
    ----------
    look : callable
        Gathers the status; called at most once a second.
    port : int
    ready : callable
        Told the page's address.

    Raises
    ------
    ConfigError
        The port is taken, or the status cannot be gathered at all.

    """
    if not is_free(port):
        raise ConfigError(f"port {port} of {_HOST} is in use; choose another with --port")
    look()  # what is wrong from the start is said here, and not in a browser
    server = page_server(look, port=port)
    ready(f"http://{_HOST}:{port}/")
    server.run()


def page_server(look: Look, *, port: int) -> uvicorn.Server:
    """Return the server of the page, not started yet; it knows HTTP and nothing else."""
    return uvicorn.Server(
        uvicorn.Config(
            page_app(look),
            host=_HOST,
            port=port,
            ws="none",
            lifespan="off",
            log_level="warning",
            server_header=False,
        )
    )


def page_app(look: Look) -> Starlette:
    """Return the page as an ASGI application."""
    fresh = _fresh(look)

    def page(_request: Request) -> Response:
        return HTMLResponse(page_html(fresh()))

    def now(_request: Request) -> Response:
        return HTMLResponse(now_html(fresh()))

    def asset(name: str, kind: str) -> Callable[[Request], Response]:
        content = (files("esn_server.status.page") / name).read_bytes()
        return lambda _request: Response(content, media_type=kind)

    def sorry(_request: Request, error: Exception) -> Response:
        return Response(f"{type(error).__name__}: {error}", status_code=503, media_type="text/plain")

    return Starlette(
        routes=[
            Route("/", page, methods=["GET"]),
            Route("/now", now, methods=["GET"]),
            Route("/page.css", asset("page.css", "text/css"), methods=["GET"]),
            Route("/page.js", asset("page.js", "text/javascript"), methods=["GET"]),
            Route("/icon.svg", asset("icon.svg", "image/svg+xml"), methods=["GET"]),
        ],
        middleware=[
            Middleware(BaseHTTPMiddleware, dispatch=_with_headers),
            # A name that somebody else's server resolves to 127.0.0.1 is not ours (DNS rebinding).
            Middleware(TrustedHostMiddleware, allowed_hosts=[_HOST, "localhost"], www_redirect=False),
        ],
        exception_handlers={EsnError: sorry},
    )


async def _with_headers(request: Request, call_next: RequestResponseEndpoint) -> Response:
    response = await call_next(request)
    response.headers.update(_HEADERS)
    return response


def _fresh(look: Look) -> Look:
    """Keep what was found for a moment."""
    lock = threading.Lock()
    kept: list[tuple[float, CentreStatus]] = []

    def fresh() -> CentreStatus:
        with lock:
            if not kept or time.monotonic() - kept[0][0] > _FRESH_S:
                kept[:] = [(time.monotonic(), look())]
            return kept[0][1]

    return fresh

"""Flower's SuperLink as a program that answers this centre alone, and that runs under any path.

``python -m esn_server.link.flower_superlink`` takes the arguments of ``flower-superlink``.
"""

import hmac
import logging
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from flwr.supercore.state.alembic import utils
from flwr.superlink import main
from flwr.superlink.cli import flower_superlink

from esn_server.service.superlink import PROOF_HEADER, proof_of

_Event = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Event]]
_Send = Callable[[_Event], Awaitable[None]]
_App = Callable[[_Event, _Receive, _Send], Awaitable[None]]


class OnlyTheCentre:
    """Flower's application behind a door: who cannot prove to be of this centre is told nothing but health.

    Flower's Control interface asks nobody who they are. Loopback is open to every account of a machine; the
    secret is readable by the centre's own alone.

    Parameters
    ----------
    app : ASGI application
    proof : str

    """

    def __init__(self, app: _App, proof: str) -> None:
        self._app = app
        self._proof = proof.encode()

    async def __call__(self, scope: _Event, receive: _Receive, send: _Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] == "lifespan":
            _log_no_calls()
        if scope["type"] == "lifespan" or (scope["type"] == "http" and self._admits(scope)):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            headers = [(b"content-type", b"text/plain"), (b"content-length", b"0")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _admits(self, scope: _Event) -> bool:
        if scope["path"] == "/health":
            return True
        said = [value for name, value in scope["headers"] if name == PROOF_HEADER.encode()]
        return len(said) == 1 and hmac.compare_digest(said[0], self._proof)


def _log_no_calls() -> None:
    """Keep the server from a line for each call: one that calls without end would fill the disk."""
    access = logging.getLogger("uvicorn.access")
    access.handlers.clear()
    access.propagate = False


def close_the_door(secret: bytes) -> None:
    """Let the SuperLink answer only who knows the secret."""
    build = main.create_app

    def built(*settings: Any) -> Any:
        return OnlyTheCentre(build(*settings), proof_of(secret))

    main.create_app = built  # type: ignore[assignment]


def find_migrations() -> None:
    """Let the SuperLink find the steps that make its database, whatever the path to them.

    Flower 1.41 joins their directories by spaces, and alembic splits the line at spaces and commas: under a
    path with either it finds none, and makes a database without tables.
    """
    build = utils.build_alembic_config

    def built(engine: Any) -> Any:
        config = build(engine)
        config.set_main_option("path_separator", "newline")
        config.set_main_option("version_locations", str(utils.ALEMBIC_DIR / "versions"))
        return config

    utils.build_alembic_config = built


if __name__ == "__main__":
    find_migrations()
    close_the_door(Path(sys.argv[sys.argv.index("--superexec-auth-secret-file") + 1]).read_bytes())
    flower_superlink()

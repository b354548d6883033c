"""The standard gRPC health service, for an orchestrator's probes.

Its services are ``fleet`` (sites can connect), ``study`` (a study runs now) and
the empty name, which is the same as ``fleet``.
"""

import os

os.environ.setdefault(
    "GRPC_ENABLE_FORK_SUPPORT", "0"
)  # read at gRPC's import; we start programs, and never fork

from concurrent.futures import ThreadPoolExecutor
from typing import Literal, Self

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from esn_core.errors import LinkError

_STOP_S = 1.0


class HealthService:
    """Serves the state of the centre; runs within ``with``.

    Parameters
    ----------
    host, port : str, int
        Where to listen, without TLS.

    """

    def __init__(self, host: str, port: int) -> None:
        self._servicer = health.HealthServicer()
        self._server = grpc.server(ThreadPoolExecutor(4, thread_name_prefix="health"))
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, self._server)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise LinkError(f"the health service cannot listen on {address}; choose another port") from error
        self.set("fleet", serving=True)
        self.set("study", serving=False)

    def set(self, service: Literal["fleet", "study"], serving: bool) -> None:
        """Say whether a service is there."""
        status = health_pb2.HealthCheckResponse
        state = status.SERVING if serving else status.NOT_SERVING
        self._servicer.set(service, state)
        if service == "fleet":
            self._servicer.set("", state)

    def __enter__(self) -> Self:
        """Start to serve."""
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._servicer.enter_graceful_shutdown()
        self._server.stop(_STOP_S).wait()

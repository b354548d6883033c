"""The loopback interface, where the parts of one machine meet."""

import socket

HOST = "127.0.0.1"


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])

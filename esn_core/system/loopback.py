"""Our own machine: free ports of its loopback interface, and no proxy on the way to it."""

import os
import socket


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def bypass_proxy(*hosts: str) -> None:
    """Let this process and its children reach `hosts` directly, whatever proxy leads to the world."""
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    missing = [host for host in hosts if host not in known.split(",")]
    if missing:
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join([known, *missing]).strip(",")


def is_free(port: int) -> bool:
    """Tell whether nobody listens on a TCP port of the loopback interface now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True

"""Our own machine: free ports of its loopback interface, and no proxy on the way to it."""

import os
import socket


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on now, nor will by chance.

    Between this call and the moment when the caller's program listens, any other process may ask for a port
    or open a connection. A connection that ended at our side leaves the port in the state TIME_WAIT: the
    system then gives it to nobody who asks for some port (Linux: for 60 s), while a server that asks for
    this one gets it, as servers set SO_REUSEADDR.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        address = listener.getsockname()
        with socket.create_connection(address):
            listener.accept()[0].close()  # before the other end closes: the state stays with our port
        return int(address[1])


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

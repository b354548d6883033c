"""A hospital that echoes: the real guard, in a process of its own, with a tiny function behind it."""

import sys
import time
from pathlib import Path

from esn_client.link.guard import GuardSettings, join
from esn_core.errors import EsnError


def answer(body: bytes) -> bytes:
    """Echo, fail, be slow or tell whether the centre's code was imported, as the question says."""
    if body == b"fail":
        raise ValueError("/data/sub-0042/dwi is unreadable")
    if body == b"slow":
        Path("busy").touch()
        time.sleep(2.0)
    if body == b"large":
        return bytes(9 * 2**20)
    if body == b"imported":
        return str("pushed_code" in sys.modules).encode()
    return b"echo:" + body


def main(directory: Path, address: str, ca_certificate: Path, *allowed_bundles: str) -> int:
    """Join until SIGTERM; return the exit status."""
    with (directory / "audit.log").open("a", buffering=1) as audit:
        try:
            settings = GuardSettings(
                server_address=address,
                ca_certificate=ca_certificate,
                node_key=directory / "node_key",
                state_directory=directory / "state",
                allowed_bundles=lambda: frozenset(allowed_bundles),
                audit=lambda line: print(line, file=audit),
                connect_timeout_s=60.0,
            )
            join(settings, answer)
        except EsnError as error:
            print(error, file=sys.stderr)
            return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), *sys.argv[4:]))

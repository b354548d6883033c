"""How soon a hospital that is idle ends when it is asked to: SIGTERM to 'esn-client join', over a real link.

    python tests/benchmarks/leaving.py DIRECTORY [--times 5]

A centre with its SuperLink over TLS and one hospital, by the commands of the guides. Prints the seconds from
the signal to the end of the process, and whether it said goodbye to the centre each time.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from esn_core.identity.enrolment import SiteKit
from esn_core.system.child_process import ChildProcess
from esn_core.system.loopback import free_port
from esn_core.system.toml_file import read_toml
from esn_server.enrolment.sites import read_request

IDLE_S = 5.0


def command(side: str, *words: object) -> list[str]:
    """Return a command line of ours."""
    return [sys.executable, "-m", f"esn_{side}.cli.main", *map(str, words)]


def call(side: str, *words: object) -> None:
    """Run a command to its end."""
    subprocess.run(command(side, *words), check=True, capture_output=True)


def leave(root: Path) -> tuple[float, bool]:
    """Join, be idle, be asked to stop; return the seconds that it took, and whether it said goodbye."""
    lease = root / "site" / "state" / "connected"
    with (root / "join.log").open("a", encoding="utf-8") as log:
        process = subprocess.Popen(command("client", "join", root / "site" / "site.toml"), stderr=log)
    while not lease.exists():
        assert process.poll() is None, root / "join.log"
        time.sleep(0.1)
    time.sleep(IDLE_S)
    asked_s = time.monotonic()
    process.terminate()
    process.wait()
    return time.monotonic() - asked_s, not lease.exists()


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--times", type=int, default=5)
    asked = parser.parse_args()
    root, port = asked.directory.resolve(), free_port()
    root.mkdir(parents=True)
    centre, settings = root / "centre", root / "site" / "site.toml"
    people = ("--children", 5, "--controls", 3, "--connectomes", root / "connectomes")
    call("client", "simulate", root / "bids", "--site", "north", "--seed", 1, *people)
    places = ("--dataset", root / "bids", "--derivatives", root / "connectomes")
    call("client", "init", root / "site", "--site", "north", "--epsilon-cap", 8, "--delta", 0.001, *places)
    call("server", "init", centre, "--name", "127.0.0.1")
    start = command("server", "start", centre, "--port", port, "--health-port", free_port())
    with ChildProcess(start, log_file=root / "centre.log", environment={}) as serving:
        assert serving.wait_until(lambda: "ready" in " ".join(serving.log_lines()), timeout_s=300)
        request = root / "site" / "state" / "enrolment.toml"
        heard = read_request(request).fingerprint
        address = ("--public-address", f"127.0.0.1:{port}")
        call("server", "enrol", centre, request, "--fingerprint", heard, *address)
        kit = centre / "kits" / "north.kit.toml"
        call("client", "kit", settings, kit, "--fingerprint", read_toml(kit, SiteKit).fingerprint)
        found = [leave(root) for _ in range(asked.times)]
    seconds = [round(took, 2) for took, _ in found]
    load = round(os.getloadavg()[0], 1)
    print(json.dumps({"seconds": seconds, "said_goodbye": sum(said for _, said in found), "load": load}))


if __name__ == "__main__":
    main()

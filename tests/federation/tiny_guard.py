"""The guard of a hospital of simulated connectomes; it holds no children, as in the product."""

import logging
import sys
from pathlib import Path

from esn_client.link.guard import GuardSettings, join
from esn_client.worker.executor import Executor
from esn_core.errors import EsnError
from esn_core.messages.question import question_in
from esn_server.link.bundle import bundle_sha256

HOSPITAL = Path(__file__).parent / "tiny_hospital.py"


def main(directory, site, address, ca_certificate):
    """Answer the centre until this process is ended."""
    with Executor(
        [sys.executable, str(HOSPITAL), "answer", str(directory), site],
        log_file=directory / "answers.log",
        question_limit_s=15.0,
        memory_limit_gb=4.0,
    ) as executor:
        settings = GuardSettings(
            server_address=address,
            ca_certificate=Path(ca_certificate),
            node_key=directory / "node_key",
            state_directory=directory / "state",
            allowed_bundles=lambda: frozenset([bundle_sha256()]),
            audit=print,
        )

        def answer(body):
            said, misbehaviour = executor.ask(body), directory / "misbehaviour"
            large = misbehaviour.exists() and misbehaviour.read_text() == "a gigabyte"
            return bytes(2**30) if large and question_in(body).phase == "association" else said

        join(settings, answer)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    where, *others = sys.argv[1:]
    try:
        main(Path(where), *others)
    except EsnError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_status)

"""What the transcript of a study costs each site: bytes that it is sent, and seconds to check and read them.

Masked answers of the lengths of a study, with zeros below the masks; the protocol's network has the
candidates of the simulated template, its training the rounds that are given. The times are of one core.

    python tests/benchmarks/transcript_cost.py --sites 4 12 40 --rounds 15
"""

import argparse
import time

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from sites_in_process import protocol_of

from esn_core.analyses.planned_sums import kind_of
from esn_core.messages.answer import Answer
from esn_core.messages.facts import EMPTY_LEDGER
from esn_core.privacy.secure_sum import Attempt, mask
from esn_core.protocol.protocol import Protocol
from esn_core.transcript.course import steering
from esn_core.transcript.relay import read_sum, relayed_sum
from esn_core.transcript.transcript import Transcript


def measure(protocol: Protocol, keys) -> tuple[int, float, float]:
    """Return bytes to one site, CPU seconds there to check them, and to compute all numbers from them."""
    transcript, sent, checked, computed = Transcript(protocol, "r1"), 0, 0.0, 0.0
    public = {site: hidden.public_key() for site, (_, hidden) in keys.items()}
    for planned in protocol.phases:
        if planned.phase not in steering(protocol):
            continue
        for round_ in range(planned.releases):
            number = transcript.question(planned.phase, round_)
            attempt = Attempt(protocol.sha256, str(number), protocol.sites, transcript.mark.head)
            zeros = np.zeros(kind_of(planned.phase, protocol).dimension, dtype=np.int64)
            messages = []
            for place, (site, (identity, hidden)) in enumerate(keys.items()):
                total = mask(
                    zeros, attempt, site=site, private_key=hidden, public_keys=public, self_masked=False
                )
                said = Answer(number, site, total=total, charged=EMPTY_LEDGER, after=transcript.mark)
                messages.append((place, said.to_bytes(identity)))
            sent += len(relayed_sum(messages))
            began = time.process_time()
            released = read_sum(messages, transcript)
            checked += time.process_time() - began
            transcript.append(released)
    for planned in protocol.phases:
        for round_ in range(planned.releases):
            began = time.process_time()
            transcript.arguments(planned.phase, round_)
            computed += time.process_time() - began
    return sent, checked, computed


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sites", type=int, nargs="+", default=[4, 12, 40])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print("| sites | MB to each | CPU s to check them | CPU s to compute with them |\n|---|---|---|---|")
    for sites in options.sites:
        names = [f"site-{index:03d}" for index in range(sites)]
        keys = {name: (Ed25519PrivateKey.generate(), X25519PrivateKey.generate()) for name in names}
        protocol = protocol_of(sites, trust="secure-sum", rounds=options.rounds, keys=keys)
        sent, checked, computed = measure(protocol, keys)
        print(f"| {sites} | {sent / 1e6:.1f} | {checked:.2f} | {computed:.2f} |", flush=True)


if __name__ == "__main__":
    main()

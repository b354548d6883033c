"""The secure sum of a large release: exact, and what it costs a site.

    python tests/benchmarks/secure_sum.py [--sites 8] [--numbers 100000] [--json]

Prints whether the opened sum equals the sum of the integers, and CPU seconds of one site, once for a set
of sites that is final (no masks of its own) and once with them; and, beside it, what the noise costs.
"""

import argparse
import json
import time

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from esn_client.gate.noise import discrete_gaussian
from esn_core.privacy.secure_sum import Attempt, mask, self_seed, unmask


def measure(sites: int, numbers: int, seed: int) -> dict[str, object]:
    rng = np.random.default_rng(seed)
    names = tuple(f"s{i}" for i in range(sites))
    keys = {name: X25519PrivateKey.generate() for name in names}
    public = {name: key.public_key() for name, key in keys.items()}
    totals = {name: rng.integers(-(2**53), 2**53, numbers) for name in names}
    attempt = Attempt("a" * 64, "aaaa/r1/gradient/0", names)
    exact, seconds = True, {}
    for self_masked in (False, True):
        masked, seeds, spent = {}, {}, []
        for name in names:
            before = time.process_time()
            masked[name] = mask(
                totals[name],
                attempt,
                site=name,
                private_key=keys[name],
                public_keys=public,
                self_masked=self_masked,
            )
            if self_masked:
                seeds[name] = self_seed(keys[name], attempt)
            spent.append(time.process_time() - before)
        before = time.process_time()
        opened = unmask(masked, attempt, seeds=seeds)
        seconds[self_masked] = (float(np.median(spent)), time.process_time() - before)
        # Python's integers, which have no bounds; every hundredth number, and the whole by numpy.
        whole = np.sum(list(totals.values()), axis=0)
        some = range(0, numbers, 100)
        exact &= bool(np.array_equal(opened, whole))
        exact &= all(int(opened[k]) == sum(int(t[k]) for t in totals.values()) for k in some)
    before = time.process_time()
    discrete_gaussian(numbers, 2.0**38)
    noise = time.process_time() - before
    return {
        "sites": sites,
        "numbers": numbers,
        "exact": exact,
        "cpu_s_per_site": max(site for site, _ in seconds.values()),
        "cpu_s_per_site_without_self_mask": seconds[False][0],
        "cpu_s_centre": max(centre for _, centre in seconds.values()),
        "cpu_s_noise": noise,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sites", type=int, default=8)
    parser.add_argument("--numbers", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=20261125)
    parser.add_argument("--json", action="store_true", help="for machines")
    words = parser.parse_args()
    found = measure(words.sites, words.numbers, words.seed)
    if words.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        print(f"{name:<34} {value:.4f}" if isinstance(value, float) else f"{name:<34} {value}")


if __name__ == "__main__":
    main()

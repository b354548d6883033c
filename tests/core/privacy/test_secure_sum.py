"""Masks cancel in the sum of all, hide every part of it, and open one sum of a question only."""

from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from esn_core.errors import ProtocolError
from esn_core.privacy.secure_sum import Attempt, mask, self_seed, unmask

NAMES = tuple(f"s{i}" for i in range(8))
KEYS = {name: X25519PrivateKey.from_private_bytes(bytes([i + 1] * 32)) for i, name in enumerate(NAMES)}
PUBLIC = {name: key.public_key() for name, key in KEYS.items()}
ATTEMPT = Attempt("a" * 64, "aaaa/r1/gradient/3", NAMES[:4])
INT64 = st.integers(-(2**63), 2**63 - 1)


def masked(totals, attempt=ATTEMPT, *, self_masked=True, keys=KEYS):
    return {
        site: mask(
            np.array(total, dtype=np.int64),
            attempt,
            site=site,
            private_key=keys[site],
            public_keys=PUBLIC,
            self_masked=self_masked,
        )
        for site, total in totals.items()
    }


def seeds(attempt=ATTEMPT):
    return {site: self_seed(KEYS[site], attempt) for site in attempt.participants}


def totals_of(attempt, dimension=3, seed=0):
    rng = np.random.default_rng(seed)
    return {site: rng.integers(-(2**53), 2**53, dimension) for site in attempt.participants}


@given(st.integers(3, 8), st.booleans(), st.data())
def test_the_opened_sum_is_the_sum_of_the_integers(sites, self_masked, data):
    attempt = replace(ATTEMPT, participants=NAMES[:sites])
    whole = arrays(np.int64, 5, elements=st.integers(-(2**53), 2**53))
    totals = {site: data.draw(whole) for site in attempt.participants}
    sent = masked(totals, attempt, self_masked=self_masked)
    opened = unmask(sent, attempt, seeds=seeds(attempt) if self_masked else {})
    # In Python's integers, without bounds.
    assert opened.tolist() == [sum(int(t[k]) for t in totals.values()) for k in range(5)]


@given(arrays(np.int64, 3, elements=INT64), arrays(np.int64, 3, elements=INT64))
def test_the_sum_is_modulo_two_to_the_64(first, second):
    totals = {"s0": first, "s1": second, "s2": [0, 0, 0], "s3": [0, 0, 0]}
    opened = unmask(masked(totals), ATTEMPT, seeds=seeds())
    assert [int(x) % 2**64 for x in opened] == [
        (int(a) + int(b)) % 2**64 for a, b in zip(first, second, strict=True)
    ]


def test_the_same_attempt_gives_the_same_bytes():
    totals = totals_of(ATTEMPT)
    first, second = masked(totals), masked(totals)
    assert all(np.array_equal(first[site], second[site]) for site in totals)


@pytest.mark.parametrize(
    "other",
    [
        {"protocol_sha256": "b" * 64},
        {"question": "aaaa/r1/gradient/4"},
        {"participants": NAMES[:5]},
        {"participants": ("s1", "s0", "s2", "s3")},
    ],
)
def test_masks_and_seeds_are_others_in_every_other_attempt(other):
    attempt = replace(ATTEMPT, **other)
    zero = {"s0": np.zeros(4, dtype=np.int64)}
    for self_masked in (True, False):
        here, there = (masked(zero, a, self_masked=self_masked)["s0"] for a in (ATTEMPT, attempt))
        assert not (here == there).any()
    assert self_seed(KEYS["s0"], ATTEMPT) != self_seed(KEYS["s0"], attempt)


@pytest.mark.parametrize("self_masked", [True, False])
def test_a_masked_vector_looks_uniform_whatever_it_hides(self_masked):
    hidden = masked({"s1": np.zeros(20_000, dtype=np.int64)}, self_masked=self_masked)["s1"]
    units = hidden.view(np.uint64) / 2.0**64
    # KS statistic at n = 20,000: 1.95/141 in one run of a thousand; the masks are fixed here.
    assert stats.kstest(units, "uniform").statistic < 1.95 / 141


@pytest.mark.parametrize("missing", NAMES[:4])
def test_without_one_sites_part_the_sum_cannot_be_opened(missing):
    sent = masked(totals_of(ATTEMPT))
    rest = {site: vector for site, vector in sent.items() if site != missing}
    with pytest.raises(ProtocolError, match="needs an answer of each of them"):
        unmask(rest, ATTEMPT, seeds=seeds())
    # Nor by pretending that it was not in the set: the masks it shares stay.
    smaller = replace(ATTEMPT, participants=tuple(rest))
    with pytest.raises(ProtocolError, match="masks do not cancel"):
        unmask(rest, smaller, seeds={s: self_seed(KEYS[s], ATTEMPT) for s in rest})


@pytest.mark.parametrize("missing", NAMES[:4])
def test_without_one_sites_seed_the_sum_cannot_be_opened(missing):
    wrong = {**seeds(), missing: bytes(32)}
    with pytest.raises(ProtocolError, match="masks do not cancel"):
        unmask(masked(totals_of(ATTEMPT)), ATTEMPT, seeds=wrong)


def test_a_centre_that_lies_about_a_dropout_cannot_subtract_two_sums():
    """It asks four sites, says that s3 dropped, asks three; each site reveals one seed only.

    Whatever attempt each site reveals for, at most one of the two sums opens.
    """
    totals = totals_of(ATTEMPT)
    three = replace(ATTEMPT, participants=NAMES[:3])
    first = masked(totals)
    second = masked({s: totals[s] for s in three.participants}, three)
    for choice in range(8):
        revealed = {
            site: (ATTEMPT if choice >> i & 1 else three) for i, site in enumerate(three.participants)
        }
        opened = 0
        for sent, attempt in ((first, ATTEMPT), (second, three)):
            # s3 is on the centre's side: it reveals what it is asked for, as often as it is asked.
            known = {
                site: self_seed(KEYS[site], attempt)
                for site in attempt.participants
                if site == "s3" or revealed[site] == attempt
            }
            guessed = {site: known.get(site, bytes(32)) for site in attempt.participants}
            try:
                unmask(sent, attempt, seeds=guessed)
            except ProtocolError:
                continue
            opened += 1
        assert opened <= 1


def test_without_masks_of_their_own_the_lie_would_work():
    """The attack that the seeds are there for, so that the test above is known to be able to fail."""
    totals = totals_of(ATTEMPT)
    three = replace(ATTEMPT, participants=NAMES[:3])
    first = unmask(masked(totals, self_masked=False), ATTEMPT, seeds={})
    second = unmask(
        masked({s: totals[s] for s in three.participants}, three, self_masked=False), three, seeds={}
    )
    assert np.array_equal(first - second, totals["s3"])


@given(
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(1, 2**64 - 1) | st.sampled_from([2**k for k in range(64)]),
)
def test_a_damaged_answer_is_seen(site, place, change):
    sent = masked(totals_of(ATTEMPT))
    damaged = sent[NAMES[site]].view(np.uint64).copy()
    damaged[place : place + 1] += np.uint64(change)
    with pytest.raises(ProtocolError, match="masks do not cancel"):
        unmask({**sent, NAMES[site]: damaged.view(np.int64)}, ATTEMPT, seeds=seeds())


def test_another_key_is_seen():
    keys = {**KEYS, "s2": X25519PrivateKey.generate()}
    with pytest.raises(ProtocolError, match="masks do not cancel"):
        unmask(masked(totals_of(ATTEMPT), keys=keys, self_masked=False), ATTEMPT, seeds={})


def test_vectors_of_two_lengths_are_refused():
    sent = masked(totals_of(ATTEMPT))
    with pytest.raises(ProtocolError, match=r"must have one length, not \[3, 4\]"):
        unmask({**sent, "s0": sent["s0"][:-1]}, ATTEMPT, seeds=seeds())


def test_a_key_that_gives_no_secret_is_refused():
    public = {**PUBLIC, "s2": X25519PublicKey.from_public_bytes(bytes(32))}
    with pytest.raises(ProtocolError, match="the mask key of s2 gives no secret"):
        mask(
            np.zeros(2, dtype=np.int64),
            ATTEMPT,
            site="s0",
            private_key=KEYS["s0"],
            public_keys=public,
            self_masked=False,
        )


def test_an_empty_release_is_only_a_check_number():
    sent = masked({site: [] for site in ATTEMPT.participants})
    assert {len(vector) for vector in sent.values()} == {1}
    assert len(unmask(sent, ATTEMPT, seeds=seeds())) == 0

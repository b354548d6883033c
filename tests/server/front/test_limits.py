"""What one client of the front may take."""

from hypothesis import given
from hypothesis import strategies as st

from esn_server.front.limits import CallRate, ConnectionCount


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


@given(
    st.lists(st.floats(0.0, 3.0), min_size=1, max_size=60),
    st.floats(0.5, 20.0),
    st.integers(1, 10),
)
def test_no_stretch_of_time_holds_more_calls_than_burst_and_rate_allow(gaps_s, rate, burst):
    clock, granted_s = Clock(), []
    calls = CallRate(calls_per_s=rate, burst=burst, clock=clock)
    for gap_s in gaps_s:
        clock.now_s += gap_s
        granted_s.append(clock.now_s + calls.take("site"))
    for first, start_s in enumerate(granted_s):
        for last in range(first, len(granted_s)):
            # One call more than the rate earns: the first of the stretch. The rest is rounding.
            allowed = burst + rate * (granted_s[last] - start_s) + 1e-6
            assert last - first + 1 <= allowed + 1e-6


def test_one_client_does_not_use_up_anothers_calls():
    calls = CallRate(calls_per_s=1.0, burst=2, clock=Clock())
    assert [calls.take("greedy") for _ in range(4)] == [0.0, 0.0, 1.0, 2.0]
    assert calls.take("modest") == 0.0


def test_the_client_heard_longest_ago_is_forgotten_first():
    calls = CallRate(calls_per_s=1.0, burst=1, clients=2, clock=Clock())
    for client in ("a", "b", "a", "c"):
        calls.take(client)
    assert calls.take("a") > 0
    assert calls.take("b") == 0.0


def test_bytes_are_counted_as_bytes():
    sent = CallRate(calls_per_s=100.0, burst=1000, clock=Clock())
    assert sent.take("site", 1000) == 0.0
    assert sent.take("site", 500) == 5.0


def test_connections_are_counted_in_all_and_for_each_address():
    count = ConnectionCount(in_all=3, per_address=2)
    assert [count.enter(address) for address in ("a", "a", "a", "b", "c")] == [True, True, False, True, False]
    count.leave("a")
    assert count.enter("c")

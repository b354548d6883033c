"""What one client of the front may take."""

from hypothesis import given
from hypothesis import strategies as st

from esn_server.front.limits import CallRate, Seats


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
        wait_s = calls.take("site")
        if wait_s is not None:
            granted_s.append(clock.now_s + wait_s)
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
    assert calls.take("a") == 2.0
    assert calls.take("b") == 0.0


def test_bytes_are_counted_as_bytes():
    sent = CallRate(calls_per_s=100.0, burst=1000, clock=Clock())
    assert sent.take("site", 1000) == 0.0
    assert sent.take("site", 500) == 5.0


def test_a_call_that_would_wait_too_long_takes_nothing():
    """Who shares an address with a flood finds a gap in it: there is no debt of what was turned away."""
    clock = Clock()
    calls = CallRate(calls_per_s=1.0, burst=1, longest_wait_s=2.0, clock=clock)
    assert [calls.take("flood") for _ in range(100)] == [0.0, 1.0, 2.0, *[None] * 97]
    clock.now_s += 1.0
    assert calls.take("flood") == 2.0


def seats(**places):
    """Return seats, and who had to leave them."""
    left = []
    made = Seats(**{"silent": 3, "strangers": 3, "of_site": 2, **places})
    return made, left, lambda name, address="a": made.enter(address, lambda: left.append(name))


def test_a_newcomer_takes_the_place_of_the_oldest_connection_of_whoever_has_most():
    _, left, enter = seats()
    for number, address in enumerate("abab", start=1):
        enter(number, address)
    assert left == [1]  # a has most, and this was its first
    for number in range(5, 9):
        enter(number, "flood")
    assert left == [1, 2, 5, 6, 7]  # b's first, and then the flood's own
    enter(9, "b")
    assert left == [1, 2, 5, 6, 7, 4]


def test_the_silent_take_no_place_of_those_who_spoke_and_strangers_none_of_sites():
    rooms, left, enter = seats()
    spoke, site = enter("spoke"), enter("site")
    for seat in (spoke, site):
        rooms.has_spoken(seat)
    rooms.belongs_to(site, b"north")
    for number in range(100):
        enter(number)
    assert left == list(range(97))
    for number in range(100, 200):
        rooms.has_spoken(enter(number))
    assert "spoke" in left
    assert "site" not in left


def test_each_site_has_places_of_its_own():
    rooms, left, enter = seats()
    for number in range(10):
        seat = enter(number)
        rooms.has_spoken(seat)
        rooms.belongs_to(seat, b"south" if number == 0 else b"north")
    assert left == list(range(1, 8))  # all but south's, and north's last two


def test_a_place_that_was_given_up_or_lost_is_nobodys():
    rooms, left, enter = seats(silent=1)
    lost = enter("lost")
    kept = enter("kept")
    assert left == ["lost"]
    assert not rooms.free(lost)
    rooms.has_spoken(lost)  # it is on its way out, and gets no new place
    assert lost.room == "silent"
    assert rooms.free(kept)
    enter("next")
    assert left == ["lost"]

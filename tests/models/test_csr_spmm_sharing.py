"""Equal shares of a unit: by hand, and against what processor sharing is."""

from fractions import Fraction

import numpy as np
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.models.parts.csr_spmm.sharing import GRAINS, Shared, split_time


def served(arrivals, servers):
    """Return when each of ``arrivals``, (time, ticks of service) pairs, is done."""
    env = simpy.Environment()
    unit = Shared(env, servers)
    done = {}

    def ask(number, time, ticks):
        yield env.timeout(time)
        yield unit.serve(ticks * GRAINS)
        done[number] = env.now

    for number, (time, ticks) in enumerate(arrivals):
        env.process(ask(number, time, ticks))
    env.run()
    return [done[number] for number in range(len(arrivals))]


def exact(arrivals, servers):
    """Return the same in exact fractions, change by change."""
    left = {}
    done = [None] * len(arrivals)
    now = Fraction(0)
    coming = sorted(range(len(arrivals)), key=lambda number: arrivals[number][0])
    while coming or left:
        rate = Fraction(min(len(left), servers), len(left)) if left else Fraction(0)
        ends = [now + need / rate for need in left.values()] if left else []
        nexts = ends + ([Fraction(arrivals[coming[0]][0])] if coming else [])
        then = min(nexts)
        for number in left:
            left[number] -= (then - now) * rate
        now = then
        for number in [number for number, need in left.items() if need <= 0]:
            done[number] = now
            del left[number]
        while coming and arrivals[coming[0]][0] == now:
            number = coming.pop(0)
            left[number] = Fraction(arrivals[number][1])
            if left[number] == 0:
                done[number] = now
                del left[number]
    return done


def test_two_that_share_take_twice_as_long_and_the_longer_then_goes_on_alone():
    assert served([(0, 10), (0, 30)], 1) == [20, 40]
    assert served([(0, 10), (0, 30)], 2) == [10, 30]


def test_who_comes_later_slows_down_who_is_there():
    # Alone for 4 ticks, then half of 12, then alone again for what is left.
    assert served([(0, 10), (4, 6)], 1) == [16, 16]
    assert served([(0, 20), (4, 6)], 1) == [26, 16]


def test_nothing_is_served_at_once():
    assert served([(3, 0), (0, 5)], 1) == [3, 5]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    arrivals=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 40)), min_size=1, max_size=12),
    servers=st.integers(1, 5),
)
def test_it_is_processor_sharing_to_the_rounding_of_ticks(arrivals, servers):
    """Each change is at a whole tick, at most one late, and moves others by no more."""
    found, wanted = served(arrivals, servers), exact(arrivals, servers)
    assert all(abs(mine - other) <= len(arrivals) for mine, other in zip(found, wanted, strict=True))
    assert max(found) >= max(wanted)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    body=st.integers(0, 10**6), fma=st.integers(0, 10**6), slots=st.integers(0, 400), share=st.floats(0, 1),
    good=st.floats(0, 1), last=st.integers(0, 3),
)  # fmt: skip
def test_a_body_is_split_without_rest(body, fma, slots, share, good, last):
    computed = round(slots * share)
    shape = np.array([fma, slots, computed, round(8 * computed * good), 8 * computed], np.int64)
    spent = np.zeros(9, np.int64)
    split_time(body, shape, last, spent)
    assert spent.sum() == body and (spent >= 0).all() and spent[0] == spent[8] == 0
    assert slots == 0 or spent[3] == body * (slots - computed) // slots

"""Spaces of cases: what is in them, each case once."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.models import load_machine, vary
from gossamer.simulator.space import Space
from gossamer.workloads import InputError
from gossamer.workloads.synth import random_layer

LAYER = random_layer(16, 16, 0.5, 0.5, name="a")
TRACES = [LAYER, dataclasses.replace(LAYER, name="b")]
EIE, SYSTOLIC = load_machine("eie-64pe"), load_machine("systolic-16x16")
BOTH = {"pe_count": [1, 2, 4], "rows": [8, 16], "clock_hz": [4e8, 8e8]}  # EIE's, the array's, and one that both have


def space(machines=(EIE, SYSTOLIC), values=BOTH, traces=TRACES, ordered=("pe_count",)):
    return Space(traces, machines, values, vary, frozenset(ordered))


def test_a_field_of_some_machines_is_varied_on_those_and_the_others_are_taken_as_they_are():
    whole = space()
    found = [whole.case(point) for point in whole.points()]
    assert len(found) == whole.size == 2 * (3 * 2 + 2 * 2)
    assert len({case.key for case in found}) == whole.size
    assert {tuple(case.settings) for case in found if case.machine.model == "systolic"} == {("rows", "clock_hz")}
    assert {case.machine.config.pe_count for case in found if case.machine.model == "eie"} == {1, 2, 4}
    assert whole.warnings() == [
        "pe_count is no field of systolic-16x16; taken as it is, whatever pe_count is",
        "rows is no field of eie-64pe; taken as it is, whatever rows is",
    ]


def test_a_space_of_traces_and_machines_alone_has_each_pair_once():
    whole = space(values={})
    assert list(whole.points()) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert whole.warnings() == []


def test_a_field_of_no_machine_is_told_as_the_first_machine_tells_it():
    with pytest.raises(InputError) as caught:
        space(values={"pe_cuont": [1]})
    assert str(caught.value).startswith("eie-64pe: unknown key 'pe_cuont' (did you mean pe_count?); model eie knows ")


def test_more_cases_than_can_be_simulated_are_not_listed():
    whole = space([EIE], {"pe_count": range(1, 8193), "queue_depth": range(2, 1 << 20)})
    with pytest.raises(InputError) as caught:
        next(whole.points())
    assert str(caught.value) == (
        f"at most 1,000,000 cases can all be simulated, not {whole.size:,}; give --trials, or fewer values"
    )


points = st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 2), st.integers(0, 1), st.integers(0, 1))


@given(points, points)
def test_points_are_one_when_their_cases_are(one, other):
    whole = space()
    same_case = whole.case(one).key == whole.case(other).key
    assert (whole.plain(one) == whole.plain(other)) == same_case
    assert whole.case(whole.plain(one)).key == whole.case(one).key


@given(points)
def test_what_is_near_is_one_choice_away_and_never_the_point_itself(point):
    whole = space()
    here = whole.plain(point)
    near = whole.near(here)
    assert len(near) == len(set(near))
    assert here not in near
    for other in near:
        assert whole.plain(other) == other
        differ = [i for i in range(5) if other[i] != here[i]]
        # On another machine, a field that it lacks goes back to its first value.
        assert len(differ) == 1 or 1 in differ
        if differ == [2]:
            assert abs(other[2] - here[2]) == 1  # pe_count is ordered


def test_a_search_starts_from_the_middle_and_the_ends_of_all_for_every_trace_and_machine():
    whole = space([EIE], {"pe_count": range(1, 12), "queue_depth": [2, 4]}, ordered=("pe_count", "queue_depth"))
    assert whole.starts(100) == [(0, 0, 5, 1), (1, 0, 5, 1), (0, 0, 10, 1), (1, 0, 10, 1), (0, 0, 0, 0), (1, 0, 0, 0)]
    assert whole.starts(2) == [(0, 0, 5, 1), (1, 0, 5, 1)]


def test_every_point_may_be_drawn():
    whole = space()
    rng = np.random.default_rng(0)
    assert {whole.draw(rng) for _ in range(60 * whole.size)} == set(whole.points())
    assert math.prod(whole.shape) > whole.size

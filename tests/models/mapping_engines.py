"""Mapping units, clouds to map, and both engines of an operation at once."""

import math

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gossamer.models.parts.pointacc import mapping as pointacc_mapping
from gossamer.models.parts.pointacc import units as pointacc_units
from gossamer.models.parts.pointacc.mapper import COUNTS
from gossamer.models.parts.pointacc.mapping import Mapper

from .clouds import clouds

RULES = ("head-select", "two-window", "flims")
mappers = st.builds(
    Mapper,
    merger_width=st.sampled_from([2, 4, 8, 16]),
    rule=st.sampled_from(RULES),
    fps_lanes=st.integers(1, 9),
    loop_latency=st.integers(0, 25),
    exploit_symmetry=st.booleans(),
    boundary_register=st.booleans(),
)
ascending = st.sets(st.integers(-40, 40), max_size=50).map(lambda keys: np.array(sorted(keys), np.int64))
coordinates = clouds(-3, 2)


def points(least=0, most=40, dimensions=3):
    values = st.integers(-8, 8).map(lambda number: number / 4)  # so coarse that many distances are equal
    shapes = st.tuples(st.integers(least, most), st.just(dimensions))
    return shapes.flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=values))


def both(name, mapper, *arguments):
    """Return the outcome of both engines, having checked that data, cycles and every count are the same."""
    fast, event = (getattr(engine, name)(mapper, *arguments) for engine in (pointacc_mapping, pointacc_units))
    assert event.cycles == fast.cycles
    assert event.counts == fast.counts
    assert tuple(fast.counts) == COUNTS
    assert_same(event.data, fast.data)
    return fast


def assert_same(one, other):
    if isinstance(one, tuple | list):
        for mine, its in zip(one, other, strict=True):
            assert_same(mine, its)
    else:
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def blocks(count, size):
    return -(-count // size)


def full_sort_cycles(n, width):
    """Return the reference's closed form for head selection, with leaves of the merger's width."""
    runs = blocks(n, width)
    cycles = runs
    for q in range(max(0, math.ceil(math.log2(max(runs, 1))))):
        left = -(-runs // 2**q)
        moved = n if left % 2 == 0 else (left - 1) * width * 2**q
        cycles += blocks(moved, width // 2) + 1
    return cycles

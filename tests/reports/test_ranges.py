"""Ranges of values, as the command line has them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.reports.ranges import parse_range
from gossamer.workloads import InputError

FORM = "KEY=LOW:HIGH, KEY=LOW:HIGH:STEP or KEY=LOW:HIGH:log2"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a=2:5", [2, 3, 4, 5]),
        ("a = 2 : 9 : 3", [2, 5, 8]),
        ("a=7:7", [7]),
        ("a=1:16:log2", [1, 2, 4, 8, 16]),
        ("a=3:20:log2", [3, 6, 12]),
        ("a=0.1:0.5:0.1", [0.1, 0.2, 0.3, 0.4, 0.5]),  # not 0.30000000000000004
        ("a=2e8:8e8:2e8", [2e8, 4e8, 6e8, 8e8]),
        ("a=0.5:2:log2", [0.5, 1.0, 2.0]),
        ("a=-2:1", [-2, -1, 0, 1]),
        ("a=0:1_000:500", [0, 500, 1000]),
    ],
)
def test_a_range_is_its_values_in_order(text, values):
    key, found = parse_range(text)
    assert (key, list(found)) == ("a", values)
    assert {type(value) for value in found} == {type(value) for value in values}


@given(st.integers(-(10**6), 10**6), st.integers(0, 10**9), st.integers(1, 10**4))
def test_whole_numbers_are_those_of_a_python_range(low, more, step):
    assert parse_range(f"key={low}:{low + more}:{step}") == ("key", range(low, low + more + 1, step))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *((text, f"a range must be {FORM}, not {text!r}; as in pe_count=1:1024:log2")
          for text in ("a", "a=1", "=1:2", "a=1:", "a=1:2:3:4", "")),
        ("a=x:2", f"the ends and the step of a range must be numbers, not 'x' in 'a=x:2'; write {FORM}"),
        ("a=1:2:log", f"the ends and the step of a range must be numbers, not 'log' in 'a=1:2:log'; write {FORM}"),
        ("a=nan:2:1", f"the ends and the step of a range must be numbers, not 'nan' in 'a=nan:2:1'; write {FORM}"),
        ("a=_:2", f"the ends and the step of a range must be numbers, not '_' in 'a=_:2'; write {FORM}"),
        ("a=5:2", "a range must go from its least value to its greatest, not 'a=5:2'; turn them round"),
        ("a=1:5:0", "the step of a range must be above 0, not 0 in 'a=1:5:0'"),
        ("a=0:8:log2", "what is doubled must be above 0, not 0 in 'a=0:8:log2'"),
        ("a=0.5:2", "a range of fractions needs a step, and 'a=0.5:2' has none; write KEY=LOW:HIGH:STEP"),
        ("a=0:1:1e-9", "a range of fractions must have at most 1,000,000 values, not those of 'a=0:1:1e-9'; widen the "
         "step"),
    ],
)  # fmt: skip
def test_what_is_no_range_is_told_in_one_line(text, message):
    with pytest.raises(InputError) as caught:
        parse_range(text)
    assert str(caught.value) == message

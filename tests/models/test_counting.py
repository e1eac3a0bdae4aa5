"""Cycles that would leave 64 bits are refused before they are counted, by layer and field; others are exact."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.models import load_machine
from gossamer.models.parts.counting import check_count, share_of
from gossamer.simulator import simulate
from gossamer.workloads import Layer, Trace
from gossamer.workloads.errors import InputError

RNG = np.random.default_rng(3)
CONFIG = SimpleNamespace(rate=1e-9, clock_hz=1e9, depth=4)


def test_what_fits_in_64_bits_passes_to_the_last_one():
    check_count(CONFIG, {"rate": 2**61, "depth": 2**61 - 1})
    with pytest.raises(InputError) as caught:
        check_count(CONFIG, {"rate clock_hz": 2**61 + 1, "depth": 2**61 - 1})
    assert str(caught.value) == (
        "a layer must come to fewer than 4.6e+18 cycles to be counted in 64 bits, and could come to 4.6e+18 with "
        "rate = 1e-09, clock_hz = 1e+09; choose nearer ones"
    )


def test_what_is_added_up_often_must_be_as_much_less():
    check_count(CONFIG, {"rate": 2**52 - 1}, times=1024)
    with pytest.raises(InputError, match=r"fewer than 4.3e\+12 bits .* could come to 4.3e\+12 with depth = 4;"):
        check_count(CONFIG, {"rate": 1, "depth": 2**52}, times=1024, per_cycle=1024, what="bits")


@given(st.integers(0, 2**62), st.integers(0, 2**31 - 1), st.integers(1, 2**31 - 1))
def test_a_share_is_exact_though_the_product_leaves_64_bits(ticks, part, whole):
    part = min(part, whole)
    assert int(share_of(np.array([ticks]), part, whole)[0]) == ticks * part // whole


def layer(op):
    if op == "sparse_conv3d":
        points = RNG.permutation(np.stack(np.meshgrid(*[np.arange(4)] * 3), -1).reshape(-1, 3))[:20].astype(np.int32)
        kernel = RNG.standard_normal((4, 3, 27)).astype(np.float32)
        return Layer(name="c", op=op, weight=kernel, inputs=np.ones((20, 3), np.float32), coordinates=points)
    if op == "conv2d":
        kernel = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
        return Layer(name="c", op=op, weight=kernel, inputs=np.ones((1, 3, 6, 6), np.float32),
                     attributes={"padding": (1, 1)})  # fmt: skip
    return Layer(name="c", op=op, weight=np.ones((16, 32), np.float32), inputs=np.ones((8, 32), np.float32))


SLOW = [
    ("a100-sparse", "linear", "fp32_accumulate_rate", 1e-16),
    ("a100-sparse", "linear", "smem_bytes_per_clk", 1e-14),
    ("a100-sparse", "linear", "l2_bytes_per_clk", 1e-14),
    ("a100-sparse", "linear", "hbm_bytes_per_s", 1e-9),
    ("a100-sparse", "linear", "launch_s", 1e9),
    ("a100-block-ell", "linear", "hbm_efficiency", 1e-20),
    ("a100-sputnik", "linear", "l1_bytes_per_clk", 1e-15),
    ("dstc-a100", "linear", "launch_s", 1e8),
    ("dstc-a100", "linear", "hbm_bytes_per_s", 1e-7),
    ("patdnn-kryo485", "conv2d", "dram_bytes_per_s", 1e-6),
    ("pointacc", "sparse_conv3d", "dram_bandwidth_bytes_per_s", 1e-8),
    ("torchsparse-2080ti", "sparse_conv3d", "kernel_efficiency", 1e-17),
    ("ese", "linear", "dram_bytes_per_s", 1e-9),
]


@pytest.mark.parametrize("engine", ["fast", "event"])
@pytest.mark.parametrize(("name", "op", "field", "value"), SLOW)
def test_a_field_that_leads_beyond_64_bits_is_named_with_the_layer(name, op, field, value, engine):
    trace = Trace(name="t", layers=[layer(op)])
    with pytest.raises(InputError) as caught:
        simulate(load_machine(name, **{field: value}), trace, engine=engine)
    number = r"[0-9.]+(e\+[0-9]+)?"
    assert re.fullmatch(
        rf"layer c: a layer must come to fewer than {number} cycles to be counted in 64 bits, and could come to "
        rf"{number} with .*\b{field} = {re.escape(f'{value:g}')}\b.*; choose nearer ones",
        str(caught.value),
    )


@pytest.mark.parametrize(("name", "op", "field", "value"), SLOW)
def test_up_to_there_slower_takes_longer_and_causes_add_up(name, op, field, value):
    """Scan towards ``value`` by factors of 4 until it is refused: a number that wraps round would break a rule."""
    trace, step = Trace(name="t", layers=[layer(op)]), 4.0 if value > 1 else 0.25
    machine, before = load_machine(name), 0
    at = float(getattr(machine.config, field))
    while (at < value) == (step > 1):
        try:
            found = simulate(load_machine(name, **{field: at}), trace).layers[0]
        except InputError:
            break
        assert found.cycles >= before
        before = found.cycles
        for unit, causes in found.cycles_per_unit.items():
            assert all(min(each) >= 0 for each in causes.values())
            assert {sum(each) for each in zip(*causes.values(), strict=True)} == {found.cycles}
            assert {cause: sum(each) for cause, each in causes.items()} == found.cycles_by_cause[unit]
        at *= step
    assert before > 2**20

"""Work for whichever unit is free: the dispatcher and its recurrence, and the machines that hand out tiles by them."""

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.models import load_machine
from gossamer.models.parts.dispatch import Dispatcher, first_free
from gossamer.workloads import Layer
from gossamer.workloads.patterns import Pattern

from .clouds import clouds
from .engine_bytes import assert_same_bytes, holed

SHARES = st.sampled_from([0.0, 0.1, 0.4, 1.0])


def by_units(durations, units, launched):
    """Return which unit works off each of ``durations``, and when it begins; units begin to ask when ``launched``."""
    env, taken = simpy.Environment(), []
    dispatcher = Dispatcher(env, iter(range(len(durations))), units)

    def unit(index):
        yield env.timeout(launched[index])
        while (item := (yield dispatcher.ask(index))) is not None:
            taken.append((item, index, env.now))
            for _ in range(durations[item]):
                yield env.timeout(1)

    for index in range(units):
        env.process(unit(index))
    env.run()
    assert not dispatcher.waiting  # all have been told that there is no more
    return [(index, when) for _, index, when in sorted(taken)]


@settings(max_examples=200, deadline=None)
@given(
    durations=st.lists(st.sampled_from([0, 0, 0, 1, 2, 5]), max_size=30),
    launched=st.lists(st.sampled_from([0, 0, 1, 3]), min_size=1, max_size=7),
)
def test_units_take_what_the_recurrence_gives_them_whatever_takes_no_time(durations, launched):
    free, expected = np.array(launched), []
    for duration in durations:
        unit = first_free(free)
        expected.append((unit, free[unit]))
        free[unit] += duration
    assert by_units(durations, len(launched), launched) == expected


def linear(rng, rows, depth, columns, shares, **more):
    weight, inputs = (holed(rng, side, depth, rows=shares[0], density=shares[1]) for side in (rows, columns))
    return Layer(name="fc", op="linear", weight=weight, inputs=inputs, **more)


def matmul(rng, products, rows, depth, columns, shares):
    weight, inputs = (holed(rng, products * n, depth, rows=shares[0], density=shares[1]) for n in (rows, columns))
    return Layer(
        name="qk", op="matmul", weight=weight.reshape(products, rows, depth), attributes={"samples": 1},
        inputs=inputs.reshape(products, columns, depth),
    )  # fmt: skip


def depthwise(rng, groups, kernel, shares, pattern=None):
    weight = holed(rng, groups, 1, kernel, kernel, rows=shares[0], density=shares[1])
    return Layer(
        name="conv", op="conv2d", weight=weight, inputs=rng.standard_normal((1, groups, 5, 4)).astype(np.float32),
        attributes={"groups": groups, "padding": (kernel // 2, kernel // 2)}, pattern=pattern or Pattern(),
    )  # fmt: skip


@st.composite
def layers(draw):
    """Return a product, several, or a depthwise convolution, much of it empty; of one row or column now and then."""
    rng, shares = np.random.default_rng(draw(st.integers(0, 2**32))), (draw(SHARES), draw(SHARES))
    rows, depth, columns, count = (draw(st.integers(1, most)) for most in (40, 20, 20, 4))
    made = draw(st.sampled_from(["linear", "matmul", "depthwise"]))
    if made == "matmul":
        return matmul(rng, count, rows, depth, columns, shares)
    if made == "depthwise":
        return depthwise(rng, draw(st.integers(1, 8)), draw(st.sampled_from([1, 3])), shares)
    bias = rng.standard_normal(rows).astype(np.float32) if draw(st.booleans()) else None
    return linear(rng, rows, depth, columns, shares, bias=bias)


TENSOR_CORES = {"cta_columns": 8, "cta_depth": 16, "warp_columns": 8, "launch_s": 0.0}
GPUS = {
    "tensor cores": ("a100-sparse", TENSOR_CORES | {"cta_rows": 16, "warp_rows": 16}),
    "several residents": ("a100-sparse", TENSOR_CORES | {"cta_rows": 16, "warp_rows": 16, "ctas_per_sm": 2}),
    "split reductions": ("a100-sparse", TENSOR_CORES | {"cta_rows": 16, "warp_rows": 16, "split_k": 2}),
    "blocks": ("a100-block-ell", TENSOR_CORES | {"block": 4}),
    "rows": ("a100-sputnik", {
        "kernel": "fixed", "tile_columns": 8, "tile_depth": 8, "subwarp_threads": 4, "block_rows": 8,
        "sparse_vector": 2, "dense_vector": 2, "residue_unroll": 2, "loads_in_flight": 8, "max_blocks_per_sm": 2,
    }),
}  # fmt: skip
AT_ONCE = {"fill_cycles": 0}, {"l1_latency_cycles": 0, "smem_latency_cycles": 0, "l2_latency_cycles": 0}


@pytest.mark.parametrize("name", GPUS)
@settings(max_examples=40, deadline=None)
@given(layer=layers(), sms=st.sampled_from([1, 2, 3, 5, 50]), at_once=st.booleans())
def test_a_gpu_gives_the_same_bytes_by_either_engine_where_much_is_empty(name, layer, sms, at_once):
    preset, changes = GPUS[name]
    changes = changes | (AT_ONCE[name == "rows"] if at_once else {})
    assert_same_bytes(load_machine(preset, sm_count=sms, **changes), layer)


NO_TIME = {"kernel_cycles": 0, "dispatch_cycles": 0, "switch_cycles": 0, "item_cycles": 0, "load_latency": 0}


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    groups=st.integers(1, 12),
    kernel=st.sampled_from([1, 3]),
    shares=st.tuples(SHARES, SHARES),
    cores=st.sampled_from([1, 2, 3, 8, 40]),
    changes=st.sampled_from([{}, NO_TIME, {"loop_order": "tiles"}, {"filter_block": 1, "tune": False}]),
    schedule=st.sampled_from(["dynamic", "dynamic", "static"]),
)
def test_a_processor_gives_the_same_bytes_by_either_engine_where_kernels_are_empty(
    seed, groups, kernel, shares, cores, changes, schedule
):
    built = load_machine("patdnn-kryo485", cores=cores, schedule=schedule, **changes)
    assert_same_bytes(built, depthwise(np.random.default_rng(seed), groups, kernel, shares), tolerance=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    coordinates=clouds(-3, 3, least=1, most=20).map(lambda found: np.unique(found, axis=0)),
    sms=st.sampled_from([1, 2, 3, 50]),
    dataflow=st.sampled_from(["implicit-gemm", "gather-gemm-scatter", "fetch-on-demand"]),
    splits=st.integers(0, 4),
    fill=st.sampled_from([0, 0, 7]),
    rows=st.sampled_from([1, 2, 8]),
)
def test_tiles_without_a_pair_give_the_same_bytes_by_either_engine(coordinates, sms, dataflow, splits, fill, rows):
    rng = np.random.default_rng(len(coordinates))
    layer = Layer(
        name="conv", op="sparse_conv3d", weight=rng.standard_normal((5, 3, 27)).astype(np.float32),
        inputs=rng.standard_normal((len(coordinates), 3)).astype(np.float32), coordinates=coordinates,
        attributes={"kernel_size": 3},
    )  # fmt: skip
    built = load_machine("torchsparse-2080ti", sm_count=sms, dataflow=dataflow, mask_splits=splits, fill_cycles=fill,
                         tile_rows=rows, tile_columns=8, least_tile_columns=8, tile_depth=4, launch_s=0.0)  # fmt: skip
    assert_same_bytes(built, layer, tolerance=1e-4)

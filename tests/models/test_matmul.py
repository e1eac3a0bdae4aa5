"""Products of activations on every machine that takes them: both engines, and numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.models import load_machine
from gossamer.simulator import simulate
from gossamer.simulator.check import check
from gossamer.workloads import Layer, Trace
from gossamer.workloads.errors import InputError
from gossamer.workloads.patterns import Pattern

MACHINES = ("a100-sparse", "a100-dense", "dstc-a100", "systolic-8x8", "sparseloop-stc")


def matmul(products, out, rows, depth, samples=1, density=1.0, pattern=None, seed=0):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((products, out, depth)) * (rng.random((products, out, depth)) < density)
    if pattern is not None:
        weight = np.where(np.arange(depth) % pattern.m < pattern.n, weight, 0)
    return Layer(
        name="qk",
        op="matmul",
        weight=weight.astype(np.float32),
        inputs=(rng.standard_normal((products, rows, depth)) * (rng.random((products, rows, depth)) < density)).astype(
            np.float32
        ),
        pattern=Pattern() if pattern is None else pattern,
        attributes={"samples": samples},
    )


def trace(*layers):
    return Trace(name="products", layers=layers)


@pytest.mark.parametrize("name", MACHINES)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    sizes=st.tuples(*[st.integers(1, 20)] * 3),
    samples=st.integers(1, 3),
    heads=st.integers(1, 3),
    density=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_engines_and_numpy_agree_on_products_of_activations(name, sizes, samples, heads, density):
    layer = matmul(samples * heads, *sizes, samples=samples, density=density)
    (found,) = check(load_machine(name), trace(layer))
    assert found.passed, found


@pytest.mark.parametrize("name", MACHINES)
def test_vectors_are_those_of_all_products_and_samples_those_behind_them(name):
    layer = matmul(6, 5, 7, 8, samples=2)
    (result,) = simulate(load_machine(name), trace(layer)).layers
    assert (result.op, result.shape, result.samples, result.vectors) == ("matmul", (6, 5, 8), 2, 42)
    assert result.output.shape == (42, 5) and result.macs == 6 * 5 * 7 * 8
    exact = np.concatenate([x @ w.T for x, w in zip(layer.inputs, layer.weight, strict=True)])
    np.testing.assert_allclose(result.output, exact, atol=0.02)


@pytest.mark.parametrize("batch_size", [1, 2, 0])
def test_a_systolic_pass_takes_the_products_of_its_samples(batch_size):
    layer, machine = matmul(6, 5, 7, 8, samples=3), load_machine("systolic-8x8", batch_size=batch_size)
    assert check(machine, trace(layer))[0].passed
    (result,) = simulate(machine, trace(layer)).layers
    passes = -(-3 // (batch_size or 3))
    assert result.cycles == 6 * (2 * 8 + 8 + 7 - 2) - passes
    # Every product has a matrix of its own: each is loaded once, whatever the batch.
    assert result.counts["filter_sram_reads"] == 6 * 5 * 8


def test_dual_side_cores_skip_the_zeros_of_both_activations():
    dense, sparse = (matmul(2, 64, 64, 64, density=density) for density in (1.0, 0.2))
    machine = load_machine("dstc-a100", core_count=1, launch_s=0.0)
    slow, fast = (simulate(machine, trace(layer)).layers[0] for layer in (dense, sparse))
    assert fast.cycles < slow.cycles / 2
    both = sum(
        int(((w != 0).sum(0) * (x != 0).sum(0)).sum()) for w, x in zip(sparse.weight, sparse.inputs, strict=True)
    )
    assert fast.macs == both


def test_sparseloops_core_takes_a_promise_along_the_reduction():
    bare, promised = matmul(3, 64, 16, 64), matmul(3, 64, 16, 64, pattern=Pattern("n:m", n=2, m=4, axis=2))
    machine = load_machine("sparseloop-stc")
    assert check(machine, trace(promised))[0].passed
    dense, sparse = (simulate(machine, trace(layer)).layers[0] for layer in (bare, promised))
    assert (dense.cycles, sparse.cycles) == (3 * 4 * 16, 3 * 2 * 16)
    assert sparse.storage_bits["values"] == dense.storage_bits["values"] / 2 == 3 * 64 * 32 * 8
    assert sparse.warnings == [] and dense.warnings == []


def test_eie_takes_no_products_of_activations():
    with pytest.raises(InputError) as error:
        simulate(load_machine("eie-64pe"), trace(matmul(1, 2, 3, 4)))
    assert str(error.value) == (
        "layer qk: eie-64pe runs linear, conv2d, not matmul; choose other layers with --layer, or another machine"
    )

"""Layers that are far wider or taller than square, one at a time from a file: their memory follows their weights."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from gossamer.models import load_machine
from gossamer.simulator import simulate
from gossamer.workloads.formats import csc
from gossamer.workloads.synth import random_layer

PEAK = Path("/proc/self/status")
MEMORY = """
import sys
from gossamer.models import load_machine
from gossamer.simulator import simulate
from gossamer.workloads import load, load_trace


def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))


load.STREAMED_FROM = 0
machine = load_machine(sys.argv[1])
draw = {"act_density": 1.0, "input_size": (3, 3)} if sys.argv[2].endswith("conv") else {"act_density": 1.0}
small, large = (sys.argv[2] + size + ".safetensors" for size in ("-small", "-large"))
simulate(machine, load_trace(small, **draw))  # what is loaded once
before = peak()
layers = simulate(machine, load_trace(large, **draw)).layers
print(len(layers), (peak() - before) * 1024)
"""
# Of 24 MiB in float32, but the smallest, which are of the same form.
SHAPES = {
    "wide": ((37, 170_009), (37, 100)),
    "low": ((5, 1_258_291), (5, 100)),  # fewer rows than processing elements
    "tall": ((170_009, 37), (1000, 37)),
    "conv": ((800, 873, 3, 3), (8, 9, 3, 3)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of two layers of each shape, a tenth of them kept, one layer with a bias; and of two small ones."""
    folder = tmp_path_factory.mktemp("shapes")
    rng = np.random.default_rng(7)
    for name, sizes in SHAPES.items():
        for size, shape in zip(("large", "small"), sizes, strict=True):
            weight = rng.standard_normal(shape, np.float32)
            weight[rng.random(shape, np.float32) < 0.9] = 0
            arrays = {"fc1.weight": weight, "fc2.weight": weight, "fc2.bias": np.ones(shape[0], np.float32)}
            save_file(arrays, folder / f"{name}-{size}.safetensors")
    return folder


@pytest.mark.skipif(not PEAK.exists(), reason="the peak of a process is read from /proc")
@pytest.mark.parametrize(
    ("machine", "shape", "most"),  # in MiB: the layer, what the machine holds of each row or column, and blocks
    [("eie-64pe", "wide", 120), ("ese", "wide", 100), ("a100-block-ell", "wide", 64), ("dstc-a100", "wide", 80),
     ("eie-64pe", "low", 200), ("a100-sputnik", "tall", 96), ("patdnn-adreno640", "conv", 80)],
)  # fmt: skip
def test_a_layer_of_any_shape_takes_memory_by_its_weights(machine, shape, most, folder):
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, machine, str(folder / shape)], capture_output=True, text=True, check=True
    )
    layers, grown = map(int, done.stdout.split())
    assert layers == 2 and grown < most * 2**20


@pytest.fixture
def small_blocks(monkeypatch):
    """Have everything that goes block by block go by blocks of a few numbers."""

    def patch():
        for module in ("models.parts.eie.encoded", "models.parts.matvec", "models.block_ell"):
            monkeypatch.setattr(f"gossamer.{module}.BLOCK", 40)
        monkeypatch.setattr("gossamer.models.parts.csr_spmm.timing.AT_ONCE", 3)

    return patch


@pytest.mark.parametrize(("rows", "columns"), [(3, 200), (40, 33), (200, 3), (1, 1)])
@pytest.mark.parametrize(
    ("machine", "over"),
    [("eie-64pe", {}), ("eie-64pe", {"pe_count": 3, "entries_per_row": 3}), ("eie-64pe", {"pe_count": 1}),
     ("a100-block-ell", {"block": 4, "cta_depth": 16}), ("a100-sputnik", {}), ("a100-row-split", {})],
)  # fmt: skip
def test_what_is_worked_out_by_blocks_does_not_depend_on_their_size(machine, over, rows, columns, small_blocks):
    machine, trace = load_machine(machine, **over), random_layer(rows, columns, 0.4, 0.6, samples=23, seed=rows)
    whole = simulate(machine, trace)
    small_blocks()
    parts = simulate(machine, trace)
    assert parts == whole and np.array_equal(parts.layers[0].output, whole.layers[0].output)


@pytest.mark.parametrize("machine", ["eie-64pe", "ese"])
@pytest.mark.parametrize("rows", [1, 5, 31])
def test_elements_without_a_row_cost_what_their_units_say(machine, rows):
    machine, trace = load_machine(machine, queue_depth=3), random_layer(rows, 60, 0.3, 0.7, samples=3)
    fast, event = (simulate(machine, trace, engine=engine).layers[0] for engine in ("fast", "event"))
    assert fast == event


@pytest.mark.parametrize(("rows", "dtype"), [(4 * 255, np.uint8), (4 * 255 + 1, np.uint16), (4 * 65535 + 1, np.int32)])
def test_counts_take_as_few_bytes_as_hold_a_full_column(rows, dtype):
    counts = csc.count(np.ones((rows, 2), np.float32), 4)
    assert counts.entries.dtype == counts.nonzeros.dtype == dtype
    assert counts.entries[0].tolist() == counts.nonzeros[0].tolist() == [-(-(rows - pe) // 4) for pe in range(4)]

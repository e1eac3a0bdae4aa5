"""A GPU with tensor cores as users see it: presets, checks, warnings, timelines, energy."""

import pytest

from gossamer.models import load_machine, tensorcore
from gossamer.simulator.check import check
from gossamer.simulator.memo import Memo
from gossamer.simulator.simulate import simulate
from gossamer.simulator.timeline import Timeline
from gossamer.workloads import Trace, load_trace
from gossamer.workloads.errors import InputError

from .tensorcore_layers import both, linear, tiny


@pytest.mark.parametrize(
    "name",
    ["a100-sparse", "a100-dense", "a100-muxes", "a100-wide-fetch", "a100-vnm", "rtx3070ti-sparse", "h100-sparse"],
)
def test_every_preset_runs_a_bundled_trace_in_both_engines(name):
    checks = check(load_machine(name), load_trace("lenet-digits-imp"))
    assert len(checks) == 3 and all(found.passed for found in checks)


def test_a_check_needs_the_values():
    with pytest.raises(InputError) as error:
        check(load_machine("a100-sparse", functional=False), load_trace("lenet-digits-imp"))
    assert str(error.value) == "a100-sparse: a check compares values, and functional is false; set functional=true"


def test_timeline_shows_loads_beside_multiplications():
    timeline = Timeline()
    both(tiny(sm_count=1, launch_s=0.0), linear(32, 48, 16), timeline)
    tracks = {interval.track for interval in timeline.intervals}
    assert tracks == {"sm0", "sm0 l2", "sm0 tensor_core", "sm0 shared_memory", "hbm"}
    loads = [interval for interval in timeline.intervals if interval.track == "sm0 l2"]
    feeds = [interval for interval in timeline.intervals if interval.track == "sm0 shared_memory"]
    assert loads[0].end == feeds[0].start == 30
    assert loads[0].name == "load 0" and len(feeds) == 3


def test_energy_is_that_of_the_counts():
    result = both(tiny(), linear(64, 64, 16, (2, 4)))
    counts = result.counts
    parts = {
        "TensorCore": 1.7 * counts["multiplications"],
        "Instruction": 30 * counts["instructions"],
        "SharedMemory": 2.5 * (counts["smem_read_bytes"] + counts["smem_write_bytes"]),
        "L2": 12.5 * (counts["l2_read_bytes"] + counts["l2_write_bytes"]),
        "Hbm": 31.36 * (counts["hbm_read_bytes"] + counts["hbm_write_bytes"]),
    }
    assert result.energy_j.by_part == pytest.approx({part: pj * 1e-12 for part, pj in parts.items()})
    eight = both(tiny(dtype="int8", accumulate="int32"), linear())
    assert eight.energy_j is None
    assert eight.warnings == ["energy table tensorcore-event is for words of 16 bits, not 8: no energy given"]


def test_steps_that_exceed_the_shared_memory_are_told():
    result = both(tiny(smem_bytes=3071), linear(32, 32, 16))
    assert result.warnings == ["the steps in flight take 3072 bytes of 3071 in the shared memory of an SM"]
    assert both(tiny(smem_bytes=3072), linear(32, 32, 16)).warnings == []


def test_operands_that_both_exceed_the_l2_are_told():
    result = both(tiny(l2_bytes=1023), linear(32, 32, 16))
    assert result.warnings == [
        "the smaller operand takes 1024 bytes of 1023 in L2: that HBM moves each once is optimistic"
    ]
    assert both(tiny(l2_bytes=1024), linear(32, 32, 16)).warnings == []


def test_train_1_8_or_2_4_depends_on_the_machine():
    traces = [Trace(name=f"{n}-{m}", layers=(linear(512, 1024, 512, (n, m)),)) for n, m in ((2, 4), (1, 8))]

    def gain(name):
        machine = load_machine(name, functional=False)
        two_four, one_eight = (simulate(machine, trace).total.cycles for trace in traces)
        return two_four / one_eight

    assert gain("a100-sparse") == gain("a100-dense") == 1.0
    assert gain("a100-wide-fetch") > gain("a100-muxes") > 1.05


def test_bits_are_not_multiplied_for_a_trace():
    with pytest.raises(InputError) as error:
        tensorcore.fast(load_machine("a100-sparse", dtype="b1", accumulate="int32"), linear(), Memo())
    assert str(error.value) == (
        "layer fc: dtype b1 multiplies bits, and a trace has numbers; choose another, or simulate instructions alone"
    )

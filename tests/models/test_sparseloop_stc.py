"""Sparseloop's design study: published cycles and energies, and both engines on random layers."""

import math
import tomllib
from fractions import Fraction
from importlib import resources

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.models import load_machine, sparseloop_stc, vary
from gossamer.models.sparseloop_stc import Gemm, Mapping, Scheme
from gossamer.simulator import simulate
from gossamer.simulator.check import check
from gossamer.simulator.memo import Memo
from gossamer.simulator.timeline import Interval, Timeline
from gossamer.workloads.errors import InputError
from gossamer.workloads.patterns import Pattern
from gossamer.workloads.synth import gemm_layer
from gossamer.workloads.trace import Layer, Trace

from .agreement import agree

STUDY, RLE = load_machine("sparseloop-stc"), load_machine("sparseloop-stc-rle")
CONFIGS = resources.files("gossamer.models") / "configs"


def both(machine, layer, timeline=None):
    """Return the result of the fast engine, which must be that of the event engine."""
    return agree(sparseloop_stc, machine, layer, timeline, tolerance=1e-4)


def gemm(rows, reduction, columns, pattern="2:4", seed=0):
    return gemm_layer(rows, reduction, columns, pattern, seed=seed).layers[0]


def published_form(rows, reduction, columns, n, m, metadata):
    """The closed form of the study's reference outputs, as it is told: metadata in words of 8 bits."""
    depth = Fraction(16 * m, n)
    padded = math.ceil(reduction / depth) * depth
    return math.ceil(rows * padded * columns * Fraction(n, m) / 1024 * max(1, (depth + 8 + metadata) / 42))


@pytest.mark.parametrize(
    ("machine", "pattern", "cycles"),
    [
        (STUDY, "dense", (147456, 131072)),
        (STUDY, "2:4", (73728, 65536)),
        (STUDY, "2:6", (70218, 64366)),
        (RLE, "2:6", (67877, 62221)),
        (STUDY, "2:8", (66707, 59295)),
    ],
)
def test_both_layers_of_the_study_take_the_published_cycles(machine, pattern, cycles):
    for sizes, published in zip(((128, 1152, 1024), (512, 1024, 256)), cycles, strict=True):
        assert sparseloop_stc.fast(machine, gemm(*sizes, pattern), Memo()).cycles == published


def test_the_event_engine_takes_the_published_cycles_too():
    assert sparseloop_stc.events(STUDY, gemm(128, 1152, 1024, "2:6")).cycles == 70218


@given(
    rows=st.integers(1, 600),
    reduction=st.integers(1, 600),
    columns=st.integers(1, 40),
    kind=st.sampled_from([((1, 1), 0), ((2, 4), 2), ((2, 6), 4), ((2, 8), 4), ((1, 2), 1), ((4, 8), 4), ((1, 16), 4)]),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_size_takes_the_cycles_of_the_closed_form(rows, reduction, columns, kind):
    (n, m), metadata = kind
    layer = gemm(rows, reduction, columns, "dense" if m == 1 else f"{n}:{m}")
    assert sparseloop_stc.fast(STUDY, layer, Memo()).cycles == published_form(rows, reduction, columns, n, m, metadata)


@given(data=st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_engines_agree_in_every_figure_on_any_product(data):
    draw = data.draw
    n = draw(st.integers(1, 5))
    m = draw(st.integers(n, 9))
    config = {
        "subpartitions": draw(st.integers(1, 3)),
        "rows_per_subpartition": draw(st.integers(1, 4)),
        "reduction_lanes": draw(st.integers(1, 5)),
        "columns_per_tile": draw(st.integers(1, 9)),
        "smem_bytes": draw(st.sampled_from([1, 40, 150, 1000, 10**6])),
        "smem_words_per_clk": draw(st.integers(1, 20)),
        "metadata": draw(st.sampled_from(["coordinates", "run-length"])),
    }
    sizes = [draw(st.integers(1, 30)), draw(st.integers(1, 40)), draw(st.integers(1, 12))]
    seed = draw(st.integers(0, 1000))
    plain = gemm(*sizes, draw(st.sampled_from([f"{n}:{m}", "dense", "random:0.3"])), seed)
    bias = np.random.default_rng(seed).standard_normal(sizes[0]).astype(np.float32) if draw(st.booleans()) else None
    layer = Layer(name="fc", op="linear", weight=plain.weight, inputs=plain.inputs, bias=bias, pattern=plain.pattern)
    result = both(vary(STUDY, **config), layer)
    reference = layer.inputs @ layer.weight.T + (0 if bias is None else bias)
    np.testing.assert_allclose(result.output, reference, rtol=1e-4, atol=1e-4)
    assert sum(result.cycles_by_cause["array"].values()) == result.cycles
    assert all(cycles >= 0 for cycles in result.cycles_by_cause["array"].values())


def conv(pattern=None, groups=1, channels=6, seed=0):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((8, channels // groups, 3, 3)).astype(np.float32)
    if pattern is not None:
        n, m = pattern
        for first in range(0, weight.shape[1], m):
            part = weight[:, first : first + m]
            keys = rng.random(part.shape)
            kth = np.sort(keys, axis=1)[:, min(n, part.shape[1]) - 1 : min(n, part.shape[1])]
            part[keys > kth] = 0
    return Layer(
        name="conv",
        op="conv2d",
        weight=weight,
        bias=rng.standard_normal(8).astype(np.float32),
        inputs=rng.standard_normal((2, channels, 5, 4)).astype(np.float32),
        pattern=Pattern() if pattern is None else Pattern("n:m", n=pattern[0], m=pattern[1], axis=1),
        attributes={"padding": (1, 1), "groups": groups},
    )


@pytest.mark.parametrize(("pattern", "groups"), [((2, 4), 1), ((2, 3), 2), ((1, 2), 2), (None, 2)])
def test_groups_of_a_convolution_lie_along_its_channels(pattern, groups):
    layer = conv(pattern, groups)
    small = vary(STUDY, rows_per_subpartition=2, reduction_lanes=4)
    result = both(small, layer)
    trace = Trace(name="conv", layers=(layer,))
    assert check(small, trace)[0].passed
    assert result.vectors == 2 * 5 * 4


def test_a_convolution_pads_the_groups_of_every_place_of_its_kernel():
    # 6 channels are a whole and a half group of 4; 9 places of the kernel: 18 groups with room for 36, 36 kept.
    result = both(STUDY, conv((2, 4)))
    steps = 3  # of 8 groups
    assert result.cycles == math.ceil(8 * steps * 40 * Fraction(42, 42) / 64)
    assert result.macs == 8 * 36 * 40


def test_energies_of_the_first_layer_are_the_published_ones_to_the_last_digit():
    dense, sparse = (
        sparseloop_stc.fast(STUDY, gemm(128, 1152, 1024, pattern), Memo()).energy_j for pattern in ("dense", "2:4")
    )
    assert dense.total * 1e6 == pytest.approx(276.6, abs=0.05)
    assert sparse.total * 1e6 == pytest.approx(173.4, abs=0.05)
    # The study's parts, uJ: 42.33898 MAC, 6.84786 registers, 15.73769 sums, 19.89532 shared memory, 88.60468 DRAM.
    parts = {part: joules * 1e6 for part, joules in sparse.by_part.items()}
    assert parts["Multiplier"] == pytest.approx(42.33898, abs=1e-5)
    assert parts["WeightRegister"] == pytest.approx(6.84786, abs=1e-5)
    assert parts["SharedMemory"] + parts["Metadata"] == pytest.approx(19.89532, abs=1e-5)
    assert parts["Dram"] == pytest.approx(88.60467, abs=1e-5)
    # It counts a fill of each sum where a core reads it at the end: 0.0022 uJ.
    assert 15.73769 - parts["RegisterFile"] == pytest.approx(128 * 1024 * (1.67589 - 1.65889) * 1e-6, abs=1e-5)
    assert (dense.table, sparse.table) == ("sparseloop-tc-45nm-event", "sparseloop-stc-45nm-event")


def test_counts_of_the_first_layer_by_hand():
    counts = sparseloop_stc.fast(STUDY, gemm(128, 1152, 1024), Memo()).counts
    weights, inputs, steps = 128 * 1152 // 2, 1152 * 1024, 36
    assert counts == {
        "macs": weights * 1024,
        "weight_register_reads": weights * 1024,
        "weight_register_writes": weights * 8,  # loaded once for each of 8 tiles of 128 columns
        "register_metadata_reads": weights * 1024 // 4,  # 2 bits of a word of 8
        "register_metadata_writes": weights * 8 // 4,
        "accumulator_reads": 128 * steps * 1024,
        "accumulator_writes": 128 * steps * 1024,
        "smem_reads": weights * 8 + 2 * inputs,  # inputs once for each of two blocks of 64 rows
        "smem_writes": weights + inputs,
        "metadata_reads": weights * 8 // 4,
        "metadata_writes": weights // 4,
        "dram_reads": weights + inputs,
        "dram_metadata_reads": weights // 4,
        "dram_writes": 128 * 1024,
    }


def test_causes_tell_padding_and_the_wait_for_shared_memory_apart():
    causes = both(STUDY, gemm(64, 40, 10, "2:8")).cycles_by_cause["array"]
    # 40 inputs fill 5 of 8 groups of a step of 64; 10 steps of 76 / 42 cycles: 18.1.
    assert causes == {"compute": 7, "padding": 3, "smem": 9}


def test_with_42_words_a_clock_2_4_never_waits_and_with_41_it_does():
    layer = gemm(64, 320, 42)
    assert both(STUDY, layer).cycles == 420
    assert both(vary(STUDY, smem_words_per_clk=41), layer).cycles == math.ceil(420 * Fraction(42, 41)) == 431


def test_weights_and_inputs_that_do_not_fit_together_are_fetched_in_tiles():
    config, scheme = STUDY.config, Scheme(2, 4, 2)
    assert Mapping.of(config, scheme, Gemm(128, 1152, 1024, 576, 1152, False)) == Mapping(128, 128, True)
    # Dense weights take twice the room: half the columns stay with them.
    assert Mapping.of(config, Scheme(1, 1, 0), Gemm(128, 1152, 1024, 1152, 1152, False)) == Mapping(128, 64, True)
    # 512 rows of 1,024 exceed the memory alone: 128 at a time, fetched once for each half of the columns.
    sizes = Gemm(512, 1024, 256, 1024, 1024, False)
    mapping = Mapping.of(config, Scheme(1, 1, 0), sizes)
    assert mapping == Mapping(128, 128, True)
    assert (mapping.weight_fetches(sizes), mapping.input_fetches(sizes)) == (2, 1)
    assert mapping.dram_words(sizes) == 2 * 512 * 1024 + 1024 * 256


def test_a_product_too_large_for_the_memory_is_warned_of():
    result = both(vary(STUDY, smem_bytes=1000), gemm(64, 64, 4))
    assert result.warnings == [
        "shared memory: weights of 64 rows and one input vector exceed its 1000 bytes; the reduction is not cut"
    ]
    assert both(vary(STUDY, smem_bytes=64 * 32 + 64), gemm(64, 64, 4)).warnings == []


def test_metadata_takes_as_many_bits_as_the_study_says():
    def bits(n, m, metadata):
        layer = gemm(4, m * 2, 1, f"{n}:{m}")
        return Scheme.of(layer, metadata).bits

    assert [bits(2, m, "coordinates") for m in (4, 6, 8)] == [2, 4, 4]
    assert [bits(2, m, "run-length") for m in (4, 6, 8)] == [2, 2, 4]
    assert bits(1, 2, "run-length") == 1
    stored = both(STUDY, gemm(64, 48, 1, "2:6")).storage_bits
    assert stored == {"values": 64 * 16 * 8, "metadata": 64 * 16 * 4, "bias": 0}


def test_runs_that_two_bits_cannot_tell_are_counted_in_a_warning():
    weight = np.zeros((3, 6), np.float32)
    weight[0, [4, 5]] = weight[1, [0, 5]] = weight[2, [3, 4]] = 1  # runs of (4, 0), (0, 4) and (3, 0)
    layer = Layer(name="fc", op="linear", weight=weight, inputs=np.ones((1, 6), np.float32),
                  pattern=Pattern("n:m", n=2, m=6, axis=1))  # fmt: skip
    assert both(RLE, layer).warnings == [
        "2 weights of 2:6 follow more than 3 zeros, which their run-length of 2 bits cannot tell; "
        "they are counted as the others"
    ]
    assert both(STUDY, layer).warnings == []


@pytest.mark.parametrize(
    ("pattern", "warnings"),
    [
        (Pattern("dense"), []),
        (Pattern("n:m", n=4, m=4, axis=1), []),
        (Pattern(), ["pattern: weights are unstructured and promise no N:M: run dense"]),
        (
            Pattern("n:m", n=2, m=4, axis=0),
            ["pattern: 2:4 lies along axis 0, not along the inputs: run dense"],
        ),
    ],
)
def test_weights_without_a_pattern_along_their_inputs_run_dense_with_a_word(pattern, warnings):
    weight = np.kron(np.eye(2), np.eye(4)).astype(np.float32)
    layer = Layer(name="fc", op="linear", weight=weight, inputs=np.ones((3, 8), np.float32), pattern=pattern)
    result = both(STUDY, layer)
    assert result.warnings == warnings
    assert result.macs == 8 * 8 * 3 and result.storage_bits["metadata"] == 0


def test_dense_energies_are_those_of_the_table_that_is_named():
    layer = gemm(128, 1152, 1024, "dense")
    same = sparseloop_stc.fast(vary(STUDY, dense_energy=""), layer, Memo()).energy_j
    assert same.table == "sparseloop-stc-45nm-event" and same.total * 1e6 == pytest.approx(248.15, abs=0.01)
    assert sparseloop_stc.fast(vary(STUDY, energy="", dense_energy=""), layer, Memo()).energy_j is None
    with pytest.raises(InputError) as error:
        sparseloop_stc.fast(vary(STUDY, dense_energy="none"), layer, Memo())
    assert str(error.value).startswith("sparseloop-stc: unknown energy table 'none'")


def test_words_of_another_width_have_no_energy():
    result = both(vary(STUDY, word_bits=16), gemm(4, 8, 2))
    assert result.energy_j is None
    assert result.warnings == ["energy table sparseloop-stc-45nm-event is for words of 8 bits, not 16: no energy given"]


def test_timeline_shows_which_weights_are_held():
    timeline = Timeline()
    both(vary(STUDY, smem_words_per_clk=42), gemm(128, 32, 3), timeline)
    assert timeline.intervals == [
        Interval("tensor core", "rows 0 to 63, kept 0 to 15", 0, 3),
        Interval("tensor core", "rows 64 to 127, kept 0 to 15", 3, 6),
    ]
    assert timeline.offset == 6


def test_no_table_gives_the_area():
    assert sparseloop_stc.area_mm2(STUDY) is None


def test_simulate_gives_both_engines_one_result():
    trace = gemm_layer(70, 50, 5, "2:6", seed=1)
    fast, event = (simulate(STUDY, trace, engine=engine) for engine in ("fast", "event"))
    assert fast.total == event.total and fast.total.cycles == both(STUDY, trace.layers[0]).cycles


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"subpartitions": 0}, "subpartitions must be at least 1, not 0"),
        ({"reduction_lanes": 1025}, "reduction_lanes must be at most 1024, not 1025"),
        ({"smem_words_per_clk": 4.5}, "smem_words_per_clk must be a whole number, not 4.5"),
        ({"metadata": "bitmask"}, "metadata must be coordinates or run-length, not 'bitmask'"),
        ({"clock_hz": 0.0}, "clock_hz must be above 0 and finite, not 0.0"),
    ],
)
def test_a_bad_configuration_is_refused_with_rule_and_value(change, rule):
    with pytest.raises(InputError) as error:
        load_machine("sparseloop-stc", **change)
    assert str(error.value) == f"sparseloop-stc: {rule}"


def test_every_value_of_the_presets_has_a_source():
    preset = tomllib.loads((CONFIGS / "sparseloop-stc.toml").read_text("utf-8"))
    fields = {field.name for field in msgspec.structs.fields(type(STUDY.config))}
    assert set(preset["sources"]) == fields and all(preset["sources"].values())
    assert msgspec.structs.replace(RLE.config, metadata="coordinates") == STUDY.config

"""Published and measured figures of sparse kernels on GPUs, simulated: what is hit, what is missed, and by how much."""

import pytest

from gossamer.reports.gpu_figures import _crossing
from gossamer.reports.published import failed, read_paper
from gossamer.reports.validate import validations
from gossamer.workloads.errors import InputError

PAPER = read_paper("gpu-kernels")


@pytest.fixture(scope="module")
def checks():
    return validations("gpu-kernels")(None)


def test_no_check_is_out_of_tolerance_but_the_known_misses(checks):
    assert [check.name for check in checks if check.verdict == "miss"] == []
    assert not failed(checks)


def test_the_misses_are_listed_with_size_and_cause(checks):
    misses = {check.name: round(check.error, 2) for check in checks if check.verdict == "known miss"}
    assert misses == {
        "4096^3, density 0.5, Sputnik": -0.27,
        "4096^3, density 0.25, cuSPARSE as a row split": -0.73,
        "4096^3, density 0.05, cuSPARSE as a row split": -0.69,
        "64^3, density 0.25, cuSPARSE as a row split": -0.92,
        "64^3, density 0.05, cuSPARSE as a row split": -0.97,
    }
    assert all(check.note for check in checks if check.verdict == "known miss")


def test_most_measured_times_of_the_kernels_are_hit_without_a_fit(checks):
    times = [check for check in checks if check.unit == "ms" and "cuSPARSE" not in check.name]
    assert len(times) == 14 and sum(check.verdict == "hit" for check in times) == 13
    assert all(check.source.startswith("P: Torch-Sputnik") for check in times)


def test_the_crossing_with_dense_is_where_it_was_measured(checks):
    (crossing,) = [check for check in checks if check.name == "4096^3: sparsity from which Sputnik beats dense"]
    assert (crossing.verdict, crossing.published) == ("hit", 0.766) and 0.7 < crossing.simulated < 0.8


def test_what_rests_on_memory_is_never_asserted(checks):
    remembered = [check for check in checks if "M:" in check.source]
    assert len(remembered) == 2 and {check.verdict for check in remembered} == {"information"}


def test_swizzled_rows_keep_the_throughput_of_equal_ones_and_leave_few_lanes_idle(checks):
    values = {check.name: check.simulated for check in checks if check.group == PAPER["balance"]["group"]}
    for variation in ("0.25", "0.5", "1"):
        assert values[f"CoV {variation}: throughput kept of that of equal rows, swizzled"] >= 0.965
        swizzled, plain = (
            values[f"CoV {variation}: idle lanes within warps, {how}"] for how in ("swizzled", "not swizzled")
        )
        assert swizzled < 0.05 * plain
    for kernel in ("Sputnik", "row split"):
        gains = [values[f"CoV {variation}: gain of the order of rows, {kernel}"] for variation in ("0.25", "0.5", "1")]
        assert 1 < gains[0] < gains[1] < gains[2]


def test_blocks_gain_more_the_larger_they_are(checks):
    values = [check.simulated for check in checks if "50 % left out" in check.name]
    assert len(values) == 4 and values == sorted(values) and values[0] < 1 < values[3] < 2


def test_a_crossing_is_found_between_two_points():
    points = [(0.4, 8.0), (0.2, 4.0), (0.1, 1.0)]
    assert _crossing(points, 6.0) == pytest.approx(0.3)
    assert (_crossing(points, 9.0), _crossing(points, 0.5)) == (1.0, 0.0)


def test_data_are_refused():
    with pytest.raises(InputError, match=r"^folder: gpu-kernels needs no data of its own; leave the path out$"):
        validations("gpu-kernels")("folder")

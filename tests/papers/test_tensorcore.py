"""The published figures of tensor cores, simulated: what is hit, what is missed, and by how much."""

import tomllib
from importlib import resources

import numpy as np
import pytest

from gossamer.__main__ import main
from gossamer.reports.published import failed
from gossamer.reports.tensorcore_figures import BORROWERS, FITTED
from gossamer.reports.validate import validate_tensor_core, validations
from gossamer.workloads.errors import InputError

PAPER = tomllib.loads((resources.files("gossamer.reports") / "papers" / "tensor-core.toml").read_text("utf-8"))
INSTRUCTIONS = PAPER["instructions"]["group"]


@pytest.fixture(scope="module")
def checks():
    return validations("tensor-core")(None)


def named(checks, name, unit=None):
    (check,) = [c for c in checks if c.name == name and unit in (None, c.unit)]
    return check


def test_no_check_is_out_of_tolerance_but_the_known_misses(checks):
    assert [check.name for check in checks if check.verdict == "miss"] == []
    assert not failed(checks)


def test_the_four_misses_are_listed_with_size_and_cause(checks):
    misses = {check.name: round(check.error, 3) for check in checks if check.verdict == "known miss"}
    assert misses == {
        "mma.sp m16n8k16 fp16, fp32: 4 warps, ILP 3": 0.176,
        "mma m16n8k8 fp16, fp16: 4 warps, ILP 4": -0.125,
        "mma m16n8k64 int4, int32: 8 warps, ILP 2": 0.09,
        "mma m16n8k256 b1, int32: 8 warps, ILP 2": 0.09,
    }
    assert all(check.note for check in checks if check.verdict == "known miss")


def test_rows_whose_published_value_is_kept_aside_pretend_none(checks):
    for name in ("mma m16n8k64 int4, int32: 8 warps, ILP 2", "mma m16n8k256 b1, int32: 8 warps, ILP 2"):
        check = named(checks, name)
        assert check.published is None and check.simulated > 3000 and "kept aside" in check.note


def test_every_throughput_and_latency_of_the_tables_is_compared(checks):
    rows = [check for check in checks if check.group == INSTRUCTIONS]
    assert sum(check.unit == "cycles" for check in rows) == 9
    assert sum(check.unit == "FMA/clk" and check.published is not None for check in rows) == 18
    off = [abs(check.simulated - check.published) for check in rows if check.unit == "cycles"]
    assert max(off) < 0.5
    errors = [abs(check.error) for check in rows if check.unit == "FMA/clk" and check.published is not None]
    assert np.mean(errors) == pytest.approx(0.029, abs=0.003)


def test_the_study_is_exact_in_cycles_and_within_a_thousandth_in_energy(checks):
    study = [check for check in checks if check.group == PAPER["sparseloop"]["group"]]
    assert len(study) == 12 and {check.verdict for check in study} == {"hit"}
    assert all(check.simulated == check.published for check in study if check.unit == "cycles")
    assert all(abs(check.error) < 2e-4 for check in study if check.unit == "uJ")


def test_the_dual_side_core_is_within_12_percent_and_falls_with_density(checks):
    points = [check for check in checks if check.group == PAPER["dstc"]["group"]]
    assert len(points) == 5 and all(abs(check.error) <= 0.12 for check in points)
    assert np.all(np.diff([check.simulated for check in points]) < 0)


def test_whole_products_are_said_to_be_derived(checks):
    products = [check for check in checks if check.group == PAPER["gemm"]["group"]]
    assert len(products) == 8 and "derived, not published" in PAPER["gemm"]["group"]
    assert {check.verdict for check in products} == {"hit"} and all(c.source.startswith("D:") for c in products)
    assert named(checks, "4096 x 4096 x 4096, 1:32 on muxes of any width").simulated < 2.5  # not 32


def test_a_measured_kernel_is_reported_and_never_asserted(checks):
    measured = [check for check in checks if check.group == PAPER["measured"]["group"]]
    assert {check.verdict for check in measured} == {"information"}
    assert len(measured) == 3 and {check.tolerance for check in measured} == {"not asserted"}
    dense, sparse = measured[0], measured[1]
    assert dense.simulated < dense.published and sparse.simulated < sparse.published  # the bounds are bounds


def test_boards_that_borrow_fitted_constants_are_named_and_never_asserted(checks):
    borrowed = [check for check in checks if check.group == PAPER["borrowed"]["group"]]
    assert [check.name.split(",")[0] for check in borrowed] == ["rtx3070ti-sparse", "h100-sparse"]
    for check in borrowed:
        assert (check.verdict, check.published, check.error) == ("information", None, None)
        assert check.note == f"assumed to be those of the A100: {', '.join(FITTED)}"


@pytest.mark.parametrize("board", BORROWERS)
def test_every_borrowed_constant_says_in_its_machine_file_that_it_is_assumed(board):
    text = (resources.files("gossamer.models") / "configs" / f"{board}.toml").read_text("utf-8")
    machine = tomllib.loads(text)
    for name in FITTED:
        assert name not in machine and machine["sources"][name].startswith("assumed: that fitted on the A100")


def test_every_source_tells_how_it_is_known(checks):
    assert {check.source.split(":")[0] for check in checks} == {"P", "S", "D", "assumed"}
    assert all(check.unit and check.tolerance and check.group for check in checks)


def test_data_that_is_not_needed_is_refused(tmp_path):
    with pytest.raises(InputError) as error:
        validate_tensor_core(tmp_path)
    assert str(error.value) == f"{tmp_path}: tensor-core needs no data of its own; leave the path out"


def test_plots_of_another_accelerator_are_refused(tmp_path, capsys):
    assert main(["validate", "eie", "--plots", str(tmp_path / "plots")]) == 2
    assert capsys.readouterr().err == (
        "gossamer: error: --plots must come with tensor-core or pointacc, whose plots it draws, not with eie; "
        "leave it out\n"
    )
    assert not (tmp_path / "plots").exists()

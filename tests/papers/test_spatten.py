"""What is published of SpAtten, simulated: what is hit, what is missed, and by how much."""

import pytest

from gossamer.__main__ import main
from gossamer.reports.published import failed
from gossamer.reports.validate import validations
from gossamer.workloads.errors import InputError


@pytest.fixture(scope="module")
def checks():
    return validations("spatten")(None)


def test_no_check_is_out_of_tolerance_but_the_known_miss(checks):
    assert not failed(checks)
    misses = [check for check in checks if check.verdict == "known miss"]
    assert [check.name for check in misses] == ["Speed of 32 comparators over 16, a quarter of the values used"]
    assert misses[0].simulated == pytest.approx(1.5, abs=0.01) and "DRAM" in misses[0].note


def test_what_is_not_simulated_is_skipped_with_a_reason(checks):
    skipped = [check for check in checks if check.verdict == "skipped"]
    assert [check.name for check in skipped] == ["Share of the area", "Share of the power"]
    assert {check.note for check in skipped} == {"not simulated: neither areas nor energies of the parts are published"}


def test_the_engine_and_the_pipeline_are_as_fast_as_the_authors_models(checks):
    measured = {check.name: check.error for check in checks if "authors'" in check.source}
    assert len(measured) == 8
    assert all(abs(error) < 0.05 for error in measured.values())
    assert all(abs(error) < 0.001 for name, error in measured.items() if name.startswith("BERT"))


def test_a_path_of_data_is_refused():
    with pytest.raises(InputError, match=r"^folder: spatten needs no data of its own; leave the path out$"):
        validations("spatten")("folder")


def test_the_command_leaves_with_status_0(capsys):
    assert main(["validate", "spatten"]) == 0
    assert "15 checks: 10 hit, 1 known miss, 2 information, 2 skipped." in capsys.readouterr().out

"""The figures of the ESE paper, simulated: what is hit, what is missed, and by how much."""

import pytest

from gossamer.reports.published import failed, read_paper
from gossamer.reports.validate import validate_ese
from gossamer.workloads.errors import InputError

PAPER = read_paper("ese")


@pytest.fixture(scope="module")
def checks():
    return validate_ese()


def named(checks, name):
    (check,) = [check for check in checks if check.name == name]
    return check


def test_no_check_is_out_of_tolerance_but_the_known_misses(checks):
    assert [check.name for check in checks if check.verdict == "miss"] == []
    assert not failed(checks)


def test_every_miss_that_is_listed_is_one(checks):
    sections = [part for part in PAPER.values() if isinstance(part, dict)]
    listed = {entry["name"] for part in sections for entry in part["check"] if "known_miss" in entry}
    assert {check.name for check in checks if check.verdict == "known miss"} == listed


def test_entries_and_theoretical_time_are_those_of_the_paper(checks):
    assert named(checks, "stored entries").simulated == 364608
    assert named(checks, "theoretical time").simulated == pytest.approx(56.97)
    assert named(checks, "power of the board").simulated == pytest.approx(41)


def test_the_rates_of_the_abstract_follow_from_entries_and_time():
    entries = {entry["key"]: entry["published"] for entry in PAPER["lstm"]["check"]}
    assert 2 * entries["entries"] * 32 / entries["real_us"] / 1e3 == pytest.approx(entries["gops"], rel=1e-3)
    weights = 4096 * 665 + 512 * 1024
    assert 2 * weights * 32 / entries["real_us"] / 1e6 == pytest.approx(entries["tops"], rel=3e-3)


def test_the_real_time_lies_between_the_theoretical_and_the_serial_one(checks):
    real = named(checks, "real time").simulated
    assert named(checks, "theoretical time").simulated < real
    assert real < named(checks, "real time, nothing overlapped with element-wise work").simulated
    assert named(checks, "real time, weights as if on chip").simulated < real
    assert real < named(checks, "real time at 12.8 GB/s").simulated


def test_the_gain_of_balanced_pruning_grows_with_how_unequal_rows_are(checks):
    gains = [named(checks, name).simulated for name in ("rows alike", "sigma 0.1", "sigma 0.2", "sigma 0.4")]
    assert gains == sorted(gains)
    assert gains[0] < 1.02 and gains[-1] > 1.2


def test_nothing_from_memory_is_asserted_unless_its_arithmetic_closes():
    for part in PAPER.values():
        for entry in part["check"] if isinstance(part, dict) else []:
            assert not entry["source"].startswith("M:") or "closes" in entry["source"] or entry.get("information")


def test_ese_needs_no_data_of_its_own(tmp_path):
    with pytest.raises(InputError) as caught:
        validate_ese(tmp_path)
    assert str(caught.value) == f"{tmp_path}: ese needs no data of its own; leave the path out"


def test_every_check_names_source_unit_and_tolerance(checks):
    assert all(check.source and check.unit and check.tolerance and check.group for check in checks)

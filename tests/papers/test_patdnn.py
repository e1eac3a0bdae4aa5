"""The figures of PatDNN, simulated: what is hit, what is missed, and what is only recalled."""

import pytest

from gossamer.reports.patdnn_figures import CPU, FAST_CORES, GPU, STAGES
from gossamer.reports.published import failed, read_paper
from gossamer.reports.validate import validate_patdnn, validations
from gossamer.workloads.errors import InputError


@pytest.fixture(scope="module")
def checks():
    return validations("patdnn")(None)


def test_no_check_is_out_of_tolerance_but_the_known_misses(checks):
    assert [check.name for check in checks if check.verdict == "miss"] == []
    assert not failed(checks)


def test_the_known_misses_are_listed_with_size_and_cause(checks):
    misses = {check.name: check.simulated for check in checks if check.verdict == "known miss"}
    assert misses == {
        "CPU: elimination of redundant loads": pytest.approx(0.9975, abs=1e-4),
        "GPU: filter-kernel reorder": pytest.approx(0.9998, abs=1e-4),
    }
    assert all(check.note for check in checks if check.verdict == "known miss")


def test_what_is_from_memory_is_never_asserted():
    paper = read_paper("patdnn")
    entries = [entry for section in paper.values() if isinstance(section, dict) for entry in section["check"]]
    recalled = [entry for entry in entries if entry["source"].startswith("M:")]
    assert len(recalled) == 25
    assert all(entry.get("information") for entry in recalled)
    assert all(not entry.get("information") for entry in entries if entry not in recalled)


def test_every_technique_of_every_processor_is_compared(checks):
    names = {check.name for check in checks}
    for processor in ("CPU", "CPU, fast cores", "GPU"):
        for what in ("reorder", "redundant loads", "tuning"):
            assert {f"{processor}: {what}, {end}" for end in ("least", "most")} <= names
    assert len({CPU, FAST_CORES, GPU}) == 3
    assert list(STAGES) == ["no-opt", "reorder", "lre", "tune", "dense"]


def test_patterns_and_storage_are_what_they_were(checks):
    found = {check.name: check.simulated for check in checks}
    assert found["patterns that a layer stores"] == 8
    assert found["structure saved, pruned 8 x"] == pytest.approx(0.859, abs=0.001)
    assert found["structure saved, pruned 18 x"] == pytest.approx(0.839, abs=0.001)


def test_a_path_is_refused():
    with pytest.raises(InputError) as error:
        validate_patdnn("dump")
    assert str(error.value) == "dump: patdnn needs no data of its own; leave the path out"

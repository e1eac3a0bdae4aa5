"""What is known of point clouds, simulated: what is hit, what is missed, and by how much."""

import tomllib
from importlib import resources

import pytest

from gossamer.__main__ import main
from gossamer.reports.published import failed
from gossamer.reports.validate import drawings, validate_pointacc, validations
from gossamer.workloads.errors import InputError

PAPER = tomllib.loads((resources.files("gossamer.reports") / "papers" / "pointacc.toml").read_text("utf-8"))


@pytest.fixture(scope="module")
def checks():
    return validations("pointacc")(None)


def of(checks, section):
    return [check for check in checks if check.group == PAPER[section]["group"]]


def named(checks, section, name):
    (check,) = [check for check in of(checks, section) if check.name == name]
    return check


def test_no_check_is_out_of_tolerance_but_the_known_misses(checks):
    assert [check.name for check in checks if check.verdict == "miss"] == []
    assert not failed(checks)


def test_the_misses_are_listed_with_size_and_cause(checks):
    misses = {check.name: round(check.error, 2) for check in checks if check.verdict == "known miss"}
    assert misses == {
        "matches lost without the boundary register": -0.85,
        "multiply-accumulates": -0.15,
        "cycles of the 64 x 64 array": -0.12,
        "voxels at stride 2": -0.12,
        "gather and scatter, fp32 map by map over fp16 fused": 0.39,
    }
    assert all(check.note for check in checks if check.verdict == "known miss")


def test_closed_forms_and_the_lecture_are_met_exactly(checks):
    exact = [check for check in checks if check.tolerance == "exact"]
    assert len(exact) == 17 and all(check.simulated == check.published for check in exact)
    assert {check.verdict for check in exact} == {"hit"}


def test_a_match_is_astride_two_blocks_of_32_keys_about_once_in_32(checks):
    assert named(checks, "forms", "matches lost without the boundary register").simulated == pytest.approx(
        1 / 32, rel=0.15
    )


def test_the_network_is_compared_with_a_real_scan(checks):
    network = of(checks, "network")
    assert [check.verdict for check in network] == ["known miss", "known miss", "hit", "hit", "information"]
    macs, cycles, utilisation = (check.simulated for check in network[:3])
    assert macs * 1e9 / (4096 * cycles * 1e6) == pytest.approx(utilisation, rel=0.01)


def test_tiles_of_outputs_keep_the_cache_at_the_compulsory_traffic(checks):
    assert {check.verdict for check in of(checks, "cache")} == {"hit"}


def test_the_hash_table_is_swept_and_never_told_as_one_number(checks):
    across = [check for check in of(checks, "hash") if check.verdict != "information"]
    within = [check for check in of(checks, "hash") if check.verdict == "information"]
    assert len(across) == len(within) == 3 and {check.verdict for check in across} == {"hit"}
    for sweep in (across, within):
        ratios = [check.simulated for check in sweep]
        assert ratios == sorted(ratios) and ratios[0] > 1
    assert all(one.simulated < other.simulated for one, other in zip(across, within, strict=True))


def test_generated_scenes_are_as_sparse_as_real_ones(checks):
    scenes = of(checks, "scenes")
    assert [check.name for check in scenes if check.verdict != "hit"] == ["voxels at stride 2"]
    assert len(scenes) == 15


def test_adaptive_grouping_gains_what_was_published_on_assumed_constants(checks):
    grouping = named(checks, "gpu", "products, separate over tuned adaptive")
    assert grouping.verdict == "hit" and 1.4 <= grouping.simulated <= 1.5
    assert "none is fitted" in PAPER["gpu"]["note"]


def test_claims_about_machines_that_are_not_modelled_are_never_asserted(checks):
    claims = [*of(checks, "claims"), *of(checks, "gpu")[2:]]
    assert {check.verdict for check in claims} == {"information", "skipped"}
    skipped = {check.name: check.note for check in claims if check.verdict == "skipped"}
    assert skipped == {
        "end to end, over SpConv": "SpConv's kernels are not modelled",
        "energy over an RTX 2080 Ti": "no energy of a GPU is modelled",
        "speed over Mesorasi": "Mesorasi is not modelled",
    }


def test_every_source_tells_how_it_is_known_and_memory_is_never_asserted(checks):
    assert {check.source[:2] for check in checks} == {"P:", "D:", "M:"}
    assert all(check.verdict == "information" for check in checks if check.source.startswith("M:"))
    assert all(check.unit and check.tolerance and check.group for check in checks)


def test_data_that_is_not_needed_is_refused(tmp_path):
    with pytest.raises(InputError) as error:
        validate_pointacc(tmp_path)
    assert str(error.value) == f"{tmp_path}: pointacc needs no data of its own; leave the path out"


def test_only_what_has_plots_is_drawn(tmp_path, capsys):
    assert main(["validate", "eie", "--plots", str(tmp_path / "plots")]) == 2
    assert capsys.readouterr().err == (
        "gossamer: error: --plots must come with tensor-core or pointacc, whose plots it draws, not with eie; "
        "leave it out\n"
    )
    assert not (tmp_path / "plots").exists()
    assert drawings("pointacc").__module__ == "gossamer.reports.pointacc_plots"
    assert drawings("tensor-core").__module__ == "gossamer.reports.tensorcore_plots"

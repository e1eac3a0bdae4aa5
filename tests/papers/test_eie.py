"""The figures of the EIE paper, simulated: what is hit, what is missed, and by how much."""

import tomllib
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from gossamer.reports.published import failed
from gossamer.reports.validate import validate_eie
from gossamer.workloads.errors import InputError

DUMP = Path(__file__).resolve().parents[3] / "shared" / "data" / "eie-alex8"
PAPER = tomllib.loads((resources.files("gossamer.reports") / "papers" / "eie.toml").read_text("utf-8"))


@pytest.fixture(scope="module")
def checks():
    return validate_eie(DUMP if DUMP.is_dir() else None)


def named(checks, name, unit=None):
    (check,) = [c for c in checks if c.name == name and unit in (None, c.unit)]
    return check


def test_no_check_is_out_of_tolerance_but_the_known_misses(checks):
    assert [check.name for check in checks if check.verdict == "miss"] == []
    assert not failed(checks)


def test_every_miss_that_is_listed_is_one(checks):
    listed = {entry["name"] for part in PAPER.values() if isinstance(part, dict)
              for entry in part.get("check", []) if "known_miss" in entry}  # fmt: skip
    titles = {"theoretical": " theoretical", "uniform": ", uniform rows", "rows": ", row_sigma 0.13",
              "ratio": " actual / theoretical"}  # fmt: skip
    for layer in PAPER["layers"]["layer"]:
        listed |= {layer["name"] + titles[key] for key in layer.get("known_miss", {}) if key != "cause"}
    assert {check.name for check in checks if check.verdict == "known miss"} == listed


def test_the_real_layer_is_exact(checks):
    if not DUMP.is_dir():
        pytest.skip("the authors' dump (shared/data/eie-alex8 beside the repository) is absent")
    real = [check for check in checks if check.group == "Alex-8, real weights"]
    assert len(real) == 15 and {check.verdict for check in real} == {"hit"}
    assert named(checks, "Alex-8, 64 PEs, queue 8").simulated == 7926
    assert named(checks, "Alex-8 actual").simulated == pytest.approx(9.9075)


def test_without_the_dump_its_checks_are_skipped_with_a_word_and_nothing_fails(monkeypatch):
    import gossamer.reports.validate as validate

    # What the others give does not matter here: leave out the nine layers.
    empty = {key: {"group": "", "check": [], "layer": []} for key in ("layers", "tables", "trends", "limits")}
    monkeypatch.setattr(validate, "layer_runs", lambda: (None,) * 4)
    for name in ("layer_figures", "table_figures", "trend_figures", "limit_figures"):
        monkeypatch.setattr(validate, name, lambda *_: {})
    paper = PAPER | {key: {"source": "", "note": "", "ratio_tolerance": 0, **empty[key]} for key in empty}
    monkeypatch.setattr(validate, "read_paper", lambda _: paper)
    skipped = validate.validate_eie()
    assert len(skipped) == 15 and {check.verdict for check in skipped} == {"skipped"}
    assert skipped[0].note.startswith("needs the data of the authors' simulator")
    assert not failed(skipped)


def test_a_folder_that_is_no_dump_is_refused_at_once(tmp_path):
    with pytest.raises(InputError, match=r"a dump of the EIE simulator has act\.dat"):
        validate_eie(tmp_path)


def test_all_nine_layers_are_compared_in_four_figures_with_the_word_that_weights_are_synthetic(checks):
    layers = [check for check in checks if check.group == "Nine layers, synthetic weights"]
    assert len(layers) == 36
    assert sum("the real weights of these networks are not public" in check.note for check in layers) > 0
    assert all(check.verdict == "hit" or check.note for check in layers)


def test_vgg_6_and_nt_wd_are_shown_as_misses(checks):
    assert named(checks, "VGG-6, uniform rows").error == pytest.approx(-0.27, abs=0.02)
    assert {named(checks, f"{name} actual / theoretical").verdict for name in ("VGG-6", "NT-Wd")} == {"known miss"}


def test_unequal_rows_bring_actual_over_theoretical_closer_to_the_paper(checks):
    uniform = named(checks, "actual / theoretical, mean, uniform")
    unequal = named(checks, "actual / theoretical, mean, row_sigma 0.13")
    assert abs(unequal.error) < abs(uniform.error)


def test_the_mean_of_the_published_ratios_is_that_of_the_published_table():
    ratios = [layer["actual_us"] / layer["theoretical_us"] for layer in PAPER["layers"]["layer"]]
    published = [entry["published"] for entry in PAPER["trends"]["check"] if entry["key"].startswith("mean_ratio")]
    assert published == [pytest.approx(np.mean(ratios), abs=1e-4)] * 2


def test_the_tolerances_of_the_layers_are_what_rounding_explains():
    from gossamer.workloads.synth import EIE_LAYERS

    for layer, known in zip(PAPER["layers"]["layer"], EIE_LAYERS, strict=True):
        assert layer["name"] == known.name
        explained = 0.005 / known.weight_density + 0.05 / layer["theoretical_us"] + 0.01
        assert layer["density_tolerance"] == pytest.approx(explained, abs=0.002)


def test_power_and_area_add_up_to_those_of_table_ii_and_v(checks):
    assert named(checks, "power of 64 PEs and 21 LNZD nodes").simulated == pytest.approx(0.5866, abs=1e-4)
    assert named(checks, "area of 64 PEs and 21 LNZD nodes").simulated == pytest.approx(40.8375, abs=1e-3)
    assert named(checks, "area of one PE, parts added up").simulated == pytest.approx(638024)


def test_frames_per_joule_are_frames_per_second_over_power(checks):
    frames = named(checks, "Alex-7, 64 PEs, 45 nm, 800 MHz", "frames/s").simulated
    per_joule = named(checks, "Alex-7, 64 PEs, 45 nm, 800 MHz", "frames/J").simulated
    assert per_joule == pytest.approx(frames / named(checks, "power of 64 PEs and 21 LNZD nodes").simulated)


def test_overflowing_memories_are_found_by_the_simulators_warnings(checks):
    assert named(checks, "VGG-6 in a PE with room for 16,384").note == (
        "Ptr SRAM: 25089 pointers (columns + 1) take 50178 bytes a PE, and it has 32768"
    )
    assert named(checks, "NT-Wd outputs of a PE with 64 accumulators").note.startswith("accumulators: a vector of 8791")


def test_every_check_names_source_unit_and_tolerance(checks):
    assert all(check.source and check.unit and check.tolerance and check.group for check in checks)

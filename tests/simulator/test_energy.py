import json
import os
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.simulator.energy import EnergyTable, PerCycle, PerEvent, read_energy_table
from gossamer.workloads.errors import InputError

TABLES = Path(__file__).resolve().parents[2] / "models" / "energy"
NAMES = sorted(path.stem for path in TABLES.glob("*.toml"))
KINDS_OF_SOURCE = (
    "Han et al., ISCA 2016, ", "Wu et al., Sparseloop, MICRO 2022, ", "CACTI 7", "derived from ", "assumed", "half of ",
    "Han et al., FPGA 2017, ", "Horowitz, ISSCC 2014", "Dally, Hot Chips",
)  # fmt: skip
EIE_64, EIE_256 = {"pe": 64, "lnzd_node": 21}, {"pe": 256, "lnzd_node": 85}
# The published layer Alex-8 on 64 PEs: cycles and SRAM reads of the authors' simulator; the rest does not matter here.
ALEX8_CYCLES = 7926
ALEX8 = {"ptr_reads": 112_640, "spmat_reads": 100_900} | dict.fromkeys(
    ("queue_pushes", "entries", "act_reads", "act_writes", "broadcasts"), 0
)

BASE = EnergyTable(
    name="two",
    mode="event",
    node_nm=45,
    word_bits=16,
    per_event=[
        PerEvent(count="reads", part="Sram", pj=3.0, source="assumed", component="sram", action="read"),
        PerEvent(count="macs", part="Mac", pj=1.0, source="assumed", component="mac", action="compute"),
    ],
)
# As accelergy 0.4 writes it, all its habits together: indices, several lines an action, floats without a point.
ERT = """\
ERT:
    version: '0.4'
    tables:
      - name: system_top_level.chip.PE[1..64].sram[0..1]
        actions:
          - name: read
            arguments:
                address_delta: 0
                data_delta: 0
            energy: 2.5
          - name: read
            arguments:
                address_delta: 1
                data_delta: 1
            energy: 9.65335
          - name: leak
            arguments: {}
            energy: 1e-09
      - name: system_top_level.chip.PE[1..64].mac[1..8]
        actions:
          - name: compute
            arguments: null
            energy: 4
"""


def written(folder, text, name="design.ERT.yaml"):
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def bundled(name):
    return read_energy_table(TABLES / f"{name}.toml")


@pytest.mark.parametrize("name", NAMES)
def test_every_bundled_table_bears_its_file_name_and_a_source_at_each_value(name):
    table = bundled(name)
    assert table.name == name and table.description and table.node_nm
    for entry in [*table.per_cycle, *table.per_event, *table.area]:
        assert any(kind in entry.source for kind in KINDS_OF_SOURCE)


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("-event")])
def test_every_event_of_a_bundled_table_has_one_name_of_its_own_in_an_ert(name):
    names = [(entry.component, entry.action) for entry in bundled(name).per_event]
    assert None not in sum(names, ()) and len(set(names)) == len(names)


def test_calibrated_table_gives_the_published_power_and_area_of_eie():
    table = bundled("eie-45nm-calibrated")
    second = table.energy(800_000_000, EIE_64, {})
    assert second.total == pytest.approx((64 * 9.158 + 21 * 0.023) / 1e3, rel=1e-12)
    assert second.total == pytest.approx(0.59, abs=0.005)
    assert second.by_part["SpmatRead"] == pytest.approx(64 * 4.955e-3, rel=1e-12)
    # A published frame takes 1 / 81,967 s: 138,927 frames a joule where the power is the rounded 0.59 W.
    assert 81_967 / second.total == pytest.approx(138_927, rel=0.01)
    assert table.area_mm2(EIE_64) == pytest.approx((64 * 638_024 + 21 * 189) / 1e6, rel=1e-12)
    assert table.area_mm2(EIE_64) == pytest.approx(40.8, abs=0.05)


def test_28_nm_table_gives_the_published_power_and_area_of_the_larger_array():
    table = bundled("eie-28nm-calibrated")
    assert table.energy(1_200_000_000, EIE_256, {}).total == pytest.approx(2.36, rel=1e-7)
    assert table.area_mm2(EIE_256) == pytest.approx(63.8, rel=1e-7)


def test_28_nm_table_keeps_the_shares_of_table_ii():
    small, large = bundled("eie-45nm-calibrated"), bundled("eie-28nm-calibrated")
    for old, new in ((small.per_cycle, large.per_cycle), (small.area, large.area)):
        values = [[getattr(entry, "pj", getattr(entry, "um2", None)) for entry in side] for side in (old, new)]
        assert [entry.part for entry in old] == [entry.part for entry in new]
        assert {round(n / o, 6) for o, n in zip(*values, strict=True)} == {round(values[1][0] / values[0][0], 6)}


def test_event_energies_of_the_srams_come_near_table_ii_on_the_published_layer():
    event = bundled("eie-45nm-event").energy(ALEX8_CYCLES, EIE_64, ALEX8).by_part
    calibrated = bundled("eie-45nm-calibrated").energy(ALEX8_CYCLES, EIE_64, ALEX8).by_part
    assert event["SpmatRead"] / calibrated["SpmatRead"] == pytest.approx(1.037, abs=1e-3)
    assert event["PtrRead"] / calibrated["PtrRead"] == pytest.approx(1.160, abs=1e-3)


def test_a_row_of_eight_entries_stays_below_the_bound_that_table_ii_sets():
    (row,) = [entry.pj for entry in bundled("eie-45nm-event").per_event if entry.count == "spmat_reads"]
    assert row < 4.955 / 0.8 * 8


def test_calibrated_energy_ignores_counts_and_event_energy_ignores_cycles():
    calibrated, event = bundled("eie-45nm-calibrated"), bundled("eie-45nm-event")
    assert calibrated.energy(10, EIE_64, ALEX8) == calibrated.energy(10, EIE_64, {})
    assert event.energy(10, EIE_64, ALEX8) == event.energy(20, EIE_64, ALEX8)


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_energy_is_the_sum_of_its_parts_and_grows_linearly(reads, macs):
    energy = BASE.energy(1, {}, {"reads": reads, "macs": macs})
    assert energy.by_part == pytest.approx({"Sram": 3e-12 * reads, "Mac": 1e-12 * macs})
    assert energy.total == pytest.approx(sum(energy.by_part.values()))
    assert (energy.table, energy.mode) == ("two", "event")


def test_two_events_of_one_part_are_booked_together():
    energy = bundled("systolic-45nm-event")
    counts = {entry.count: 0 for entry in energy.per_event} | {"dram_reads": 3, "dram_writes": 4, "macs": 10}
    by_part = energy.energy(0, {}, counts).by_part
    assert by_part["Dram"] == pytest.approx(7 * 320e-12)
    assert (by_part["Multiplier"], by_part["Adder"]) == pytest.approx((6.2e-12, 1e-12))


def test_a_count_that_the_machine_lacks_is_named():
    with pytest.raises(InputError) as error:
        BASE.energy(1, {}, {"reads": 1, "ptr_reads": 1})
    assert str(error.value) == "energy table two: unknown count 'macs'; the machine has reads, ptr_reads"


def test_a_unit_that_the_machine_lacks_is_named():
    with pytest.raises(InputError) as error:
        bundled("eie-45nm-calibrated").area_mm2({"array": 1})
    assert str(error.value) == "energy table eie-45nm-calibrated: unknown unit 'pe'; the machine has array"


def test_a_table_without_areas_has_no_area():
    assert BASE.area_mm2({}) is None


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ("pj = -1", "pj must be a finite number of at least 0, not -1.0 (Mac) - at `$.per_event[0]`"),
        ("pj = nan", "pj must be a finite number of at least 0, not nan (Mac) - at `$.per_event[0]`"),
        ("pj = inf", "pj must be a finite number of at least 0, not inf (Mac) - at `$.per_event[0]`"),
        ("pj = 2e24", "pj must be at most 1e+24, not 2e+24 (Mac) - at `$.per_event[0]`"),
        ("pj = '1'", "Expected `float`, got `str` - at `$.per_event[0].pj`"),
        ("pj = true", "Expected `float`, got `bool` - at `$.per_event[0].pj`"),
        ("pj = 1\nvolts = 1", "Object contains unknown field `volts` - at `$.per_event[0]`"),
        ("pj = 1\naction = 'x'",
         "component and action must be given together, and Mac has one of them - at `$.per_event[0]`"),
        ("", "Object missing required field `pj` - at `$.per_event[0]`"),
    ],
)  # fmt: skip
def test_a_bad_value_in_a_table_is_named_with_its_rule(tmp_path, change, rule):
    head = 'name = "t"\nmode = "event"\n[[per_event]]\ncount = "macs"\npart = "Mac"\nsource = "assumed"\n'
    path = written(tmp_path, head + change, "t.toml")
    with pytest.raises(InputError) as error:
        read_energy_table(path)
    assert str(error.value) == f"{path}: {rule}; see docs/reference/energy.md"


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"mode": "both"}, "mode must be calibrated or event, not 'both'"),
        ({"mode": "event", "per_cycle": True},
         "a table of mode event must have per_event and no per_cycle: the two are never mixed"),
        ({"mode": "calibrated", "per_event": True},
         "a table of mode calibrated must have per_cycle and no per_event: the two are never mixed"),
        ({"mode": "calibrated"},
         "a table of mode calibrated must have per_cycle and no per_event: the two are never mixed"),
        ({"mode": "event", "per_event": True, "word_bits": 0}, "word_bits must be at least 1, not 0"),
    ],
)  # fmt: skip
def test_modes_are_never_mixed(fields, rule):
    if "per_cycle" in fields:
        fields["per_cycle"] = [PerCycle(unit="pe", part="Mac", pj=1, source="assumed")]
    if "per_event" in fields:
        fields["per_event"] = BASE.per_event
    with pytest.raises(ValueError) as error:
        EnergyTable(name="t", **fields)
    assert str(error.value) == rule


def test_a_value_without_a_source_is_refused():
    with pytest.raises(ValueError) as error:
        PerCycle(unit="pe", part="Mac", pj=1, source=" ")
    assert str(error.value) == "every value must name its source, or say assumed, and Mac is silent"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError) as error:
        read_energy_table(tmp_path / "none.toml")
    reason = os.strerror(2)
    rule = "an energy table must be a readable file"
    assert str(error.value) == f"{tmp_path}/none.toml: {rule}, and {reason}; check the path"


def test_broken_toml_and_broken_text_give_one_line(tmp_path):
    path = written(tmp_path, "name = \n", "t.toml")
    with pytest.raises(InputError, match="an energy table must be TOML: Invalid value") as error:
        read_energy_table(path)
    assert "\n" not in str(error.value)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError) as error:
        read_energy_table(path)
    assert str(error.value) == f"{path}: an energy table must be UTF-8 text; save it as such"


def test_other_endings_are_refused():
    with pytest.raises(InputError) as error:
        read_energy_table(Path("t.csv"))
    assert str(error.value) == (
        "t.csv: an energy table must be .toml, or an Accelergy ERT .yaml, not '.csv'; rename it"
    )


def test_an_ert_replaces_the_energies_of_the_base_and_names_itself(tmp_path):
    table = read_energy_table(written(tmp_path, ERT), BASE)
    assert table == EnergyTable(
        name="design.ERT.yaml",
        mode="event",
        word_bits=16,
        per_event=[
            PerEvent(count="reads", part="Sram", pj=9.65335, source="Accelergy ERT design.ERT.yaml",
                     component="sram", action="read"),
            PerEvent(count="macs", part="Mac", pj=4.0, source="Accelergy ERT design.ERT.yaml",
                     component="mac", action="compute"),
        ],
    )  # fmt: skip


@pytest.mark.parametrize("base", [name for name in NAMES if name.endswith("-event")])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_an_ert_written_from_a_table_gives_its_energies_back(tmp_path_factory, base, data):
    table = bundled(base)
    energies = [data.draw(st.floats(0, 1e6)) for _ in table.per_event]
    # YAML holds JSON; one component a line, its actions spread over tables of one name, as in a flattened design.
    tables = [
        {"name": f"top.chip[0..3].PE[0..63].{entry.component}[0..1]",
         "actions": [{"name": entry.action, "arguments": None, "energy": pj}]}
        for entry, pj in zip(table.per_event, energies, strict=True)
    ]  # fmt: skip
    path = written(tmp_path_factory.mktemp("ert"), json.dumps({"ERT": {"version": 0.3, "tables": tables}}))
    assert [entry.pj for entry in read_energy_table(path, table).per_event] == energies


def test_an_ert_that_lacks_entries_names_them_and_what_it_has(tmp_path):
    path = written(tmp_path, ERT.replace("name: read", "name: fetch").replace(".mac[1..8]", ".multiplier[1..8]"))
    with pytest.raises(InputError) as error:
        read_energy_table(path, BASE)
    assert str(error.value) == (
        f"{path}: the ERT must give sram.read, mac.compute, and has system_top_level.chip.PE.sram.fetch, "
        "system_top_level.chip.PE.sram.leak, system_top_level.chip.PE.multiplier.compute; "
        "name its components and actions as table two does"
    )


def test_components_are_matched_by_whole_names(tmp_path):
    path = written(tmp_path, ERT.replace(".mac[1..8]", ".imac[1..8]"))
    with pytest.raises(InputError, match=r"the ERT must give mac\.compute, and has "):
        read_energy_table(path, BASE)


def test_two_components_of_one_name_must_agree(tmp_path):
    more = """\
      - name: system_top_level.dma.sram
        actions:
          - {name: read, arguments: {}, energy: ENERGY}
"""
    agreeing = written(tmp_path, ERT + more.replace("ENERGY", "9.65335"))
    assert read_energy_table(agreeing, BASE).per_event[0].pj == 9.65335
    path = written(tmp_path, ERT + more.replace("ENERGY", "1.5"))
    with pytest.raises(InputError) as error:
        read_energy_table(path, BASE)
    assert str(error.value) == (
        f"{path}: sram.read must have one energy, and system_top_level.chip.PE.sram and "
        "system_top_level.dma.sram differ; keep one of them"
    )


@pytest.mark.parametrize("value", ["-1", ".nan", ".inf", "nan"])
def test_an_energy_in_an_ert_must_be_finite_and_not_negative(tmp_path, value):
    path = written(tmp_path, ERT.replace("9.65335", value))
    with pytest.raises(InputError) as error:
        read_energy_table(path, BASE)
    shown = {"-1": "-1.0", ".nan": "nan", ".inf": "inf", "nan": "nan"}[value]
    assert str(error.value) == (
        f"{path}: energy of system_top_level.chip.PE[1..64].sram[0..1] read must be a finite number of pJ, "
        f"at least 0, not {shown}; run accelergy again"
    )


def test_an_energy_in_an_ert_must_be_one_that_adds_up_to_a_finite_number(tmp_path):
    path = written(tmp_path, ERT.replace("9.65335", "1e308"))
    with pytest.raises(InputError) as error:
        read_energy_table(path, BASE)
    assert str(error.value) == f"{path}: pj must be at most 1e+24, not 1e+308 (Sram); run accelergy again"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("ERT: {version: 0.2, tables: {chip.sram: {read: {energy: 1}}}}",
         "not an Accelergy ERT of version 0.3 or 0.4: Expected `array`, got `object` - at `$.ERT.tables`; "
         "run accelergy again"),
        ("ERT_summary: {version: 0.4}",
         "not an Accelergy ERT of version 0.3 or 0.4: Object missing required field `ERT`; run accelergy again"),
        ("ERT: {version: 0.3, tables: [{name: a, actions: [{name: read, energy: true}]}]}",
         "not an Accelergy ERT of version 0.3 or 0.4: Expected `float`, got `bool` - at "
         "`$.ERT.tables[0].actions[0].energy`; run accelergy again"),
        ("ERT: {version: 0.5, tables: []}", "ERT version must be 0.3 or 0.4, not 0.5; run a newer accelergy"),
        ("", "not an Accelergy ERT of version 0.3 or 0.4: Expected `object`, got `null`; run accelergy again"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_ert_is_refused(tmp_path, text, rule):
    path = written(tmp_path, text)
    with pytest.raises(InputError) as error:
        read_energy_table(path, BASE)
    assert str(error.value) == f"{path}: {rule}"


@pytest.mark.parametrize("text", ["ERT: [", "ERT: !!python/object/apply:os.getcwd []", "ERT: 2001-99-99", "[" * 5000])
def test_what_is_not_plain_yaml_is_refused_in_one_line(tmp_path, text):
    path = written(tmp_path, text)
    with pytest.raises(InputError, match=": an Accelergy ERT must be YAML: ") as error:
        read_energy_table(path, BASE)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("base", [None, "eie-45nm-calibrated"])
def test_an_ert_needs_a_base_of_mode_event(tmp_path, base):
    path = written(tmp_path, ERT)
    with pytest.raises(InputError) as error:
        read_energy_table(path, None if base is None else bundled(base))
    assert str(error.value) == (
        f"{path}: an Accelergy ERT replaces the energies of a table of mode event, and this machine has none; "
        "give a TOML table"
    )


def test_an_ert_without_pyyaml_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    path = written(tmp_path, ERT)
    with pytest.raises(InputError) as error:
        read_energy_table(path, BASE)
    assert str(error.value) == f"{path}: reading an Accelergy ERT needs PyYAML: pip install gossamer[accelergy]"


def test_the_arithmetic_in_a_source_gives_the_value():
    table = tomllib.loads((TABLES / "eie-28nm-calibrated.toml").read_text("utf-8"))
    for entry in table["per_cycle"]:
        share = float(entry["source"].split(" x ")[1].split(" / ")[0])
        assert entry["pj"] == pytest.approx(2360 / 1.2 * share / 2346.403, rel=1e-8)
    for entry in table["area"]:
        share = float(entry["source"].split(" x ")[1].split(" / ")[0])
        assert entry["um2"] == pytest.approx(63.8e6 * share / 163_350_209, rel=1e-8)

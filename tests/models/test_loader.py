"""Machines by name and from files: what is bundled, and what is said of mistakes."""

from importlib import resources

import msgspec
import pytest

from gossamer.models import list_energy_tables, list_machines, load_machine, vary
from gossamer.models.loader import _read
from gossamer.workloads import InputError

MODELS = (
    "block_ell, csr_spmm, dstc, eie, ese, patdnn, pointacc, sparseloop_stc, spatten, systolic, tensorcore, torchsparse"
)


@pytest.mark.parametrize("name", list_machines())
def test_every_bundled_machine_loads_and_sources_each_of_its_numbers(name):
    machine = load_machine(name)
    folder = resources.files("gossamer.models") / "configs"
    own = _read(folder / f"{name}.toml")
    sources = dict(own.get("sources", {}))
    while "base" in own:
        own = _read(folder / f"{own['base']}.toml")
        sources = own.get("sources", {}) | sources
    for key, value in msgspec.structs.asdict(machine.config).items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            assert sources.get(key), f"{key} of {name} has no source"


def test_the_published_machines_are_bundled():
    assert {"eie-64pe", "eie-256pe", "systolic-16x16"} <= set(list_machines())
    assert "eie-45nm-calibrated" in list_energy_tables()


def test_a_variant_states_only_what_differs(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('base = "eie-64pe"\npe_count = 16\n[sources]\npe_count = "assumed"\n')
    machine = load_machine(path)
    assert (machine.name, machine.model, machine.config.pe_count) == ("mine", "eie", 16)
    assert msgspec.structs.replace(machine.config, pe_count=64) == load_machine("eie-64pe").config


def test_a_variant_of_a_file_beside_it(tmp_path):
    (tmp_path / "one.toml").write_text('base = "eie-64pe"\nqueue_depth = 4\n')
    (tmp_path / "two.toml").write_text('base = "one.toml"\npe_count = 2\n')
    config = load_machine(tmp_path / "two.toml").config
    assert (config.queue_depth, config.pe_count) == (4, 2)


def test_overrides_replace_fields_and_their_energy_table():
    machine = load_machine("eie-64pe", pe_count=8, energy="eie-45nm-event")
    assert (machine.config.pe_count, machine.energy.mode) == (8, "event")
    assert vary(machine, energy="").energy is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pe_count": 0}, "eie-64pe: pe_count must be at least 1, not 0"),
        ({"pe_count": 3.5}, "eie-64pe: pe_count must be a whole number, not 3.5"),
        ({"pe_count": True}, "eie-64pe: pe_count must be a whole number, not True"),
        ({"pe_count": "many"}, "eie-64pe: pe_count must be a whole number, not 'many'"),
        ({"pe_count": 10**9}, "eie-64pe: pe_count must be at most 8192, not 1000000000"),
        ({"queue_depth": 1}, "eie-64pe: queue_depth must be at least 2, not 1"),
        ({"index_bits": 9}, "eie-64pe: index_bits must be at most 8, not 9"),
        ({"clock_hz": -1}, "eie-64pe: clock_hz must be above 0 and finite, not -1.0"),
        ({"clock_hz": float("nan")}, "eie-64pe: clock_hz must be above 0 and finite, not nan"),
        ({"weights": "coded"}, "eie-64pe: weights must be codebook or exact, not 'coded'"),
        ({"act_batches": 1}, "eie-64pe: act_batches must be true or false, not 1"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_rule(changes, message):
    with pytest.raises(InputError) as caught:
        load_machine("eie-64pe", **changes)
    assert str(caught.value) == message


def test_an_unknown_key_lists_the_known_ones_and_the_nearest():
    with pytest.raises(InputError) as caught:
        load_machine("eie-64pe", pe_cuont=3)
    assert str(caught.value) == (
        "eie-64pe: unknown key 'pe_cuont' (did you mean pe_count?); model eie knows act_batches, act_registers, "
        "act_sram_bytes, clock_hz, code_bits, energy, entries_per_row, index_bits, pe_count, pointer_bits, ptr_bytes, "
        "queue_depth, spmat_bytes, weights, word_bits"
    )


def test_an_unknown_machine_lists_the_known_ones():
    with pytest.raises(InputError) as caught:
        load_machine("eie-64")
    assert str(caught.value) == (
        "unknown machine 'eie-64' (did you mean eie-64pe?); known: " + ", ".join(list_machines())
        + ", or the path of a .toml"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'model = "eia"',
            f"unknown model 'eia' (did you mean eie?); known: {MODELS}",
        ),
        ("model = 3", f"unknown model 3; known: {MODELS}"),
        ("", f"unknown model None; known: {MODELS}"),
        ('model = "loader"', f"unknown model 'loader'; known: {MODELS}"),
        ('model = "eie"', "missing key `pe_count`"),
        ("base = 3", "base must be a string, not 3"),
        ('base = "eie-64pe"\nsources = 3', "sources must be a table of strings, not 3"),
        ('base = "eie-64pe"\nwidth = 3', "unknown key 'width'; model eie knows "),
        ("pe_count = ", "a machine file must be TOML: "),
        ('base = "fast.toml"', "a base must not lead back to itself, and "),
    ],
)
def test_a_bad_machine_file_is_named_with_the_broken_rule(tmp_path, text, message):
    path = tmp_path / "fast.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_machine(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError) as caught:
        load_machine(tmp_path / "none.toml")
    rule = "a machine file must be a readable file"
    assert str(caught.value) == f"{tmp_path / 'none.toml'}: {rule}, and No such file or directory; check the path"


def test_an_energy_table_is_looked_for_beside_the_machine_file_that_names_it(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    table = resources.files("gossamer.models") / "energy" / "eie-45nm-event.toml"
    (tmp_path / "mine" / "table.toml").write_text(table.read_text().replace('name = "eie-45nm-event"', 'name = "own"'))
    (tmp_path / "mine" / "m.toml").write_text('base = "eie-64pe"\nenergy = "table.toml"\n')
    monkeypatch.chdir(tmp_path)
    assert load_machine("mine/m.toml").energy.name == "own"
    assert load_machine("eie-64pe", energy="mine/table.toml").energy.name == "own"


def test_an_unknown_energy_table_lists_the_known_ones():
    with pytest.raises(InputError) as caught:
        load_machine("eie-64pe", energy="eie-45nm")
    assert str(caught.value).startswith(
        "eie-64pe: unknown energy table 'eie-45nm' (did you mean eie-45nm-calibrated or eie-45nm-event?); known: "
    )


def test_a_machine_travels_to_another_process_whole():
    import pickle

    machine = load_machine("eie-64pe", pe_count=3)
    assert pickle.loads(pickle.dumps(machine)) == machine

"""Hostile input: by name, what the many cases of `benchmarks/fuzz.py` have found."""

import gzip
import io
import json
import sqlite3
import warnings
import zipfile
from contextlib import closing
from functools import partial

import numpy as np
import pytest

from gossamer.__main__ import main
from gossamer.models import load_machine
from gossamer.models.loader import load_energy_table
from gossamer.reports.reading import read_inputs, read_results
from gossamer.simulator import simulate
from gossamer.simulator.energy import read_energy_table
from gossamer.simulator.store import Store
from gossamer.simulator.sweep import Case, sweep
from gossamer.workloads import InputError, Layer, Trace, load_trace
from gossamer.workloads.data.mnist import read_idx
from gossamer.workloads.errors import shown
from gossamer.workloads.files.container import read_container
from gossamer.workloads.files.npy import read_npz
from gossamer.workloads.patterns import Pattern
from gossamer.workloads.points import voxelise
from gossamer.workloads.training import load_recipe


def refused(act):
    with pytest.raises(InputError) as caught:
        act()
    assert str(caught.value).isprintable()
    return str(caught.value)


def archive(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that occurs twice
        for name, data in members:
            file.writestr(name, data)
    return path


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_an_archive_that_claims_more_than_it_can_well_hold_is_not_unpacked(tmp_path):
    path = archive(tmp_path / "w.npz", [(f"a{i}.npy", npy(np.zeros(1 << 20, np.uint8))) for i in range(4)])
    data = path.read_bytes()
    directory = data.index(b"PK\1\2")
    head = bytearray(data)
    for _ in range(4):
        head[directory + 24 : directory + 28] = (1 << 30).to_bytes(4, "little")
        directory = data.find(b"PK\1\2", directory + 4)
    path.write_bytes(head)
    assert f"its {len(data):,} bytes may unpack to 1,073,741,824, not to 4,294,967,296" in refused(
        lambda: read_npz(path)
    )


def test_members_of_an_archive_must_differ_and_be_packed_as_numpy_packs(tmp_path):
    twice = archive(tmp_path / "a.npz", [("fc.npy", npy(np.eye(2))), ("fc", npy(np.eye(3)))])
    assert "names must differ, and 'fc' occurs twice" in refused(lambda: read_npz(twice))
    lzma = archive(tmp_path / "b.npz", [("fc.npy", npy(np.eye(2)))], zipfile.ZIP_LZMA)
    assert "members must be stored or deflated, not packed by method 14" in refused(lambda: read_npz(lzma))


def test_names_in_an_archive_are_names_of_layers_and_no_paths(tmp_path):
    path = archive(tmp_path / "w.npz", [("../../evil.npy", npy(np.eye(3, dtype=np.float32)))])
    assert load_trace(path, act_density=1.0).names == ("../../evil",)
    assert list(tmp_path.iterdir()) == [path]


def test_a_small_file_cannot_ask_for_a_large_matrix(tmp_path):
    path = tmp_path / "m.mtx"
    path.write_text("%%MatrixMarket matrix coordinate real general\n40000 40000 1\n1 1 1\n")
    assert refused(lambda: load_trace(path, act_density=1.0)) == (
        f"{path}: the matrix must have 1 to 67110912 elements, zeros included, not 40000 x 40000"
    )
    path.with_suffix(".smtx").write_text("1, 100000000, 1\n0 1\n5\n")
    assert "the matrix must have 1 to 67109888 elements" in refused(
        lambda: load_trace(path.with_suffix(".smtx"), act_density=1)
    )


def test_packed_data_unpack_to_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("gossamer.workloads.data.mnist.UNPACKED_LIMIT", 1000)
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(bytes(5000)))
    assert refused(lambda: read_idx(path, 1)) == f"{path}: the file must unpack to at most 1,000 bytes, and has more"


def layer(**given):
    return Layer(name="l", **({"op": "conv2d", "weight": np.ones((1, 1, 2, 2), np.float32),
                               "inputs": np.ones((1, 1, 4, 4), np.float32)} | given))  # fmt: skip


def test_padding_cannot_ask_for_more_than_the_inputs_explain():
    assert layer(attributes={"padding": [200, 200]}).attributes["padding"] == (200, 200)
    assert refused(lambda: layer(attributes={"padding": [20000, 20000], "dilation": [20000, 20000]})) == (
        "layer l: the input under the kernel, at all its places, must come to at most 67125248 numbers, not "
        "1600640064; take less padding, or fewer samples"
    )


def test_neighbours_cannot_come_to_more_than_the_points_explain():
    points = np.zeros((60_000, 2), np.float32)
    assert "must have at most 189988864 neighbours in all, not 60000 each" in refused(
        lambda: layer(op="point_op", weight=None, inputs=points, attributes={"kind": "knn", "k": 60_000})
    )


def test_a_voxel_beyond_any_float_is_refused():
    said = refused(lambda: voxelise(np.zeros((2, 3), np.float32), 10**400))
    assert said.startswith("voxel_size must be a number above 0, not ")


@pytest.mark.parametrize("value", [["knn"], {"a": 1}, [[[[]]]]])
def test_attributes_are_flat(value):
    points = np.zeros((4, 2), np.float32)
    said = refused(lambda: layer(op="point_op", weight=None, inputs=points, attributes={"kind": value}))
    assert said.startswith("layer l: ")
    deep = []
    for _ in range(5000):
        deep = [deep]
    said = refused(lambda: layer(attributes={"stride": deep}))
    assert said == "layer l: attribute stride must be one value or a list of values, not lists in one another"


def test_a_pattern_cannot_ask_for_longer_rows_than_there_are():
    weight, inputs = np.ones((2, 6), np.float32), np.ones((1, 6), np.float32)
    long = Pattern("n:m", n=2**30, m=2**31 - 1, axis=1)
    assert layer(op="linear", weight=weight, inputs=inputs, pattern=long).pattern.m == 2**31 - 1
    assert refused(lambda: Pattern("n:m", n=1, m=2**63, axis=0)) == (
        f"pattern n:m: m must be at most 2147483647, not {2**63}"
    )
    broken = Pattern("n:m", n=5, m=2**31 - 1, axis=1)
    assert "group 0 of row (0,) has 6 nonzeros" in refused(
        lambda: layer(op="linear", weight=weight, inputs=inputs, pattern=broken)
    )


def test_a_container_may_hold_what_numpy_cannot(tmp_path):
    head = json.dumps({"w": {"dtype": "F32", "shape": [1] * 65, "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(head).to_bytes(8, "little") + head + bytes(4))
    told = refused(lambda: read_container(path))
    assert "tensor 'w' must be an array of numpy's, and maximum supported dimension" in told
    assert "every array must be a weight of 2 or 4 dimensions" in refused(lambda: load_trace(path))


@pytest.mark.parametrize(
    "text", ["a: &a {x: 1}\nERT: {<<: [*a, *a]}\n", "a: &a [1]\nERT: {version: 0.4, tables: *a}\n"]
)
def test_aliases_of_yaml_are_refused_before_they_multiply(tmp_path, text):
    base = load_energy_table("eie-45nm-event", "gossamer.models.eie", "here")
    path = tmp_path / "ert.yaml"
    path.write_text(text)
    assert refused(lambda: read_energy_table(path, base)) == (
        f"{path}: an Accelergy ERT must be YAML: without aliases (*name), and has some; write them out"
    )


@pytest.fixture(scope="module")
def result():
    trace = Trace(name="t", layers=[Layer(name="fc", op="linear", weight=np.eye(3, dtype=np.float32),
                                          inputs=np.ones((1, 3), np.float32))])  # fmt: skip
    return Case(trace, load_machine("eie-64pe", pe_count=2)), simulate(load_machine("eie-64pe", pe_count=2), trace)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(layers=[]), "layers must be at least one, and there is none"),
        (lambda d: d["total"]["energy_j"].update(by_part={}),
         "total: energy_j.by_part must add up to the total, and is nothing"),
        (lambda d: d["layers"][0]["energy_j"].update(by_part={"spmat": 0.0}),
         "fc: energy_j.by_part must add up to the total, and is nothing"),
    ],
)  # fmt: skip
def test_results_of_nothing_are_refused(tmp_path, result, change, message):
    path, data = tmp_path / "r.json", json.loads(result[1].to_json())
    change(data)
    path.write_text(json.dumps(data))
    assert refused(lambda: read_results(path)) == f"{path}: {message}; write it again with gossamer simulate"


def test_results_that_are_no_text_or_nested_without_end_are_refused(tmp_path, result):
    path, text = tmp_path / "r.json", result[1].to_json()
    for data in (
        text.replace('"t"', '"\\ud800"', 1).encode().replace(b"\\ud800", b"\xff"),
        text.replace('"provenance": {}', '"provenance": {"a": ' + "[" * 5000 + "]" * 5000 + "}").encode(),
        b"[" * 5000,
    ):
        path.write_bytes(data)
        assert refused(lambda: read_results(path)).startswith(f"{path}: not a ")


@pytest.mark.parametrize(
    "change",
    [
        "create trigger extra after insert on cases begin delete from cases; end",
        "create view extra as select 1",
        "drop table cases; create view cases as with recursive c(key) as (select 1 union all select key + 1 from c) "
        "select key, '' as trace, '' as machine, '{}' as settings, null as result, null as error from c",
        "drop table cases; create table cases (key, trace, machine, settings, result, error as (zeroblob(1000000000)))",
    ],
)
def test_a_database_that_would_do_something_when_it_is_read_is_no_store(tmp_path, result, change):
    path = tmp_path / "s.sqlite"
    with Store(path) as store:
        sweep([result[0]], store=store)
    with closing(sqlite3.connect(path)) as database:
        database.executescript(change)
    for open_ in (lambda: Store(path), lambda: read_inputs([path])):
        assert "a store must be a file that gossamer made" in refused(open_)


@pytest.mark.parametrize("column", ["trace", "machine", "settings", "result", "error"])
def test_a_store_with_rows_of_other_types_is_refused(tmp_path, result, column):
    path = tmp_path / "s.sqlite"
    with Store(path) as store:
        sweep([result[0]], store=store)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"update cases set {column} = ?", (b"{}",))
    assert refused(lambda: read_inputs([path])) == (
        f"{path}: a store must hold text, and has a row that does not; delete the store"
    )


def test_a_store_whose_table_is_not_even_text_is_refused(tmp_path, result):
    path = tmp_path / "s.sqlite"
    with Store(path) as store:
        sweep([result[0]], store=store)
    data = path.read_bytes()
    assert data.lower().count(b"create table cases") == 1
    at = data.lower().index(b"create table cases")
    path.write_bytes(data[: at + 7] + b"\xff\xff\xff" + data[at + 10 :])
    for open_ in (lambda: Store(path), lambda: read_inputs([path])):
        assert refused(open_).startswith(f"{path}: a store must be a writable SQLite file: ")


def test_numbers_that_lead_nowhere_are_refused(tmp_path):
    assert refused(lambda: load_machine("eie-64pe", clock_hz=5e-324)) == (
        "eie-64pe: clock_hz must be 0 or from 1e-24 to 1e+24, not 5e-324"
    )
    assert refused(lambda: load_machine("eie-64pe", pe_count=10**30)) == (
        f"eie-64pe: pe_count must be a whole number of 64 bits, not {10**30}"
    )
    path = tmp_path / "mine.toml"
    path.write_text('base = "eie-64pe"\npe_count = 0x' + "f" * 6000)
    assert refused(lambda: load_machine(path)).endswith("of 64 bits, not a int that is too large to show")
    machine = load_machine("eie-64pe", clock_hz=1e-20)
    trace = Trace(name="t", layers=[Layer(name="fc", op="linear", weight=np.eye(8, dtype=np.float32),
                                          inputs=np.ones((1, 8), np.float32))])  # fmt: skip
    assert refused(lambda: simulate(machine, trace)) == (
        "layer fc: figures of eie-64pe must stay below 2^62, and its settings lead to latency_s = 1.6e+21; "
        "choose nearer ones"
    )


def test_a_ladder_of_bases_has_an_end(tmp_path):
    for kind, bottom, load in (("machine", "eie-64pe", load_machine), ("recipe", "lenet-digits-imp", load_recipe)):
        for step in range(40):
            base = f"{kind}{step - 1}.toml" if step else bottom
            (tmp_path / f"{kind}{step}.toml").write_text(f'base = "{base}"\n')
        assert load(tmp_path / f"{kind}20.toml")
        last = tmp_path / f"{kind}39.toml"
        assert "a base may have a base, but not 32 of them" in refused(partial(load, last))


def test_a_recipe_needs_a_name_that_files_can_have():
    assert "name must be the stem of a file, not ''" in refused(lambda: load_recipe("lenet-digits-imp", name=""))
    assert "name must take at most 200 bytes, not 300" in refused(
        lambda: load_recipe("lenet-digits-imp", name="x" * 300)
    )
    assert "neither" in refused(lambda: load_recipe("x" * 5000))


def test_an_energy_table_is_looked_for_among_the_bundled_by_name_alone():
    said = refused(lambda: load_machine("eie-64pe", energy="../configs/eie-64pe"))
    assert "unknown energy table '../configs/eie-64pe'" in said


def test_a_message_is_one_line_whatever_is_in_it():
    assert str(InputError("a\nb\x1b[31m\ud800\u2028: \u5c42, \\n")) == "a\\nb\\x1b[31m\\ud800\\u2028: \u5c42, \\n"
    assert shown("x" * 300) == repr("x" * 300)[:197] + "..."


@pytest.mark.parametrize(
    "arguments",
    [
        ["explore", "lenet-digits-imp", "--grid", "pe_count=1,2", "--layer", "\udcff"],
        ["simulate", "lenet-digits-imp", "--json", "\ud800"],
        ["sweep", "lenet-digits-imp", "--grid", "pe_count=1", "--csv", "\ud800"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_is_typed_in_no_encoding_is_refused_in_one_line(capsys, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("gossamer: error: ") and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_work_that_does_not_fit_in_memory_is_said_in_one_line(capsys, monkeypatch):
    def short(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr("gossamer.simulator.simulate", short)
    assert main(["simulate", "lenet-digits-imp"]) == 2
    assert capsys.readouterr().err == (
        "gossamer: error: the work must fit in memory, and does not; choose less of it, or a machine with more\n"
    )

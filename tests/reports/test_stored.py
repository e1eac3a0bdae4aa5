"""Querying a store: what is chosen, what is exported, and what is refused."""

import json
import sqlite3

import pytest

from gossamer.__main__ import main
from gossamer.models import load_machine, vary
from gossamer.reports.stored import Condition, choose, parquet_bytes
from gossamer.reports.tables import csv_text, sweep_rows, sweep_table
from gossamer.simulator.store import Store
from gossamer.simulator.sweep import Case, grid_points, sweep
from gossamer.workloads import InputError
from gossamer.workloads.synth import random_layer


@pytest.fixture
def store(tmp_path):
    """Return the path of a store with six cases that finished and one that failed."""
    machine = load_machine("eie-64pe")
    trace = random_layer(40, 50, 0.3, 0.5, name="layer")
    points = grid_points({"pe_count": [4, 16, 64], "queue_depth": [2, 8]})
    cases = [Case(trace, vary(machine, **point), point) for point in points]
    path = tmp_path / "s.sqlite"
    with Store(path) as kept:
        sweep([*cases, Case(trace, machine, {"pe_count": 64, "queue_depth": 9}, layers="none")], store=kept)
    return path


def chosen(path, *where):
    with Store(path, must_exist=True) as kept:
        return [(row["pe_count"], row["queue_depth"]) for row in choose(kept, where).rows]


def test_cases_stand_by_their_settings_as_numbers_sort(store):
    assert chosen(store) == [(4, 2), (4, 8), (16, 2), (16, 8), (64, 2), (64, 8), (64, 9)]


@pytest.mark.parametrize(
    ("where", "found"),
    [
        (["pe_count=16"], [(16, 2), (16, 8)]),
        (["pe_count>4", "queue_depth<8"], [(16, 2), (64, 2)]),
        (["pe_count != 4", "queue_depth >= 8"], [(16, 8), (64, 8), (64, 9)]),
        (["queue_depth<=2.5"], [(4, 2), (16, 2), (64, 2)]),
        (["error=?*"], [(64, 9)]),
        (["error="], [(4, 2), (4, 8), (16, 2), (16, 8), (64, 2), (64, 8)]),
        (["trace=lay*", "engine=fast", "pe_count=4"], [(4, 2), (4, 8)]),
        (["trace!=lay*"], []),
        (["speedup=1"], [(4, 2)]),
    ],
)
def test_conditions_choose_cases(store, where, found):
    assert chosen(store, *where) == found


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("pe_count", "--where must be COLUMN=VALUE, or have !=, <, <=, > or >=, not 'pe_count'; as in pe_count>=16"),
        ("trace<3", "--where trace<3: < compares numbers, not 'layer'; use ="),
        ("pe_count<many", "--where pe_count<many: < compares numbers, not 'many'; use ="),
    ],
)
def test_a_condition_that_makes_no_sense_is_refused(store, where, message):
    with pytest.raises(InputError) as caught:
        chosen(store, where)
    assert str(caught.value) == message


def test_an_unknown_column_is_refused_and_the_known_ones_are_named(store):
    with pytest.raises(InputError) as caught:
        chosen(store, "pecount=1")
    assert str(caught.value).startswith(
        "--where pecount: the store must have that column, and has not (did you mean pe_count?); it has trace, "
        "machine, pe_count, queue_depth, "
    )


def test_a_condition_is_read_with_its_longest_sign():
    assert Condition.of("a<=1") == Condition("a", "<=", "1")
    assert Condition.of("error=x>y") == Condition("error", "=", "x>y")


def test_the_exports_of_a_store_agree(store, tmp_path, capsys):
    files = [tmp_path / name for name in ("r.csv", "r.json", "r.parquet")]
    assert main(["results", str(store), "--csv", str(files[0]), "--json", str(files[1])]) == 0
    with Store(store, must_exist=True) as kept:
        rows = choose(kept).rows
    assert files[0].read_text() == csv_text(rows)
    assert json.loads(files[1].read_text()) == rows
    pytest.importorskip("pyarrow", reason="pyarrow is not installed; the extra parquet brings it")
    from pyarrow import BufferReader
    from pyarrow.parquet import read_table

    assert main(["results", str(store), "--parquet", str(files[2])]) == 0
    columns = list(dict.fromkeys(column for row in rows for column in row))
    read = read_table(BufferReader(files[2].read_bytes())).to_pylist()
    assert read == [{column: row.get(column) for column in columns} for row in rows]
    mixed = parquet_bytes([{"a": 1}, {"a": "auto"}, {}])
    assert read_table(BufferReader(mixed)).to_pylist() == [{"a": "1"}, {"a": "auto"}, {"a": None}]
    assert "failed" in capsys.readouterr().out


def test_where_nothing_fits_it_is_said(store, tmp_path, capsys):
    assert main(["results", str(store), "--where", "pe_count=99"]) == 0
    assert capsys.readouterr().out == "No case fits.\n"
    assert main(["report", str(store), "--where", "pe_count=99", "--out", str(tmp_path / "r.html")]) == 2
    assert capsys.readouterr().err == (
        f"gossamer: error: {store}: a store must hold a finished case to be shown, and holds none that keeps "
        "--where pe_count=99; choose others\n"
    )


def test_a_store_that_is_not_there_is_not_made(tmp_path, capsys):
    path = tmp_path / "none.sqlite"
    assert main(["results", str(path)]) == 2
    assert capsys.readouterr().err == (
        f"gossamer: error: {path}: a store must be a file that gossamer sweep --store made, and none is there; "
        "check the path\n"
    )
    assert not path.exists()


def test_damaged_settings_are_named_with_their_store(store):
    database = sqlite3.connect(store)
    database.execute("update cases set settings = '['")
    database.commit()
    database.close()
    with pytest.raises(InputError) as caught:
        chosen(store)
    assert str(caught.value).startswith(f"{store}: stored settings are damaged: ")


def test_a_store_without_cases_shows_none(tmp_path):
    with Store(tmp_path / "empty.sqlite") as kept:
        assert choose(kept, ["pe_count=1"]).rows == []
        choose(kept).table()


def test_a_long_sweep_is_cut_on_the_screen_and_not_in_its_rows(monkeypatch, capsys):
    from gossamer.reports.terminal import show

    monkeypatch.setattr("gossamer.reports.tables.ROWS_AT_ONCE", 2)
    machine, trace = load_machine("eie-64pe"), random_layer(40, 50, 0.3, 0.5, name="layer")
    outcomes = sweep([Case(trace, vary(machine, queue_depth=n), {"queue_depth": n}) for n in (2, 3, 4)])
    show(sweep_table(outcomes))
    assert "The first 2 of 3 cases; --csv writes all." in capsys.readouterr().out
    assert len(sweep_rows(outcomes)) == 3

"""The readers of machines, recipes, energies, results, stores and checkpoints, for `fuzz`."""

from __future__ import annotations

import json
import random
import sqlite3
import tomllib
from contextlib import closing
from functools import cache
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fuzz_seeds as seeds
from fuzz import Target
from fuzz_damage import MARK, WORDS, damaged, harmed, json_bytes, toml_text, value
from fuzz_readers import _container, _write

from gossamer.models import list_machines, load_machine
from gossamer.models.loader import load_energy_table
from gossamer.reports.html import report_html
from gossamer.reports.reading import read_inputs
from gossamer.reports.stored import choose
from gossamer.reports.tables import compare_rows, csv_text, result_table
from gossamer.simulator import simulate
from gossamer.simulator.energy import read_energy_table
from gossamer.simulator.store import Store
from gossamer.simulator.sweep import Case, sweep
from gossamer.workloads.training.checkpoint import is_checkpoint, load_checkpoint
from gossamer.workloads.training.recipe import load_recipe, recipe_names


@cache
def _bundled(folder: str) -> tuple[str, ...]:
    place = resources.files("gossamer") / folder
    return tuple(file.read_text() for file in sorted(place.iterdir(), key=str) if file.name.endswith(".toml"))


def _toml(rng: random.Random, folder: str) -> bytes:
    """Return one of the bundled files with its bytes or its values changed."""
    text = rng.choice(_bundled(folder))
    if rng.random() < 0.4:
        return damaged(rng, text.encode(), rng.choice(_bundled(folder)).encode())
    return toml_text(harmed(rng, tomllib.loads(text))).encode("utf-8", "surrogatepass")


def machine(rng: random.Random, folder: Path) -> None:
    data = _toml(rng, "models/configs")
    if rng.random() < 0.05:
        base = rng.choice(("mine.toml", "./mine.toml", "../mine.toml", "a\0.toml", "x" * 300, "eie-64pe", "none", "."))
        data = f"base = {json.dumps(base)}\n".encode() + data
    load_machine(_write(folder, "mine.toml", data))


def machine_name(rng: random.Random, folder: Path) -> None:
    """Look for machines, energy tables and recipes by names that are none."""
    word = rng.choice((*WORDS, "eie-64pe", "../configs/eie-64pe", "../../models/configs/ese", "a" * 5000))
    kind = rng.randrange(3)
    if kind == 0:
        load_machine(word)
    elif kind == 1:
        load_energy_table(word + rng.choice(("", "", ".toml", ".yaml")), "gossamer.models.eie", "here")
    else:
        load_recipe(word)


def recipe(rng: random.Random, folder: Path) -> None:
    data = _toml(rng, "workloads/recipes")
    changes: dict[str, Any] = {}
    if rng.random() < 0.3:
        changes = {rng.choice(tuple(tomllib.loads(rng.choice(_bundled("workloads/recipes"))))): value(rng)}
    path = _write(folder, "mine.toml", data)
    load_recipe(path if rng.random() < 0.8 else rng.choice(recipe_names()), **changes)


def energy(rng: random.Random, folder: Path) -> None:
    read_energy_table(_write(folder, "e.toml", _toml(rng, "models/energy")))


@cache
def _ert() -> dict[str, Any]:
    """Return an Accelergy energy reference table that gives all that EIE's asks for."""
    from gossamer.models.loader import list_energy_tables

    assert "eie-45nm-event" in list_energy_tables()
    base = load_energy_table("eie-45nm-event", "gossamer.models.eie", "here")
    actions: dict[str, list[dict[str, Any]]] = {}
    for entry in base.per_event:
        if entry.component is not None:
            actions.setdefault(f"system.{entry.component}[1..64]", []).append({"name": entry.action, "energy": 1.5})
    tables = [{"name": name, "actions": listed} for name, listed in actions.items()]
    return {"ERT": {"version": 0.4, "tables": tables}}


def ert(rng: random.Random, folder: Path) -> None:
    import yaml

    base = load_energy_table("eie-45nm-event", "gossamer.models.eie", "here")
    kind = rng.randrange(5)
    if kind == 0:  # aliases that multiply, in the ways that YAML has
        lines = ["a0: &a0 {x: 1, y: 2}"]
        form = rng.choice(("[%s]", "{<<: [%s]}"))
        for level in range(1, rng.choice((3, 12))):
            lines.append(f"a{level}: &a{level} " + form % ", ".join([f"*a{level - 1}"] * 9))
        data = "\n".join([*lines, f"ERT: {{version: 0.4, tables: *a{level}}}"]).encode()
    elif kind < 3:
        data = yaml.safe_dump(_ert(), sort_keys=False).encode()
        data = damaged(rng, data, b"<<: *id001\n!!python/object/apply:os.system [x]\n? [a]\n: 1\n1:2:3:4\n2001-99-99\n")
    else:
        try:
            data = yaml.safe_dump(harmed(rng, _ert())).encode("utf-8", "surrogatepass")
        except (RecursionError, yaml.YAMLError, ValueError):
            data = b"{" * 3000
    read_energy_table(_write(folder, "ert.yaml", data), base)


@cache
def _results() -> tuple[dict[str, Any], ...]:
    """Return results of several models, as plain data."""
    made = [
        simulate(load_machine("eie-64pe", pe_count=4), seeds.trace("linear", "coded", "conv2d")),
        simulate(load_machine("a100-sparse", functional=True), seeds.trace("n:m", "conv2d")),
        simulate(load_machine("ese"), seeds.trace("lstm", "linear")),
        simulate(load_machine("pointacc"), seeds.trace("sparse_conv3d", "downsampling", "knn")),
        simulate(load_machine("spatten"), seeds.trace("matmul")),
    ]
    return tuple(json.loads(one.to_json()) for one in made)


def _shown(paths: list[Path]) -> None:
    read = read_inputs(paths)
    page = report_html(read.results, failed=read.failed)
    assert MARK not in page, "text of a file stands in a page as it is"
    for result in read.results:
        result_table(result)
    csv_text(compare_rows(read.results))


def result(rng: random.Random, folder: Path) -> None:
    one = rng.choice(_results())
    kind = rng.randrange(5)
    if kind == 0:
        data = damaged(rng, json.dumps(one).encode(), json.dumps(_results()[0]).encode())
    elif kind == 1:
        data = json_bytes(rng, harmed(rng, [one, rng.choice(_results())]))
    elif kind == 2:
        data = json.dumps(one).replace('"l0"', json.dumps(rng.choice(WORDS))).encode("utf-8", "surrogatepass")
    else:
        data = json_bytes(rng, harmed(rng, one))
    _shown([_write(folder, "r.json", data)])


def plots(rng: random.Random, folder: Path) -> None:
    from gossamer.reports.plots import draw_all
    from gossamer.workloads.errors import InputError

    read = read_inputs([_write(folder, "r.json", json_bytes(rng, harmed(rng, rng.choice(_results()))))])
    if rng.random() < 0.3:  # drawing takes a second
        try:
            draw_all(read.results, folder, ".svg")
        finally:
            for path in folder.glob("*.svg"):
                assert MARK not in path.read_text(), InputError("text of a file stands in a picture as it is")
                path.unlink()


@cache
def _store() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "s.sqlite"
        machine = load_machine("eie-64pe", pe_count=4)
        cases = [
            Case(seeds.trace("linear"), machine, {"pe_count": 4}),
            Case(seeds.trace("coded"), machine, {"weights": "x"}),
        ]
        with Store(path) as store:
            sweep(cases, store=store)
            store.save("k", "seed", "eie-64pe", '{"pe_count": 5}', None, "ValueError: too many")
        with closing(sqlite3.connect(path)) as database:
            database.execute("pragma wal_checkpoint(truncate)")
            database.execute("pragma journal_mode = delete")
        return path.read_bytes()


SCHEMES = (
    "create view extra as select * from cases",
    "create trigger extra after insert on cases begin delete from cases; end",
    "create table extra (a)",
    "drop table cases; create view cases as select 'k' as key, 't' as trace, 'm' as machine, '{}' as settings, "
    "null as result, 'e' as error",
    "drop table cases; create view cases as with recursive c(key) as (select 1 union all select key + 1 from c) select "
    "key, 1 as trace, 1 as machine, 1 as settings, 1 as result, 1 as error from c",
    "drop table cases; create table cases (key, trace, machine, settings, result, error)",
    "drop table cases; create table cases (key text primary key, trace, machine, settings, result, "
    "error text default (randomblob(1000000000)))",
    "pragma user_version = 7", "pragma user_version = -1", "pragma user_version = 0", "drop table cases",
    "create index extra on cases(trace)", "pragma application_id = 3",
)  # fmt: skip


def store(rng: random.Random, folder: Path) -> None:
    for path in folder.glob("s.sqlite*"):
        path.unlink()
    kind = rng.randrange(4)
    path = _write(folder, "s.sqlite", damaged(rng, _store()) if kind == 0 else _store())
    if kind == 1:
        with closing(sqlite3.connect(path)) as database:
            database.executescript(rng.choice(SCHEMES))
    elif kind > 1:
        column = rng.choice(("trace", "machine", "settings", "result", "error", "key"))
        given: Any = rng.choice((None, 5, 2.5, b"\xff\x00", "", "{}", "[1]", "\0", MARK, float("inf")))
        if column == "settings" and rng.random() < 0.7:
            given = json_bytes(rng, harmed(rng, {"pe_count": 4, "a": [1], "b": "c"})).decode("utf-8", "replace")
        elif column == "result" and rng.random() < 0.7:
            given = json_bytes(rng, harmed(rng, rng.choice(_results()))).decode("utf-8", "replace")
        with closing(sqlite3.connect(path)) as database, database:
            where = rng.choice(("", " where key = 'k'"))
            try:
                database.execute(f"update cases set {column} = ?{where}", (given,))
            except sqlite3.Error:
                return
    if rng.random() < 0.6:
        _shown([path])
    elif rng.random() < 0.5:
        with Store(path, must_exist=True) as kept:
            word = rng.choice(
                ("pe_count>=3", "trace=s*", "machine!=x", "error=*", "weights<3", "cycles>1", "nope=1", "[", "a==b")
            )
            csv_text(choose(kept, [word]).rows)
    else:
        machine = load_machine("eie-64pe", pe_count=4)
        with Store(path) as kept:
            sweep([Case(seeds.trace("linear"), machine, {"pe_count": 4})], store=kept)


@cache
def _checkpoint() -> bytes:
    from gossamer.workloads.training import load_recipe, train
    from gossamer.workloads.training.checkpoint import checkpoint_bytes

    changes = {
        "network": "mlp-100-100",
        "epochs": 1,
        "batch_size": 512,
        "samples": 2,
        "sparsity": 0.3,
        "rewind_step": 1,
    }
    return checkpoint_bytes(train(load_recipe("lenet-digits-imp", **changes)))


@cache
def _checkpoint_key() -> str:
    from gossamer.workloads.training.checkpoint import KEY

    return KEY


def checkpoint(rng: random.Random, folder: Path) -> None:
    data = _checkpoint()
    size = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + size])
    if rng.random() < 0.7:
        inner = harmed(rng, json.loads(head["__metadata__"][_checkpoint_key()]))
        head["__metadata__"] = {_checkpoint_key(): json_bytes(rng, inner).decode("utf-8", "replace")}
        text = json_bytes(rng, head)
        data = len(text).to_bytes(8, "little") + text + data[8 + size :]
    else:
        data = _container(rng, data)
    path = _write(folder, "c.checkpoint.safetensors", data)
    is_checkpoint(path)
    load_checkpoint(path)


def prepare() -> None:
    """Make what is damaged, before any case is watched."""
    import matplotlib.pyplot  # noqa: F401  # it makes folders of its own

    seeds.trace_files()
    _results()
    _store()
    with TemporaryDirectory() as folder:
        load_checkpoint(_write(Path(folder), "c.safetensors", _checkpoint()))
    for name in list_machines():
        load_machine(name)


TARGETS = (
    Target("machine", machine, 80, opens=True),  # base and energy name files: they are for that
    Target("name", machine_name, 20, opens=True),
    Target("recipe", recipe, 60, opens=True),
    Target("energy", energy, 50),
    Target("ert", ert, 40),
    Target("result", result, 60),
    Target("plots", plots, 2, limit_s=20),
    Target("store", store, 50),
    Target("checkpoint", checkpoint, 15, limit_s=10),
)

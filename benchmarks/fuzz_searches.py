"""Spaces of cases, searches, clusters and training runs with settings that nobody chose, for `fuzz`."""

from __future__ import annotations

import contextlib
import random
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import fuzz_seeds as seeds
import fuzz_tables
import msgspec
from fuzz import Target
from fuzz_configs import _machines, _value
from fuzz_damage import FLOATS, MARK, NUMBERS, ODD_FLOATS, WORDS, harmed, value

from gossamer.models import load_machine, vary
from gossamer.reports.explore import explore
from gossamer.reports.html import report_html
from gossamer.reports.plots import KINDS, draw
from gossamer.reports.provenance import machine_constants, sources_table, table_constants
from gossamer.reports.reading import read_inputs
from gossamer.reports.schemas import schema_of
from gossamer.reports.search import Job, read_target
from gossamer.reports.side_by_side import compare_all, gains, gains_table, page, pairs_table
from gossamer.reports.tables import csv_text, sweep_rows, sweep_table
from gossamer.simulator.cluster import Cluster, check_address
from gossamer.simulator.space import Space
from gossamer.simulator.sweep import Case, grid_points, sweep
from gossamer.workloads import save_trace
from gossamer.workloads.errors import InputError
from gossamer.workloads.search.netadapt import Settings
from gossamer.workloads.trace import Layer, Trace
from gossamer.workloads.training.recipe import build_recipe

ODD: tuple[Any, ...] = (*NUMBERS, *FLOATS, *ODD_FLOATS, "1", "x", [], None, True)


def space(rng: random.Random, folder: Path) -> None:
    """Explore or sweep a small space of odd values; a case that fails is told, and the others are not lost."""
    machines = [load_machine("eie-64pe", pe_count=4), load_machine("systolic-8x8"), load_machine("v100-sputnik")]
    chosen = rng.sample(machines, rng.choice((1, 1, 2)))
    config = msgspec.structs.asdict(chosen[0].config)
    values: dict[str, list[Any]] = {}
    for name in rng.sample(sorted(config), rng.choice((1, 1, 2))):
        known = [config[name]] * (rng.random() < 0.8)
        values[name] = known + [_value(rng, name, config[name]) for _ in range(rng.choice((0, 1, 2)))]
    if rng.random() < 0.05:
        values[rng.choice(WORDS)] = [1]
    traces = [seeds.trace("linear")] * rng.choice((1, 1, 1, 2)) + [seeds.trace("conv2d", "coded")] * rng.choice((0, 1))
    if rng.random() < 0.5:
        found = Space(traces, chosen, values, vary, frozenset(rng.sample(sorted(values), 1)),
                      rng.choice((None, None, None, "l*", rng.choice(WORDS))))  # fmt: skip
        trials = rng.choice((None, None, None, 1, 3, rng.choice(ODD))) if rng.random() < 0.3 else None
        sampler = rng.choice(("tpe", "nsga2", "tpe", "nsga2", rng.choice(WORDS)))
        explore(found, trials=trials, sampler=sampler, seed=rng.choice((0, 1, 2**32, 2**63))).table()
    else:
        cases = [
            Case(trace, vary(machine, **point), point)
            for trace in traces for machine in chosen for point in grid_points(values)
        ]  # fmt: skip
        outcomes = sweep(cases)
        csv_text(sweep_rows(outcomes))
        sweep_table(outcomes)


@cache
def _trained() -> dict[str, Any]:
    """Return the fields of a recipe that takes a moment."""
    return {"name": "mine", "network": "mlp-100-100", "epochs": 1, "batch_size": 512, "samples": 2, "sparsity": 0.5,
            "finetune_epochs": 1, "method": "one-shot"}  # fmt: skip


def job(rng: random.Random, folder: Path) -> None:
    """Check the settings of a search, up to where it trains."""
    fields: dict[str, Any] = dict(_trained())
    if rng.random() < 0.5:
        fields = harmed(rng, fields)
        if not isinstance(fields, dict):
            return
    fitting = seeds.trace("linear")
    about = {"network": "n", "recipe": fields} if rng.random() < 0.95 else {"recipe": value(rng)}
    path = save_trace(Trace(name="t", layers=fitting.layers, provenance=about), folder / "t.safetensors")
    method = rng.choice(("netadapt", "amc", "sensitivity"))
    text = rng.choice(("latency=0.5", "energy=0.9", "edp=0.1", "cycles=1e-300"))
    drop = None
    if rng.random() < (0.5 if method == "sensitivity" else 0.05):
        text, drop = None, rng.choice((0.1, 0.1, rng.choice(ODD_FLOATS + FLOATS)))
    if rng.random() < 0.1:
        text = "".join(rng.choice(("latency", "=", "0.5", *WORDS)) for _ in range(3))
    target = read_target(text, method, drop)
    changes = {rng.choice((*fields, rng.choice(WORDS))): value(rng)} if rng.random() < 0.2 else {}
    kind = rng.choice((None, None, "channels", "sparsity", "sparsity", "nm", rng.choice(WORDS)))
    numbers = rng.choice(("2", "1,2", " 1 , 2 ", ",", "\u0662", "9" * 5000, rng.choice(WORDS)))
    Job(
        method=method, source=str(path), machine=rng.choice(_machines()), target=target,
        kind=kind, changes=changes, max_drop=drop, ns=numbers if rng.random() < 0.3 else "2",
        m=rng.choice((4, 4, 8, 2**40, 4, 1, 0, -1)),
        pe_count=rng.choice((None, 4, 4, 0, 2**40)) if kind == "sparsity" or rng.random() < 0.1 else None,
    ).checked()  # fmt: skip
    given: dict[str, Any] = {"steps": rng.choice((1, 40, 10**6, 0, -1)), "near": rng.choice((0.0, 0.02, 1.0, *FLOATS))}
    if rng.random() < 0.5:
        given |= {key: rng.choice((0.025, 0.96, *FLOATS, *ODD_FLOATS)) for key in ("reduction", "decay")}
    Settings(**given).schedule(target[1] or 0.5)


def training(rng: random.Random, folder: Path) -> None:
    """Train for a moment by a recipe whose other fields are odd, and read back what was written."""
    from gossamer.workloads.training import load_checkpoint, train
    from gossamer.workloads.training.checkpoint import checkpoint_bytes

    fields = dict(_trained())
    methods = ("dense", "one-shot", "iterative", "imp", "swamp", "slimming", "admm", "asp", "ste", "sr-ste",
               "mdgf-linear", "mdgf-exponential", "sdgf-stepwise", "sdgf-geometric")  # fmt: skip
    fields["method"] = rng.choice(methods)
    if fields["method"] in methods[7:]:
        fields |= {"n": rng.choice((1, 2)), "m": rng.choice((4, 4, 8, 100)), "sparsity": 0.0, "pad": rng.random() < 0.6}
    if fields["method"] == "dense":
        fields["sparsity"] = 0.0
    for name in rng.sample(sorted(_FIELDS), rng.choice((1, 2, 3))):
        fields[name] = rng.choice(_FIELDS[name])
    recipe = build_recipe(fields, "mine")
    most = 3 * (recipe.particles + recipe.solo_levels + 1) * (recipe.epochs + recipe.finetune_epochs + 1)
    long = recipe.dense_epochs > 9 or recipe.admm_rounds * recipe.admm_epochs > 9 or recipe.swa_epochs > 2
    if most > 40 or recipe.rate < 0.1 or long:
        return  # an honest wish that takes its time
    run = train(recipe)
    data = checkpoint_bytes(run)
    (folder / "c.checkpoint.safetensors").write_bytes(data)
    assert checkpoint_bytes(load_checkpoint(folder / "c.checkpoint.safetensors")) == data
    save_trace(run.trace, folder / "t.safetensors")


_FIELDS: dict[str, tuple[Any, ...]] = {
    "learning_rate": (1e-300, 1e-30, 0.1, 10.0, 1e6, 1e7), "momentum": (0.0, 0.9999999, 0.5),
    "weight_decay": (0.0, 1e-30, 1.0, 1e6, 1e7), "l1": (0.0, 1e-3, 1e6), "scale_l1": (0.0, 1.0, 1e6),
    "sparsity": (0.0, 0.5, 0.999, 1 - 1e-12, 1e-300), "rate": (0.2, 0.9, 0.999999),
    "strategy": ("magnitude-global", "magnitude-layer", "balanced", "block", "equal-blocks", "vector", "kernel",
                 "channel", "pattern"),
    "pe_count": (None, 1, 3, 4096, 2**31, 2**31 - 1), "scope": (None, "pe", "pe-column"),
    "block": (None, [1, 1], [4, 4], [7, 3], [2**31 - 1, 1]), "vector": (None, 1, 4, 2**31 - 1),
    "patterns": (None, 1, 8, 2**31 - 1),
    "rho": (0.3, 1e-300, 1e6), "batch_size": (512, 1024, 2**31 - 1), "optimizer": ("sgd", "adam"),
    "schedule": ("constant", "cosine", "multistep"), "milestones": ([], [1], [2**31 - 1], [1, 1], [1] * 99),
    "gamma": (0.1, 1e6, 1e-300), "finetune_learning_rate": (0.01, 1e6), "samples": (1, 2, 8, 10**6, 2**31 - 1),
    "test_fraction": (0.2, 1e-300, 0.999999999, 0.5), "seed": (0, 2**31, 2**32, 2**63 - 1, 2**64),
    "split_seed": (0, 2**32 - 1, 2**32, 2**63), "exclude": ([], ["*"], ["fc1"], ["fc*", "x"], [MARK]),
    "control": ("none", "reinitialised", "shuffled", "random"), "rewind_step": (0, 1, 5, 2**31 - 1),
    "n": (None, 1, 2, 2**31 - 1), "m": (None, 4, 100, 2**31 - 1), "axis": (0, 1, 2, 2**31 - 1), "pad": (True, False),
    "particles": (1, 2, 0), "swa_epochs": (0, 1, 2**31 - 1), "swa_learning_rate": (0.05, 1e6), "decay": (2e-4, 1e6),
    "sr_decay": (2e-4, 1e6), "threads": (1, 2, 2**31 - 1), "device": ("cpu", "cuda"), "data": ("digits", "mnist", "x"),
    "network": ("mlp-100-100", "lenet-300-100", "convnet-digits", "lstm-64", "pointnet", "x"),
    "prune_output": (True, False), "dense_epochs": (0, 1, 2**31 - 1), "solo_levels": (0, 1, 2**31 - 1),
    "admm_rounds": (1, 4, 2**31 - 1), "admm_epochs": (1, 2, 2**31 - 1), "true_derivative": (True, False),
}  # fmt: skip


def address(rng: random.Random, folder: Path) -> None:
    """Ask for a cluster at an address that may be one; some of them are looked for."""
    hosts = ("127.0.0.1", "[::1]", "localhost", "a" * 300, "..", "a..b", "%s", "\u5c42.invalid", "256.0.0.1", "[::", "")
    port = rng.choice(("1", "1", "1", "0", "65535", "65536", "99999", "\u0661", "", "x", "-1", "9" * 5000))
    host = rng.choice(hosts) if rng.random() < 0.7 else rng.choice(WORDS)
    text = (
        rng.choice(("tcp", "tcp", "tcp", "tls", "ws", "http", "")) + rng.choice(("://", "://", ":")) + f"{host}:{port}"
    )
    if rng.random() < 0.1:
        text = rng.choice(WORDS)
    check_address(text)
    if rng.random() < 0.05 and port == "1" and host not in WORDS:
        cluster = Cluster(text)
        try:
            with mock.patch("gossamer.simulator.cluster.ANSWER_S", 0.2):
                list(cluster.run([Case(seeds.trace("linear"), load_machine("eie-64pe", pe_count=2))]))
        finally:
            cluster.close()


def shown(rng: random.Random, folder: Path) -> None:
    """Show, plot and compare results with odd names, and ask for what is not there."""
    kind = rng.randrange(5)
    if kind == 0:
        word = rng.choice((*WORDS, "eie-64pe", "eie-45nm-event", "result"))
        rng.choice((schema_of, machine_constants, table_constants, sources_table))(word)
        return
    made = fuzz_tables._results()
    trees = [harmed(rng, one) if rng.random() < 0.5 else one for one in rng.sample(made, rng.choice((1, 2, 3)))]
    names = [word for word in WORDS if word.isprintable() and word]
    for tree in trees:
        if isinstance(tree, dict) and isinstance(tree.get("trace"), dict) and rng.random() < 0.5:
            tree["trace"] = tree["trace"] | {"name": rng.choice(names)}
        if isinstance(tree, dict) and isinstance(tree.get("machine"), dict) and rng.random() < 0.5:
            tree["machine"] = tree["machine"] | {"name": rng.choice(names)}
    results = read_inputs([_written(rng, folder, trees)]).results
    if kind == 1:
        path = folder / rng.choice(("p.svg", "p.png", "p.svg", "p.x", "p", "no/p.svg"))
        fields = ("pe_count", "queue_depth", "x", *names)
        over = rng.choice(fields) if rng.random() < 0.3 else None
        draw(rng.choice((*KINDS, "x")) if over is None else "sweep", results, path, over=over)
        if path.suffix == ".svg":
            assert MARK not in path.read_text(), "text of a file stands in a picture as it is"
        path.unlink()
    elif kind == 2:
        made_page = report_html(results, rng.choice(WORDS), failed=[rng.choice(WORDS)])
        assert MARK not in made_page, "text stands in a page as it is"
    else:
        pairs_table(results)
        for each in gains(results):
            gains_table(each)
        page(results, (), rng.choice(WORDS))


def _written(rng: random.Random, folder: Path, trees: list[Any]) -> Path:
    path = folder / "r.json"
    path.write_bytes(fuzz_tables.json_bytes(rng, trees))
    return path


def compared(rng: random.Random, folder: Path) -> None:
    """Compare traces whose provenance is odd on machines that may refuse them."""
    kinds = ("linear", "coded", "conv2d", "lstm", "matmul", "knn", "n:m")
    traces = []
    for place in range(rng.choice((1, 2, 3))):
        about: Any = harmed(rng, {"network": "n", "accuracy": 0.5, "sparsity": 0.5, "recipe": {"name": "r", "n": [1]}})
        layer = Layer(name="a", **seeds.layers()[rng.choice(kinds)])
        named = rng.choice((f"t{place}", "t", rng.choice(WORDS)))
        traces.append(Trace(name=named, layers=[layer], provenance=about if isinstance(about, dict) else {}))
    machines = rng.sample(_machines(), rng.choice((1, 2)))
    pattern = rng.choice((None, None, None, "a", "x"))
    results, refused = compare_all(machines, traces, layers=pattern, strict=rng.random() < 0.3)
    pairs_table(results, refused)
    for one in gains(results):
        gains_table(one)
    assert MARK not in report_html(results), "text stands in a page as it is"
    page(results, refused, "gossamer compare")


def prepare() -> None:
    """Make what is damaged, before any case of it is watched, and import what trains and draws."""
    import matplotlib.pyplot  # noqa: F401  # it makes folders of its own

    fuzz_tables._results()
    _machines()
    _warm()


@cache
def _warm() -> None:
    """Do once what takes its time the first time."""
    from gossamer.workloads.training import train

    small = Space([seeds.trace("linear")], [load_machine("eie-64pe")], {"pe_count": range(1, 40)}, vary)
    for act in (
        lambda: train(build_recipe(_trained(), "mine")),
        lambda: Cluster("tcp://127.0.0.1:1").close(),
        lambda: explore(small, trials=2),
    ):
        with contextlib.suppress(InputError):  # of an extra that is not installed
            act()


TARGETS = (
    Target("space", space, 20, limit_s=20, opens=True),
    Target("job", job, 30, limit_s=10, opens=True),
    Target("training", training, 3, limit_s=60, opens=True),
    Target("address", address, 20, limit_s=20, opens=True),
    Target("shown", shown, 20, limit_s=20, opens=True),
    Target("compared", compared, 30, limit_s=20),
)

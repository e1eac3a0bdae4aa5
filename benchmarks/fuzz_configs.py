"""Every field of every machine's configuration at values that nobody chose, for `fuzz`."""

from __future__ import annotations

import contextlib
import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import fuzz_seeds as seeds
import msgspec
from fuzz import Target
from fuzz_damage import FLOATS, NUMBERS, ODD_FLOATS, WORDS, toml_text, value

from gossamer.models import list_machines, load_machine, vary
from gossamer.reports.ranges import parse_range
from gossamer.reports.reading import check_result
from gossamer.reports.terminal import parse_grid, parse_set, settings
from gossamer.simulator import simulate
from gossamer.simulator.machine import OPS, Machine
from gossamer.simulator.result import Result
from gossamer.workloads.errors import InputError

OF_OP = {
    "linear": ("linear", "coded", "n:m"), "conv2d": ("conv2d", "kernels", "grouped"), "lstm": ("lstm",),
    "matmul": ("matmul",), "sparse_conv3d": ("sparse_conv3d", "downsampling"),
    "point_op": ("knn", "ball_query", "quantise", "fps"),
}  # fmt: skip


@cache
def _machines() -> tuple[Machine, ...]:
    return tuple(load_machine(name) for name in list_machines())


@cache
def _words() -> dict[str, list[str]]:
    """Return the words that fields of this name have in any machine, and the energy tables."""
    found: dict[str, set[str]] = {}
    for machine in _machines():
        for name, item in msgspec.structs.asdict(machine.config).items():
            if isinstance(item, str):
                found.setdefault(name, set()).add(item)
    return {name: sorted(words) for name, words in found.items()}


def _value(rng: random.Random, name: str, old: Any) -> Any:
    """Return a value for the field ``name``: mostly of its kind, often at an edge."""
    if rng.random() < 0.12:
        return value(rng)
    if isinstance(old, bool):
        return rng.choice((True, False))
    if isinstance(old, int):
        return rng.choice(
            (rng.randrange(0, 9), rng.randrange(0, 70), 1 << rng.randrange(24), old + 1, old - 1, rng.choice(NUMBERS))
        )
    if isinstance(old, float):
        near = (old * 2, old / 3, rng.random(), 10 ** rng.uniform(-26, 26), 1, 0)
        return rng.choice((*near, *near, rng.choice(FLOATS), rng.choice(ODD_FLOATS)))
    words = [*_words()[name], "dense", "2:4", "sorted", "fp16", "int8"]
    return rng.choice(words) if rng.random() < 0.7 else rng.choice(WORDS)


def _typed(item: Any) -> str:
    """Return ``item`` as one types it."""
    if isinstance(item, bool):
        return str(item).lower()
    try:
        return str(item)
    except RecursionError:
        return "[" * 2000


def _varied(rng: random.Random, folder: Path, machine: Machine) -> Machine:
    """Return ``machine`` with one to four fields changed, by one of the ways there are."""
    config = msgspec.structs.asdict(machine.config)
    fields = rng.sample(sorted(config), min(rng.choice((1, 1, 2, 2, 3, 4)), len(config)))
    changes = {name: _value(rng, name, config[name]) for name in fields}
    if rng.random() < 0.03:
        changes[rng.choice(WORDS)] = 1
    way = rng.randrange(6)
    if way == 0:
        path = folder / "mine.toml"
        path.write_text(f"base = {json.dumps(machine.name)}\n" + toml_text(changes), errors="surrogatepass")
        return load_machine(path)
    if way == 1:
        return load_machine(machine.name, **settings([f"{k}={_typed(v)}" for k, v in changes.items()], parse_set))
    if way == 2:
        grid = settings([f"{k}={_typed(v)},{_typed(config.get(k, 1))}" for k, v in changes.items()], parse_grid)
        return vary(machine, **{name: values[0] for name, values in grid.items()})
    if way == 3:
        name, last = fields[0], rng.choice(("", ":2", ":log2", ":0", ":1e-9", ":x"))
        _, values = parse_range(f"{name}={_typed(rng.choice((0, 1, changes[name])))}:{_typed(changes[name])}{last}")
        return vary(machine, **{name: values[rng.randrange(len(values))]})
    return vary(machine, **changes)


def _kinds(machine: Machine) -> list[str]:
    return [kind for op in getattr(machine.engines, "OPS", OPS) for kind in OF_OP[op]]


def _run(machine: Machine, kind: str, engine: str) -> None:
    result = simulate(machine, seeds.trace(kind), engine=engine)
    again = msgspec.json.decode(result.to_json(), type=Result)  # what is written can be read
    try:
        check_result(again, "result")
    except InputError as error:
        raise AssertionError(f"a result that was written is refused: {error}") from None


def config(rng: random.Random, folder: Path) -> None:
    machine = _varied(rng, folder, rng.choice(_machines()))
    _run(machine, rng.choice(_kinds(machine)), "fast")


def config_event(rng: random.Random, folder: Path) -> None:
    """Step the units of a machine whose configuration passed: of those that are not too large to step."""
    machine = _varied(rng, folder, rng.choice(_machines()))
    if all(abs(item) < 5000 for name, item in msgspec.structs.asdict(machine.config).items()
           if isinstance(item, int) and not name.endswith("bytes")):  # fmt: skip
        _run(machine, rng.choice(_kinds(machine)), "event")


def range_text(rng: random.Random, folder: Path) -> None:
    """Read what might be a setting, a grid or a range."""
    parts = (
        "pe_count",
        "=",
        "=",
        ":",
        ",",
        "1",
        "2",
        "1e9",
        "1e99",
        "0.1",
        "log2",
        "-1",
        "_",
        "inf",
        "nan",
        "\n",
        "#",
        '"',
        "[",
        "]",
        *WORDS,
    )
    text = "".join(rng.choice(parts) for _ in range(rng.randrange(1, 8)))
    parse = rng.choice((parse_set, parse_grid, parse_range, parse_range))
    key, values = parse(text if rng.random() < 0.3 else f"k={text}")
    assert isinstance(key, str)
    if parse is parse_range:
        assert len(values) <= 2**63


def prepare() -> None:
    """Load every machine, and run each once, so that its kernels are compiled."""
    for machine in _machines():
        for kind in _kinds(machine):
            with contextlib.suppress(InputError):  # torchsparse runs some searches among points only
                _run(machine, kind, "fast")


TARGETS = (
    Target("config", config, 220, limit_s=20),
    Target("config-event", config_event, 15, limit_s=60),
    Target("range", range_text, 60),
)

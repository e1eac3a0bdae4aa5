"""Traces of numbers that nobody expects, on every machine, its timelines and its checks, for `fuzz`."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path
from typing import Any

import fuzz_seeds as seeds
import msgspec
import numpy as np
from fuzz import Target
from fuzz_configs import _kinds, _machines, _run
from fuzz_damage import NUMBERS, WORDS

from gossamer.models import vary
from gossamer.reports.perfetto import perfetto_json
from gossamer.reports.reading import check_result
from gossamer.reports.terminal import parse_window
from gossamer.reports.vcd import vcd_text
from gossamer.simulator import simulate
from gossamer.simulator.check import check
from gossamer.simulator.machine import Machine
from gossamer.simulator.result import Result
from gossamer.simulator.timeline import Timeline
from gossamer.workloads import load_trace, save_trace
from gossamer.workloads.errors import InputError
from gossamer.workloads.trace import Layer, Trace

EDGES = (0.0, -0.0, 1.0, -1.0, 1e-45, -1e-38, 1e-20, 65504.0, 65536.0, 1e10, -1e14, 2.0**48)  # each may be in a trace
ODD = (float("nan"), float("inf"), float("-inf"), 2.0**49, 1e30, -3.4028235e38)  # none may


def _extreme(rng: random.Random, array: np.ndarray) -> np.ndarray:
    """Return ``array`` of the same kind and shape with numbers from the ends of its type, or all alike."""
    made, flat_rng = array.copy(), np.random.default_rng(rng.randrange(2**32))
    if array.dtype.kind in "iu":
        ends = np.iinfo(array.dtype)
        pool: tuple[Any, ...] = (0, 1, 2, ends.max, ends.min, ends.max // 2, 2**20 if ends.max > 2**20 else 3)
    elif array.dtype.kind == "b":
        pool = (True, False)
    else:
        pool = EDGES if rng.random() < 0.95 else EDGES + ODD
    kind = rng.randrange(5)
    if kind == 0:
        made[...] = rng.choice(pool)
    elif kind == 1 and array.dtype.kind == "f":
        with np.errstate(all="ignore"):
            made *= made.dtype.type(rng.choice((1e-45, 1e-40, 1e-20, 1e-8, 1e-3, 1e3, 1e8, 1e13, 1e30)))
    else:
        share = rng.choice((0.02, 0.3, 1.0))
        chosen = flat_rng.random(array.shape) < share
        values = np.array([rng.choice(pool) for _ in range(int(chosen.sum()))]).astype(array.dtype)
        made[chosen] = np.where(array[chosen] == 0, 0, values) if rng.random() < 0.6 else values
    return made


def _layer(rng: random.Random, kind: str, name: str) -> Layer:
    given = dict(seeds.layers()[kind])
    arrays = [key for key, item in given.items() if isinstance(item, np.ndarray)]
    for key in rng.sample(arrays, min(rng.choice((1, 1, 2)), len(arrays))):
        given[key] = _extreme(rng, given[key])
    return Layer(name=name, **given)


def _trace(rng: random.Random, machine: Machine) -> Trace:
    names = rng.sample(WORDS, 2) if rng.random() < 0.15 else ["a", "b"]
    kinds = [rng.choice(_kinds(machine)) for _ in range(rng.choice((1, 1, 2)))]
    return Trace(name="odd", layers=[_layer(rng, kind, name) for kind, name in zip(kinds, names, strict=False)])


def _functional(rng: random.Random) -> Machine:
    """Return a machine, computing values where it can."""
    machine = rng.choice(_machines())
    return vary(machine, functional=True) if "functional" in machine.config.__struct_fields__ else machine


def _written(result: Result) -> None:
    again = msgspec.json.decode(result.to_json(), type=Result)
    try:
        check_result(again, "result")
    except InputError as error:
        raise AssertionError(f"a result that was written is refused: {error}") from None


def numbers(rng: random.Random, folder: Path) -> None:
    """Simulate a trace of odd numbers, and read it again from its file now and then."""
    machine = _functional(rng)
    trace = _trace(rng, machine)
    if rng.random() < 0.2:
        trace = load_trace(save_trace(trace, folder / "t.safetensors"))
    _written(simulate(machine, trace, engine="fast" if rng.random() < 0.9 else "event"))


def checked(rng: random.Random, folder: Path) -> None:
    """Check both engines on a trace of odd numbers: whatever the numbers, the figures are the same."""
    machine = _functional(rng)
    for found in check(machine, _trace(rng, machine)):
        assert not found.differences, f"{machine.name}: {found.differences[0]}"
        assert found.numbers_agree, f"{machine.name}: {found.max_abs_error} of {found.max_abs_reference}"


def timeline(rng: random.Random, folder: Path) -> None:
    """Write the timeline of an odd window of layers with odd names."""
    if rng.random() < 0.3:
        text = "".join(rng.choice(("", ":", ":", "0", "5", "70", "\u0663", "-", "9" * 18, *WORDS)) for _ in range(4))
        start, end = parse_window(text)
    else:
        start = rng.choice((0, 0, 3, 50, 700, -1, 2**62, rng.choice(NUMBERS)))
        end = rng.choice((None, None, 4, 60, 5000, 2**63, rng.choice(NUMBERS)))
    seen = Timeline(start=start, end=end, limit=rng.choice((0, 20, 500, 10**6, 10**6, 10**6)))
    machine = rng.choice(_machines())
    with contextlib.suppress(InputError):
        machine = vary(machine, clock_hz=rng.choice((1e9, 1e9, 3.0, 1e-24, 1e24, 1.41e9, 1e15 / 3, 7e17)))
    names = rng.sample([word for word in WORDS if (word and word.isprintable()) or rng.random() < 0.02], 2)
    kinds = [rng.choice(_kinds(machine)) for _ in names]
    layers = [Layer(name=name, **seeds.layers()[kind]) for name, kind in zip(names, kinds, strict=True)]
    simulate(machine, Trace(name="t", layers=layers), engine="event", timeline=seen)
    title = rng.choice([word for word in WORDS if "\ud800" not in word])  # the command line refuses such names
    clock_hz = getattr(machine.config, "clock_hz", 1e9)
    json.loads(perfetto_json(seen, clock_hz=clock_hz, name=title))
    vcd_text(seen, clock_hz=clock_hz, name=title)
    seen.warnings()


def prepare() -> None:
    """Load every machine, and run each once with both engines, so that its kernels are compiled."""
    for machine in _machines():
        for kind in _kinds(machine):
            for engine in ("fast", "event"):
                with contextlib.suppress(InputError):  # torchsparse runs some searches among points only
                    _run(machine, kind, engine)


TARGETS = (
    Target("numbers", numbers, 100, limit_s=20),
    Target("checked", checked, 15, limit_s=60),
    Target("timeline", timeline, 15, limit_s=60),
)

"""Random command lines, for `fuzz`: every command and option that there is, with words that fit and that do not."""

from __future__ import annotations

import contextlib
import io
import random
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import fuzz_readers
import fuzz_seeds as seeds
import fuzz_tables
import typer
from fuzz import Target
from fuzz_damage import WORDS

from gossamer.__main__ import app, main
from gossamer.workloads import save_trace
from gossamer.workloads.errors import InputError

FILES = (
    "t.safetensors", "lstm.safetensors", "points.safetensors", "w.npz", "w.safetensors", "m.mtx", "m.smtx", "c.ply",
    "c.npy", "c.off",
    "mine.toml", "r.json", "s.sqlite", "c.checkpoint.safetensors", "broken.safetensors", "broken.json", "dump", ".",
    "none.npz",
    "out.json", "out.csv", "out.png", "out.html", "out.safetensors", "out.vcd", "out.md", "out.npy", "no/out.json", "-",
)  # fmt: skip
NAMES = (
    "lenet-digits-imp", "lenet-*", "eie-64pe", "eie-*", "ese", "pointacc", "spatten", "a100-sparse", "systolic-8x8",
    "all", "x*",
    "pointnet", "minkunet-small", "lenet-digits-oneshot", "machines", "traces", "eie", "netadapt", "amc", "sensitivity",
)  # fmt: skip
TEXTS = (
    "pe_count=4", "queue_depth=2", "pe_count=1,2", "pe_count=1:4", "pe_count=1:8:log2", "queue_depth=2:4:0.5",
    "pe_count=0",
    "x=1", "pe_count", "=", "l*", "fc1", "fast", "event", "0:100", "5:", ":", "7:7", "latency=0.5", "cycles=2",
    "32x32", "0x1", "9" * 5000 + "x1", "0,0,1," + "9" * 5000, "9" * 5000 + ":4", "\u0662:4",
    "2:4", "V:1:2", "random:0.5", "dense", "tpe", "nsga2", ".png", "balanced", "global", "causes", "summary",
    "pe_count>=2",
    "0.5", "0.75,0.5", "1,2,3,4", "0,0,2,2", "chair", "channels", "tcp://127.0.0.1:1", "tcp://x", "nm", "--help",
    "--", "-x",
)  # fmt: skip
NUMBERS = (
    "0",
    "1",
    "2",
    "3",
    "0.5",
    "1e-3",
    "-1",
    "1e308",
    "nan",
    "inf",
    "99999999999",
    "18446744073709551616",
    "1_0",
    "0x10",
    "",
)
HEAVY = (  # what a command line leads to that takes its time: it is enough to get there
    "gossamer.workloads.training.train", "gossamer.reports.search.run_job", "gossamer.reports.demo.run_demo",
    "gossamer.reports.validate.validations", "gossamer.simulator.pool.Pool", "gossamer.simulator.cluster.Cluster",
    "gossamer.reports.diagnose.diagnosis_of", "gossamer.workloads.points.lidar", "gossamer.workloads.points.room",
)  # fmt: skip


class ReachedError(InputError):
    """The command line led to work that takes its time."""


def _reached(*arguments: Any, **options: Any) -> Any:
    raise ReachedError("reached the work")


@cache
def _commands() -> list[tuple[tuple[str, ...], list[Any]]]:
    """Return the words of each command and its parameters."""
    found, stack = [], [((), typer.main.get_command(app))]
    while stack:
        words, command = stack.pop()
        inner = getattr(command, "commands", {})
        found += [] if inner else [(words, command.params)]
        stack += [((*words, name), each) for name, each in inner.items()]
    return sorted(found, key=lambda pair: pair[0])


def _word(rng: random.Random, parameter: Any) -> str:
    kind = rng.randrange(10)
    if kind == 0:
        return rng.choice(WORDS)
    if kind == 1:
        return rng.choice(FILES + NAMES + TEXTS + NUMBERS)
    name = str(
        getattr(getattr(parameter, "type_descriptor", None), "annotation", getattr(parameter, "type", ""))
    ).lower()
    if "int" in name or "float" in name or "range" in name:
        return rng.choice(NUMBERS)
    if "path" in name:
        return rng.choice(FILES)
    if parameter.param_type_name == "argument" or parameter.name in ("on", "trace", "network"):
        return rng.choice(FILES + NAMES)
    return rng.choice(TEXTS)


def _arguments(rng: random.Random) -> list[str]:
    words, parameters = rng.choice(_commands())
    line = list(words)
    wanted = 0.25 if rng.random() < 0.7 else 0.05
    for parameter in parameters:
        is_argument = parameter.param_type_name == "argument"
        if not (is_argument or parameter.required or rng.random() < wanted) or rng.random() < 0.03:
            continue
        for _ in range(rng.choice((1, 1, 1, 2)) if parameter.multiple or parameter.nargs == -1 else 1):
            line += [] if is_argument else [rng.choice(parameter.opts)]
            line += [] if getattr(parameter, "is_flag", False) else [_word(rng, parameter)]
    if rng.random() < 0.1:
        line.insert(rng.randrange(len(line) + 1), rng.choice(WORDS + TEXTS))
    return line


def _folder(folder: Path) -> None:
    """Make the files that command lines name, where they are not there."""
    if (folder / "t.safetensors").exists():
        return
    save_trace(seeds.trace("linear", "coded", "conv2d"), folder / "t.safetensors")
    save_trace(seeds.trace("lstm"), folder / "lstm.safetensors")
    save_trace(seeds.trace("sparse_conv3d", "knn"), folder / "points.safetensors")
    files = {
        "w.npz": seeds.npz(seeds.masked_arrays()[1]), "w.safetensors": seeds.container_files()[0],
        "m.mtx": seeds.MTX[0],
        "m.smtx": seeds.SMTX[0], "c.ply": seeds.PLY[0], "c.npy": seeds.npy(seeds.np.ones((4, 3))),
        "c.off": seeds.OFF[0],
        "mine.toml": b'base = "eie-64pe"\npe_count = 4\n',
        "r.json": fuzz_tables.json.dumps(fuzz_tables._results()[0]).encode(),
        "s.sqlite": fuzz_tables._store(), "c.checkpoint.safetensors": fuzz_tables._checkpoint(),
        "broken.safetensors": seeds.trace_files()[0][:-3], "broken.json": b"{",
    }  # fmt: skip
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "dump").mkdir(exist_ok=True)


@contextlib.contextmanager
def _without_heavy_work() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for place in HEAVY:
            stack.enter_context(mock.patch(place, _reached))
        yield


def command_line(rng: random.Random, folder: Path) -> None:
    for path in folder.glob("*"):
        if path.name not in FILES or path.name.startswith("out."):
            fuzz_readers.remove(path)
    _folder(folder)
    line = _arguments(rng)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _without_heavy_work():
        status = main(line)
    said = err.getvalue()
    assert status in (0, 1, 2), f"status {status} of {line}"
    assert "Traceback" not in said, f"{line}: {said}"
    if status == 2 and line:
        lines = said.splitlines()
        told = [each for each in lines if not each.startswith("gossamer: warning: ")]
        assert len(told) == 1 and told[0].startswith("gossamer: error: "), f"{line}: {said[:300]!r}"
        raise InputError(told[0])
    assert not list(folder.glob(".*.part")), f"{line} left a half-written file"


def prepare() -> None:
    """Make what command lines name, and import what they need."""
    for module in (fuzz_readers, fuzz_tables):
        module.prepare()
    for place in HEAVY:
        __import__(place.rpartition(".")[0])
    sys.argv = ["gossamer"]


TARGETS = (Target("command-line", command_line, 40, limit_s=60, opens=True),)

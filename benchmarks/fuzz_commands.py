"""Random command lines, for `fuzz`: lines that fit, the same with damage, and words put together blindly.

A line that fits is from `fuzz_lines`. It must do its work and write what it was told to; whatever a line has in it, it
may write nothing outside of its folder but to a place that it names, and there it finds that it may not.
"""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import json
import os
import random
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import fuzz_configs
import fuzz_files
import fuzz_lines
import fuzz_models
import fuzz_readers
import fuzz_tables
import msgspec
import typer
from fuzz import Target
from fuzz_damage import MARK, WORDS, damaged
from fuzz_damage import NUMBERS as LARGE

from gossamer.__main__ import app, main
from gossamer.simulator.machine import Machine
from gossamer.workloads.errors import InputError
from gossamer.workloads.trace import Layer

PLACES = (
    "dump", ".", "none.npz", "out.json", "out.csv", "out.png", "out.html", "out.safetensors", "out.vcd", "out.md",
    "out.npy", "out.sqlite", "no/out.json", "-",
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
    "0", "1", "2", "3", "0.5", "1e-3", "-1", "1e308", "nan", "inf", "99999999999", "18446744073709551616", "1_0",
    "0x10", "",
)  # fmt: skip
DIGITS = "0123456789"
HEAVY = (  # what a command line leads to that takes its time: it is enough to get there
    "gossamer.workloads.training.train", "gossamer.reports.search.run_job", "gossamer.reports.demo.run_demo",
    "gossamer.reports.validate.validations", "gossamer.simulator.pool.Pool", "gossamer.simulator.cluster.Cluster",
    "gossamer.reports.diagnose.diagnosis_of", "gossamer.workloads.points.lidar", "gossamer.workloads.points.room",
)  # fmt: skip
REACHED = "reached the work"
WRITTEN = ("--json", "--csv", "--out", "--timeline", "--plot", "--page", "--parquet", "--whole")  # a place comes next


def _reached(*arguments: Any, **options: Any) -> Any:
    raise InputError(REACHED)


_run = Machine.run


def _stepped(machine: Machine, layer: Layer, engine: str, *rest: Any) -> Any:
    """Run ``layer`` on ``machine``, unless stepping its units takes long."""
    given, config = layer.inputs, msgspec.structs.asdict(machine.config)
    if engine == "event" and (
        (given is not None and given.size // given.shape[1 if layer.op == "conv2d" else -1] > 100)
        or any(type(item) is int and item >= 5000 and not name.endswith("bytes") for name, item in config.items())
    ):
        _reached()
    return _run(machine, layer, engine, *rest)


@cache
def commands() -> list[tuple[tuple[str, ...], list[Any]]]:
    """Return the words of each command and its parameters."""
    found, stack = [], [((), typer.main.get_command(app))]
    while stack:
        words, command = stack.pop()
        inner = getattr(command, "commands", {})
        found += [] if inner else [(words, command.params)]
        stack += [((*words, name), each) for name, each in inner.items()]
    return sorted(found, key=lambda pair: pair[0])


@cache
def _files() -> tuple[str, ...]:
    return (*sorted(fuzz_files.files()), *PLACES)


def _word(rng: random.Random, parameter: Any) -> str:
    kind = rng.randrange(10)
    if kind == 0:
        return rng.choice(WORDS)
    if kind == 1:
        return _any_word(rng)
    name = str(
        getattr(getattr(parameter, "type_descriptor", None), "annotation", getattr(parameter, "type", ""))
    ).lower()
    if "int" in name or "float" in name or "range" in name:
        return rng.choice(NUMBERS)
    if "path" in name:
        return rng.choice(_files())
    if parameter.param_type_name == "argument" or parameter.name in ("on", "trace", "network"):
        return rng.choice(_files() + NAMES)
    return rng.choice(TEXTS)


def _any_word(rng: random.Random) -> str:
    return rng.choice(_files() + NAMES + TEXTS + NUMBERS)


def _blind(rng: random.Random) -> list[str]:
    """Return a line of any command with any words, about as many as it takes."""
    words, parameters = rng.choice(commands())
    line = list(words)
    wanted = 0.25 if rng.random() < 0.7 else 0.05
    for parameter in parameters:
        is_argument = parameter.param_type_name == "argument"
        if not (is_argument or parameter.required or rng.random() < wanted) or rng.random() < 0.03:
            continue
        for _ in range(rng.choice((1, 1, 1, 2)) if parameter.multiple or parameter.nargs == -1 else 1):
            line += _given(rng, parameter)
    if rng.random() < 0.1:
        line.insert(rng.randrange(len(line) + 1), rng.choice(WORDS + TEXTS))
    return line


def _given(rng: random.Random, parameter: Any) -> list[str]:
    """Return the words by which a line gives ``parameter`` a value."""
    named = [] if parameter.param_type_name == "argument" else [rng.choice(parameter.opts)]
    return named if getattr(parameter, "is_flag", False) else [*named, _word(rng, parameter)]


def _harmed(rng: random.Random, line: list[str], folder: Path) -> list[str]:
    """Return ``line`` with one to three of its words changed, or a file that it names."""
    line = list(line)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if not line:
            return line
        kind, at = rng.randrange(16), rng.randrange(len(line))
        if kind == 0:
            del line[at]
        elif kind == 1:
            line[at:at] = line[at : at + rng.choice((1, 2))]
        elif kind == 2:
            other = rng.randrange(len(line))
            line[at], line[other] = line[other], line[at]
        elif kind == 3:
            line[at] = _any_word(rng)
        elif kind == 4:
            line.insert(at, _any_word(rng))
        elif kind == 5:
            line[at] = damaged(rng, line[at].encode("utf-8", "surrogatepass")).decode("utf-8", "surrogateescape")
        elif kind < 8:
            line[at] = rng.choice(WORDS)
        elif kind < 10:
            parameters = next((known for words, known in commands() if list(words) == line[: len(words)]), [])
            line += _given(rng, rng.choice(parameters)) if parameters else []
        elif kind < 13:
            numbers = [place for place, word in enumerate(line) if any(sign in DIGITS for sign in word)]
            if numbers:
                at = rng.choice(numbers)
                line[at] = _renumbered(rng, line[at])
        else:
            named = [word for word in line if word in fuzz_files.files()]
            if named:
                fuzz_files.harm(rng, folder / rng.choice(named))
    return line


def _renumbered(rng: random.Random, word: str) -> str:
    """Return ``word`` with another number in the place of one that it has."""
    run = rng.choice(list(re.finditer("[0-9]+", word)))
    number = rng.choice((str(rng.choice(LARGE)), str(rng.randrange(300)), rng.choice(NUMBERS)))
    return word[: run.start()] + number + word[run.end() :]


_kept: list[str] = []  # the folder that a line may write in, while one runs
_strayed: list[str] = []  # what it tried to write elsewhere


def _guard(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse what would write outside of the folder of the line that runs, as a system would: an audit hook."""
    if not _kept or event not in ("open", "os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.link", "os.symlink",
                                  "os.truncate", "sqlite3.connect"):  # fmt: skip
        return
    if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return
    for place in arguments[:2] if event in ("os.rename", "os.link", "os.symlink") else arguments[:1]:
        if not isinstance(place, (str, bytes, os.PathLike)):
            continue
        path = os.path.abspath(os.fsdecode(place).removeprefix("file:"))  # noqa: PTH100
        if path.startswith(_kept[0]) or "__pycache__" in path or path == os.devnull:
            continue
        if event == "sqlite3.connect" and (os.path.exists(path) or os.fsdecode(place) == ":memory:"):  # noqa: PTH110
            continue
        _strayed.append(f"{event} {path!r}")
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


@contextlib.contextmanager
def _within(folder: Path) -> Iterator[None]:
    """Let what runs here do no heavy work, and write nothing outside of ``folder``."""
    _strayed.clear()
    _kept.append(str(folder))
    try:
        with contextlib.ExitStack() as stack:
            for place in HEAVY:
                stack.enter_context(mock.patch(place, _reached))
            stack.enter_context(mock.patch.object(Machine, "run", _stepped))
            yield
    finally:
        _kept.clear()


def run_line(line: list[str], folder: Path) -> tuple[int, str, str]:
    """Return the exit status of ``line`` and what it wrote to standard output and error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _within(folder):
        status = main(line)
    sys.modules.pop("net", None)
    return status, out.getvalue(), err.getvalue()


def command_line(rng: random.Random, folder: Path) -> None:
    fuzz_files.put_back(folder)
    kind = rng.random()
    line = _blind(rng) if kind < 0.1 else fuzz_lines.line(rng)
    if kind > 0.5:
        line = _harmed(rng, line, folder)
    status, out, err = run_line(line, folder)
    assert status in (0, 1, 2), f"status {status} of {line}"
    assert "Traceback" not in err, f"{line}: {err}"
    named = any(os.sep in word or ".." in word for word in line)
    assert named or not _strayed, f"{line} would write where it was not told to: {_strayed[0]}"
    assert not list(folder.glob(".*.part")), f"{line} left a half-written file"
    for path in folder.glob("*.[hs][tv]*"):
        assert not path.is_file() or MARK.encode() not in path.read_bytes(), f"{line}: text stands in {path.name} as is"
    if status == 2 and line:
        told = [each for each in err.splitlines() if not each.startswith("gossamer: warning: ")]
        assert len(told) == 1 and told[0].startswith("gossamer: error: "), f"{line}: {err[:300]!r}"
        if not told[0].endswith(REACHED):
            raise InputError(told[0])
    elif 0.1 <= kind <= 0.5:
        _check_written(line, out, folder)


def _check_written(line: list[str], out: str, folder: Path) -> None:
    """See that a line that fits has written what it was to."""
    for option, place in itertools.pairwise(line):
        if (option, place) == ("--json", "-"):
            json.loads(out)
        elif option in WRITTEN:
            assert (folder / place).exists(), f"{line}: {option} {place} was not written"
            if place.endswith(".json"):
                json.loads((folder / place).read_bytes())


@cache
def _guarded() -> None:
    """Set up the guard, once: an audit hook stays."""
    sys.addaudithook(_guard)


def prepare() -> None:
    """Make what command lines name, import what they need, and run every machine once."""
    for module in (fuzz_readers, fuzz_tables, fuzz_models, fuzz_configs):
        module.prepare()
    fuzz_files.files()
    for place in HEAVY:
        __import__(place.rpartition(".")[0])
    sys.argv = ["gossamer"]
    _guarded()


TARGETS = (Target("command-line", command_line, 40, limit_s=60, opens=True),)

"""Hostile input: damaged files, absurd configurations and random command lines, many of each.

    python benchmarks/fuzz.py [--cases N] [--seed S] [--target NAME ...] [--case I] [--jobs J]

A case is wrong if it ends in anything but a result or an InputError of one line (on the command line: in exit status 0,
1, or 2 with one line), if it warns, takes longer than its target allows, asks for more memory than the limits in
docs/reference/traces.md explain, or opens a file that is neither its own nor the program's. Times are those of the
processor, so that others at work on the machine change no verdict; only one that waits without end is stopped by the
clock, after a minute and eight times what its target allows, and ends the target. Prints, a target, how many cases ran,
how many were refused and how many wrong, with the first wrong one; ``--case`` runs one of them alone, with its
traceback. Each case depends on seed, target and number alone. Exit status 1 where any was wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

GROUPS = (
    "fuzz_readers",
    "fuzz_tables",
    "fuzz_configs",
    "fuzz_commands",
    "fuzz_models",
    "fuzz_values",
    "fuzz_made",
    "fuzz_searches",
)
ALLOWED_BYTES = 3 << 29  # more than a case may add to the address space
CEILING_BYTES = 12 << 30  # of the whole process: nothing beyond it is ever handed out
SCARCE = ("must fit in memory", "Unable to allocate", "MemoryError")


class HangError(BaseException):
    """A case took longer than it may."""


@dataclass(frozen=True)
class Target:
    """``run`` makes and runs the case that a generator draws, in a folder; it may take ``limit_s`` of the processor.

    ``share``: of the cases of all targets. ``opens``: whether it may open files outside of its folder.
    """

    name: str
    run: Callable[[random.Random, Path], None]
    share: int = 1
    limit_s: float = 5.0
    opens: bool = False


@dataclass
class Tally:
    """What became of the cases of a target; ``first``: the first wrong case and what was wrong with it."""

    target: str
    done: int = 0
    refused: int = 0
    wrong: int = 0
    first: str = ""
    slowest_s: float = 0.0


def targets() -> dict[str, Target]:
    """Return all targets by name."""
    found = [target for group in GROUPS for target in importlib.import_module(group).TARGETS]
    return {target.name: target for target in found}


def prepare(name: str) -> None:
    """Make what the target called ``name`` damages, before any case of it is watched."""
    for group in GROUPS:
        module = importlib.import_module(group)
        if any(target.name == name for target in module.TARGETS):
            module.prepare()


_opened: list[str] = []
_watched: list[tuple[str, ...]] = []  # the folders that a case may open files in, while one runs


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    try:
        if not _watched or event not in ("open", "os.mkdir", "os.remove", "os.rename", "sqlite3.connect"):
            return
    except RecursionError:  # whoever goes that deep opens nothing there
        return
    if event == "open" and isinstance(arguments[0], int):
        return
    path = os.fsdecode(arguments[0]) if isinstance(arguments[0], (str, bytes)) else ""
    if path and path not in (":memory:", os.devnull) and not os.path.abspath(path).startswith(_watched[0]):  # noqa: PTH100
        _opened.append(f"{event} {path!r}")


@contextlib.contextmanager
def _guarded(target: Target, folder: Path) -> Iterator[None]:
    """Let what runs here neither open what is not its own, nor warn, nor run on and on."""
    roots = [
        str(folder),
        sys.prefix,
        sys.base_prefix,
        str(Path(__file__).resolve().parents[1]),
        "/proc",
        "/sys",
        "/usr",
        "/dev",
    ]
    roots += [str(Path(place).resolve()) for place in sys.path if place] + [
        os.environ.get("NUMBA_CACHE_DIR", sys.prefix)
    ]
    _opened.clear()
    if not target.opens:
        _watched.append(tuple(roots))
    faulthandler.dump_traceback_later(60 + 8 * target.limit_s, exit=True)  # where even Python's own code does not stop
    before = signal.signal(signal.SIGPROF, _hang)
    signal.setitimer(signal.ITIMER_PROF, target.limit_s)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        faulthandler.cancel_dump_traceback_later()
        _watched.clear()


def _hang(number: int, frame: object) -> None:
    raise HangError


def _peak_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmPeak"):
            return int(line.split()[1]) << 10
    return 0


def run_case(target: Target, seed: int, number: int, folder: Path) -> tuple[bool, str]:
    """Return whether the input was refused, and what is wrong with how the case ended; "" for nothing."""
    from gossamer.workloads.errors import InputError

    rng = random.Random(f"{seed}/{target.name}/{number}")
    before, begin = _peak_bytes(), time.process_time()
    refused, wrong = False, ""
    try:
        with _guarded(target, folder):
            target.run(rng, folder)
    except InputError as error:
        text, refused = str(error), True
        if not text.strip() or not text.isprintable():
            wrong = f"a message of more than one line: {text!r:.300}"
        elif any(word in text for word in SCARCE):
            wrong = f"asked for too much memory: {text:.300}"
    except HangError:
        wrong = f"took more than {target.limit_s} s"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        wrong = f"{type(error).__name__}: {str(error)[:300]!r} at {Path(frame.filename).name}:{frame.lineno}"
    if time.process_time() - begin > target.limit_s:  # where nobody passed on what `_hang` raised
        wrong = wrong or f"took more than {target.limit_s} s"
    if _opened:
        wrong = wrong or f"opened what is not its own: {_opened[0]}"
    if _peak_bytes() - before > ALLOWED_BYTES:
        wrong = wrong or f"asked for {(_peak_bytes() - before) >> 20:,} MiB"
    return refused, wrong


def run_target(
    target: Target, cases: int, seed: int, folder: Path, log: Callable[[str], None] = lambda line: None
) -> Tally:
    """Return the tally of the first ``cases`` cases of ``target``; ``log`` is told of every wrong one."""
    tally = Tally(target.name)
    for number in range(cases):
        log(f"@{number}")
        begin = time.process_time()
        refused, wrong = run_case(target, seed, number, folder)
        tally.slowest_s = max(tally.slowest_s, time.process_time() - begin)
        tally.done += 1
        tally.refused += refused
        if wrong:
            tally.wrong += 1
            tally.first = tally.first or f"case {number}: {wrong}"
            log(f"!{number}: {wrong}")
    return tally


def _inside(name: str, cases: int, seed: int) -> None:
    """Run one target in this process, and tell of it on standard output: what the process of `main` reads."""
    prepare(name)
    sys.addaudithook(_audit)
    resource.setrlimit(resource.RLIMIT_AS, (CEILING_BYTES, CEILING_BYTES))
    out = os.fdopen(os.dup(1), "w", buffering=1)  # a case may close or fill the other
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        tally = run_target(targets()[name], cases, seed, Path(folder).resolve(), lambda line: print(line, file=out))
        print(f"={tally.done} {tally.refused} {tally.slowest_s}", file=out)
        os.chdir("/")


def _outside(name: str, cases: int, seed: int) -> Tally:
    """Return the tally of a target that runs in a process of its own; one that ends it is wrong, and the last."""
    command = [sys.executable, __file__, "--inside", name, "--cases", str(cases), "--seed", str(seed)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    environment.setdefault("MPLCONFIGDIR", tempfile.gettempdir())
    tally, at = Tally(name), 0
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, env=environment) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("@"):
                at = int(line[1:])
            elif line.startswith("!"):
                tally.wrong += 1
                tally.first = tally.first or f"case {line[1:].strip()}"
                print(f"{name}: case {line[1:].strip()}", flush=True)
            elif line.startswith("="):
                done, refused, slowest = line[1:].split()
                tally.done, tally.refused, tally.slowest_s = int(done), int(refused), float(slowest)
        if process.wait() != 0:
            said.seek(0)
            tally.done, tally.wrong = at + 1, tally.wrong + 1
            tally.first = tally.first or f"case {at}: the process ended with status {process.returncode}"
            print(f"{name}: case {at} ended the process:\n{said.read()[-3000:]}", flush=True)
    return tally


def main(cases: int, seed: int, names: list[str], jobs: int) -> int:
    """Run the targets, ``cases`` in all by their shares; return the exit status."""
    known = targets()
    chosen = [known[name] for name in names or known]
    in_all = sum(target.share for target in chosen)
    counts = {target.name: max(1, -(-cases * target.share // in_all)) for target in chosen}
    begin = time.monotonic()
    with ThreadPoolExecutor(jobs) as pool:
        tallies = list(pool.map(lambda target: _outside(target.name, counts[target.name], seed), chosen))
    print(f"{'target':<16}{'cases':>9}{'refused':>9}{'wrong':>7}{'slowest':>10}")
    for tally in tallies:
        print(
            f"{tally.target:<16}{tally.done:>9,}{tally.refused:>9,}{tally.wrong:>7,}{tally.slowest_s:>8.2f} s"
            f"  {tally.first}"
        )
    done, wrong = sum(tally.done for tally in tallies), sum(tally.wrong for tally in tallies)
    print(f"{done:,} cases, seed {seed}, {time.monotonic() - begin:.0f} s: {wrong:,} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.modules["fuzz"] = sys.modules["__main__"]  # the groups of targets import it by that name
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=100_000, help="of all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", action="append", default=[], metavar="NAME")
    parser.add_argument("--case", type=int, help="run this case of the one --target alone")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside is not None:
        _inside(given.inside, given.cases, given.seed)
    elif given.case is not None:
        with tempfile.TemporaryDirectory() as place:
            os.chdir(place)
            targets()[given.target[0]].run(
                random.Random(f"{given.seed}/{given.target[0]}/{given.case}"), Path(place).resolve()
            )
            os.chdir("/")
    else:
        sys.exit(main(given.cases, given.seed, given.target, given.jobs))

"""Kill a sweep at random moments, resume it each time, and compare its table with that of an unbroken one.

    python benchmarks/killed_sweep.py [KILLS] [SEED]

Prints how many cases were stored when each run was killed; exit status 1 where the tables differ.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

GRID = (
    f"pe_count={','.join(map(str, range(1, 41)))}", "queue_depth=2,3,4,6,8,12,16,24,32,64",
    "entries_per_row=1,2,4,8,16", "index_bits=2,3,4,5,6",
)  # fmt: skip


def command(folder: Path, name: str, grid: Sequence[str]) -> list[str]:
    """Return the sweep that keeps its results in NAME.sqlite and writes NAME.csv."""
    out = [f"--store={folder / f'{name}.sqlite'}", f"--csv={folder / f'{name}.csv'}", "--workers=2"]
    return [sys.executable, "-m", "gossamer", "sweep", "lenet-digits-imp", *(f"--grid={one}" for one in grid), *out]


def stored(path: Path) -> int:
    """Count the cases in the store at ``path``, which a killed sweep may not have begun."""
    if not path.exists():
        return 0
    with contextlib.closing(sqlite3.connect(path, timeout=60)) as database:
        tables = database.execute("select count(*) from sqlite_master where name = 'cases'").fetchone()[0]
        return int(database.execute("select count(*) from cases").fetchone()[0]) if tables else 0


def kills_and_resumes(folder: Path, kills: int, rng: random.Random, grid: Sequence[str]) -> list[int]:
    """Return how many cases were stored at each kill; the table of the last, whole run is broken.csv in ``folder``.

    Every other run is killed at any moment after its start, the rest when some more cases are in the store.
    """
    path = folder / "broken.sqlite"
    whole = stored(folder / "whole.sqlite")
    held = [0]
    for kill in range(kills):
        goal = held[-1] + rng.randint(1, max(1, whole // kills)) if kill % 2 == 0 else whole
        until = time.monotonic() + (60 if kill % 2 == 0 else rng.uniform(0, 3))
        with subprocess.Popen(
            command(folder, "broken", grid), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while process.poll() is None and time.monotonic() < until and stored(path) < goal:
                time.sleep(rng.uniform(0, 0.02))
            process.kill()
        held.append(stored(path))
    subprocess.run(command(folder, "broken", grid), check=True, stdout=subprocess.DEVNULL)
    return held[1:]


def main(kills: int = 10, seed: int = 0, grid: Sequence[str] = GRID) -> int:
    """Return the exit status: 0 where the tables are the same."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(command(folder, "whole", grid), check=True, stdout=subprocess.DEVNULL)
        print(f"unbroken: {stored(folder / 'whole.sqlite'):,} cases")
        held = kills_and_resumes(folder, kills, random.Random(seed), grid)
        print("stored at each kill:", ", ".join(f"{cases:,}" for cases in held))
        tables = [(folder / f"{name}.csv").read_bytes() for name in ("whole", "broken")]
    print("the tables are the same" if tables[0] == tables[1] else "THE TABLES DIFFER")
    return 0 if tables[0] == tables[1] else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))

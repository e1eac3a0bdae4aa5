"""Kill a sweep at random moments, resume it each time, and compare its table with that of an unbroken one.

    python benchmarks/killed_sweep.py [KILLS] [SEED] [WORKERS]

The moments are drawn evenly over the whole sweep, by how many of its cases are in the store. Prints the moments, and
how many cases were stored when each run was killed; exit status 1 where the tables differ.
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


def command(folder: Path, name: str, grid: Sequence[str], workers: int = 2) -> list[str]:
    """Return the sweep that keeps its results in NAME.sqlite and writes NAME.csv."""
    out = [f"--store={folder / f'{name}.sqlite'}", f"--csv={folder / f'{name}.csv'}", f"--workers={workers}"]
    return [sys.executable, "-m", "gossamer", "sweep", "lenet-digits-imp", *(f"--grid={one}" for one in grid), *out]


def stored(path: Path) -> int:
    """Count the cases in the store at ``path``, which a killed sweep may not have begun."""
    if not path.exists():
        return 0
    with contextlib.closing(sqlite3.connect(path, timeout=60)) as database:
        tables = database.execute("select count(*) from sqlite_master where name = 'cases'").fetchone()[0]
        return int(database.execute("select count(*) from cases").fetchone()[0]) if tables else 0


def kills_and_resumes(
    folder: Path, kills: int, rng: random.Random, grid: Sequence[str], workers: int = 2
) -> tuple[list[int], list[int]]:
    """Return the moments that were drawn, in cases stored, and how many were when each run was killed.

    Every run goes on from the one before, and the last one to the end: its table is broken.csv in ``folder``. Two
    moments may be one: then nothing is won between them.
    """
    path = folder / "broken.sqlite"
    whole = stored(folder / "whole.sqlite")
    moments = sorted(rng.randrange(whole) for _ in range(kills))
    held = []
    for moment in moments:
        with subprocess.Popen(
            command(folder, "broken", grid, workers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while process.poll() is None and stored(path) < moment:
                time.sleep(rng.uniform(0, 0.02))
            time.sleep(rng.uniform(0, 0.05))  # not always between two commits
            process.kill()
        held.append(stored(path))
    subprocess.run(command(folder, "broken", grid, workers), check=True, stdout=subprocess.DEVNULL)
    return moments, held


def main(kills: int = 10, seed: int = 0, workers: int = 2, *, grid: Sequence[str] = GRID) -> int:
    """Return the exit status: 0 where the tables are the same."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begin = time.monotonic()
        subprocess.run(command(folder, "whole", grid, workers), check=True, stdout=subprocess.DEVNULL)
        print(f"unbroken: {stored(folder / 'whole.sqlite'):,} cases, {time.monotonic() - begin:.1f} s")
        moments, held = kills_and_resumes(folder, kills, random.Random(seed), grid, workers)
        print("kills drawn at:", ", ".join(f"{cases:,}" for cases in moments))
        print("stored at each kill:", ", ".join(f"{cases:,}" for cases in held))
        tables = [(folder / f"{name}.csv").read_bytes() for name in ("whole", "broken")]
    print("the tables are the same" if tables[0] == tables[1] else "THE TABLES DIFFER")
    return 0 if tables[0] == tables[1] else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))

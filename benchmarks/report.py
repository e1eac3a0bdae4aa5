"""Print what a report of many results costs: ``python benchmarks/report.py [RESULTS]``.

Results (100 unless said) of ten layers each on 256 PEs, each with a queue depth of its own: seconds to write the page,
its size, and, where playwright and Chromium are installed, milliseconds until a fresh tab has drawn it: the median of
seven, with the first and the slowest. Exit status 1 where 100 results take 5 MB or 2 s, which are the limits.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import msgspec

from gossamer.models import load_machine
from gossamer.reports.html import write_report
from gossamer.simulator import simulate
from gossamer.simulator.result import Result
from gossamer.workloads.synth import random_layer

MOST_BYTES, MOST_MS = 5_000_000, 2_000
DRAWN = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))"


def results(count: int) -> list[Result]:
    """Return so many results, each with ten layers and a config of its own."""
    base = simulate(load_machine("eie-256pe"), random_layer(300, 200, 0.1, 0.4, name="pruned"))
    layers = [msgspec.structs.replace(base.layers[0], name=f"stage{place}.conv") for place in range(10)]
    config = base.machine.config
    return [
        msgspec.structs.replace(
            base, layers=layers, machine=msgspec.structs.replace(base.machine, config=config | {"queue_depth": depth})
        )
        for depth in range(2, 2 + count)
    ]


def drawn_ms(path: Path) -> list[float]:
    """Return milliseconds until a fresh tab has drawn the page, seven times; nothing without a browser."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        found = None
    if found is None:
        return []
    times = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        for _ in range(7):
            page = browser.new_page(viewport={"width": 1200, "height": 800})
            page.goto(path.as_uri())
            times.append(float(page.evaluate(DRAWN)))
            page.close()
        browser.close()
    return times


def main(count: int) -> int:
    """Measure, print, and return the exit status."""
    made = results(count)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        path = write_report(made, Path(folder) / "report.html")
        seconds, size = time.perf_counter() - start, path.stat().st_size
        times = drawn_ms(path)
    print(f"{count} results: written in {seconds:.2f} s, {size / 1e6:.2f} MB")
    if times:
        print(f"drawn in {median(times):.0f} ms (first {times[0]:.0f}, slowest {max(times):.0f})")
    else:
        print("not drawn: playwright or Chromium is not installed")
    return int(count <= 100 and (size >= MOST_BYTES or (bool(times) and median(times) >= MOST_MS)))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100))

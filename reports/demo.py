"""The demonstration: what the package does, told once on bundled data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import RenderableType
from rich.text import Text

from ..models import load_machine, vary
from ..simulator import simulate
from ..simulator.check import check
from ..simulator.store import Store
from ..simulator.sweep import Case, sweep
from ..simulator.timeline import Timeline
from ..workloads.files.container import write_beside
from ..workloads.load import load_trace
from ..workloads.synth import eie_layer
from .html import report_html
from .perfetto import perfetto_json
from .plots import plot_causes, plot_sweep
from .published import read_paper
from .tables import compare_rows, compare_table, csv_text, layer_rows, result_table, sweep_rows, sweep_table
from .verdicts import engines_table

DENSE, NAIVE, BALANCED = "lenet-digits-dense", "lenet-digits-imp", "lenet-digits-imp-balanced"
PE_COUNTS = (1, 4, 16, 64, 128, 256)


def run_demo(folder: Path) -> Iterator[RenderableType]:
    """Yield the story's parts, ready to print; tables, plots and a timeline are written to ``folder`` on the way."""
    written = []

    def write(name: str, data: bytes) -> None:
        written.append(write_beside(folder / name, data))

    eie, dense_array = load_machine("eie-64pe"), load_machine("systolic-16x16")
    dense, naive, balanced = (load_trace(name) for name in (DENSE, NAIVE, BALANCED))

    yield _heading(f"1. A pruned network on EIE: gossamer simulate {NAIVE} --on eie-64pe")
    result = simulate(eie, naive)
    write("simulate.json", result.to_json().encode())
    write("simulate.csv", csv_text(layer_rows(result)).encode())
    yield result_table(result)

    command = f"gossamer compare {DENSE} {NAIVE} {BALANCED} --on {dense_array.name} --on {eie.name}"
    yield _heading(f"2. Dense, pruned, pruned with balance: {command}")
    results = [simulate(machine, trace) for machine in (dense_array, eie) for trace in (dense, naive, balanced)]
    on_eie = results[3:]
    write("compare.csv", csv_text(compare_rows(results)).encode())
    yield compare_table(results)
    written.append(plot_causes(on_eie, folder / "compare.png"))
    write("report.html", report_html(results).encode())

    counts = ",".join(map(str, PE_COUNTS))
    yield _heading(f"3. More processing elements: gossamer sweep {NAIVE} {BALANCED} --grid pe_count={counts}")
    cases = [
        Case(trace, vary(eie, pe_count=count), {"pe_count": count})
        for trace in (naive, balanced)
        for count in PE_COUNTS
    ]  # fmt: skip
    with Store(folder / "sweep.sqlite") as store:
        outcomes = sweep(cases, store=store)
    written.append(folder / "sweep.sqlite")
    write("sweep.csv", csv_text(sweep_rows(outcomes)).encode())
    yield sweep_table(outcomes)
    written.append(plot_sweep(outcomes, "pe_count", folder / "sweep.png"))

    yield _heading("4. Beside a published figure: gossamer synth eie alex-7 --out F, gossamer simulate F")
    alex = simulate(eie, eie_layer("alex-7"))
    assert alex.total.energy_j is not None
    published = next(layer["actual_us"] for layer in read_paper("eie")["layers"]["layer"] if layer["name"] == "Alex-7")
    yield Text(
        f"AlexNet FC7 (4096 x 4096, 9 % of weights, 35.3 % of activations; random weights: the real ones are not "
        f"public)\n{alex.total.cycles:,} cycles = {alex.total.latency_s * 1e6:.1f} us; published {published} "
        f"us (Han et al., ISCA 2016, Table IV); {alex.total.energy_j.total * 1e6:.2f} uJ\n"
        "All published figures: gossamer validate eie"
    )

    yield _heading(f"5. Both engines agree: gossamer check {NAIVE}")
    yield engines_table(check(eie, naive))

    yield _heading(f"6. Down to the cycle: gossamer simulate {NAIVE} --layer fc1 --engine event --timeline F.json")
    timeline = Timeline()
    simulate(eie, naive, layers="fc1", engine="event", timeline=timeline)
    write("timeline.json", perfetto_json(timeline, clock_hz=eie.config.clock_hz, name=f"{NAIVE} on {eie.name}"))
    yield Text("Every PE, the broadcaster and the queues, cycle by cycle: open it at https://ui.perfetto.dev.")

    yield _heading("Written")
    yield Text("\n".join(str(path) for path in written))


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold cyan")

"""Every pruning of a network on every machine: one row a pair, and what each pruning gains on each machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.text import Text

from ..simulator import simulate
from ..simulator.machine import Machine
from ..simulator.result import Result
from ..workloads.errors import InputError
from ..workloads.trace import Trace
from .cells import Format, figures, new_table, percent, small_percent, times
from .comparison import accuracy_of, compare_rows, dense_results, network_of

PAIR_COLUMNS: tuple[tuple[str, str, Format], ...] = (
    ("accuracy", "acc.\n%", percent),
    ("sparsity", "sparse\n%", percent),
    ("storage_bits", "storage\nKiB", lambda bits: f"{bits / 8192:,.1f}"),
    ("cycles_per_sample", "cycles\na sample", figures),
    ("utilization", "util\n%", small_percent),
    ("load_balance", "bal.\n%", percent),
    ("energy_per_sample_uj", "energy\nuJ", figures),
    ("energy_delay_pjs", "E x D\npJ s", figures),
    ("speedup_over_dense", "over\ndense", times),
)


class Refusal(NamedTuple):
    """A pair that could not be simulated, and why."""

    trace: str
    machine: str
    reason: str


class Gains(NamedTuple):
    """What each pruning of one network gains over the dense network on the same machine.

    ``speed`` and ``energy`` hold a ratio by (trace, machine), above 1 where the pruning wins; a pair without one could
    not be simulated, or has no energy.
    """

    network: str
    dense: str
    traces: list[str]
    machines: list[str]
    accuracy: dict[str, float | None]
    sparsity: dict[str, float]
    speed: dict[tuple[str, str], float]
    energy: dict[tuple[str, str], float]


def compare_all(
    machines: Sequence[Machine],
    traces: Sequence[Trace],
    *,
    layers: str | None = None,
    strict: bool = True,
    progress: Callable[[int, int, str], None] = lambda done, all_, what: None,
) -> tuple[list[Result], list[Refusal]]:
    """Return the results of every pair, machine by machine, and the pairs that a machine refuses.

    Raises InputError for the first refusal where ``strict``, and where no pair is left.
    """
    results: list[Result] = []
    refused: list[Refusal] = []
    pairs = [(machine, trace) for machine in machines for trace in traces]
    for done, (machine, trace) in enumerate(pairs):
        progress(done, len(pairs), f"{trace.name} on {machine.name}")
        try:
            results.append(simulate(machine, trace, layers=layers))
        except InputError as error:
            if strict or len(refused) + 1 == len(pairs):
                raise
            refused.append(Refusal(trace.name, machine.name, str(error)))
    return results, refused


def gains(results: Sequence[Result]) -> list[Gains]:
    """Return the gains within each network of which ``results`` hold a dense trace and another."""
    dense = dense_results(results)
    found = []
    for network in dict.fromkeys(network for network, _ in dense):
        own = [result for result in results if network_of(result) == network]
        machines = [machine for name, machine in dense if name == network]
        speed, energy = {}, {}
        for result in own:
            pair, baseline = (result.trace.name, result.machine.name), dense.get((network, result.machine.name))
            if baseline is not None and result.total.latency_s:
                speed[pair] = _per_sample(baseline, _latency) / _per_sample(result, _latency)
            if baseline is not None and _energy(baseline) and _energy(result):
                energy[pair] = _per_sample(baseline, _energy) / _per_sample(result, _energy)
        traces = list(dict.fromkeys(result.trace.name for result in own))
        if len(traces) > 1:
            found.append(Gains(
                network, dense[network, machines[0]].trace.name, traces, machines,
                {result.trace.name: accuracy_of(result) for result in own},
                {result.trace.name: result.trace.sparsity for result in own}, speed, energy,
            ))  # fmt: skip
    return found


def pairs_table(results: Sequence[Result], refused: Sequence[Refusal] = ()) -> RenderableType:
    """Return one row a pair, machine by machine, then the gains of each network, then what could not be simulated."""
    tables: list[RenderableType] = []
    rows = compare_rows(results)
    for machine in dict.fromkeys(row["machine"] for row in rows):
        own = [row for row in rows if row["machine"] == machine]
        names = {row["energy_table"] for row in own if row["energy_table"]}
        table = new_table(f"on {machine}" + (f" (energy table {', '.join(sorted(names))})" if names else ""))
        table.add_column("trace", overflow="fold")
        shown = [column for column in PAIR_COLUMNS if any(row.get(column[0]) is not None for row in own)]
        for _, heading, _ in shown:
            table.add_column(heading, justify="right", no_wrap=True)
        for row in own:
            cells = ("" if row.get(name) is None else form(row[name]) for name, _, form in shown)
            table.add_row(row["trace"], *cells)
        tables.append(table)
    tables += [gains_table(found) for found in gains(results)]
    return Group(*tables, *refusal_notes(refused))


def gains_table(found: Gains) -> RenderableType:
    """Return the speed-up of each pruning over the dense network, machine by machine, the best of a machine in bold."""
    table = new_table(f"{found.network}: speed-up over {found.dense} on the same machine")
    table.add_column("machine", no_wrap=True)
    others = [trace for trace in found.traces if trace != found.dense]
    short = dict(zip(others, short_names(others), strict=True))
    for trace in others:
        table.add_column(short[trace].replace("-", "-\n"), justify="right", overflow="fold")
    for machine in found.machines:
        ratios = {trace: found.speed.get((trace, machine)) for trace in others}
        best = _best(ratios.values())
        cells = (_shown(ratio) for ratio in ratios.values())
        table.add_row(machine, *(Text(cell, style="bold" if cell == best else "") for cell in cells))
    return table


def refusal_notes(refused: Sequence[Refusal]) -> list[Text]:
    """Return one line for each machine and reason, with the traces that it holds for."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for trace, machine, reason in refused:
        by_reason.setdefault((machine, _without_trace(reason, trace)), []).append(trace)
    return [
        Text(f"Not on {machine}: {', '.join(traces) if len(traces) < 4 else f'{len(traces)} traces'}: {reason}")
        for (machine, reason), traces in by_reason.items()
    ]


def page(results: Sequence[Result], refused: Sequence[Refusal], command: str) -> str:
    """Return the gains as a page of Markdown: which sparsity pays on which hardware.

    It holds, for each network, a table of the prunings (accuracy, sparsity), one of speed-ups and one of energy over
    the dense network on the same machine, each machine's best in bold, and what could not be simulated, with reasons.
    """
    lines = [
        "# Which sparsity for which hardware", "",
        "Every pruning of one network on every machine that can run it. A figure is what the pruned network gains",
        "over the dense one **on the same machine**: 2.00 is twice as fast, or half the energy. Machines differ in",
        "size, clock and technology, so figures compare along a row, not down a column. The page is written by", "",
        f"    {command}", "",
    ]  # fmt: skip
    for found in gains(results):
        others = [trace for trace in found.traces if trace != found.dense]
        lines += [f"## {found.network}", "", "### The prunings", ""]
        lines += _markdown(
            ("trace", "accuracy, %", "sparsity, %"),
            [(t, _percent(found.accuracy[t]), percent(found.sparsity[t])) for t in found.traces],
        )
        for title, ratios in (("Speed-up", found.speed), ("Energy saved", found.energy)):
            if not ratios:
                continue
            lines += [f"### {title} over {found.dense}", ""]
            rows = []
            for machine in found.machines:
                own = {trace: ratios.get((trace, machine)) for trace in others}
                best = _best(own.values())
                cells = [_shown(ratio) for ratio in own.values()]
                if any(ratio is not None for ratio in own.values()):
                    rows.append((machine, *(f"**{cell}**" if cell == best else cell for cell in cells)))
            lines += _markdown(("machine", *short_names(others)), rows)
    if refused:
        lines += ["## What could not be run", ""]
        lines += [f"- {note.plain}" for note in refusal_notes(refused)] + [""]
    return "\n".join(lines)


def short_names(names: Sequence[str]) -> list[str]:
    """Return ``names`` without the words, split at hyphens, with which all of them begin."""
    words = [name.split("-") for name in names]
    common = 0
    while len(names) > 1 and all(len(each) > common + 1 and each[common] == words[0][common] for each in words):
        common += 1
    return ["-".join(each[common:]) for each in words]


def _latency(result: Result) -> float:
    return result.total.latency_s


def _energy(result: Result) -> float:
    return 0.0 if result.total.energy_j is None else result.total.energy_j.total


def _per_sample(result: Result, figure: Callable[[Result], float]) -> float:
    return figure(result) / result.samples


def _without_trace(reason: str, trace: str) -> str:
    return reason.removeprefix(f"{trace}: ")


def _percent(value: float | None) -> str:
    return "\u2013" if value is None else percent(value)


def _shown(ratio: float | None) -> str:
    return "\u2013" if ratio is None else times(ratio)


def _best(ratios: Iterable[float | None]) -> str | None:
    """Return the best of ``ratios`` as it is shown, so that equal cells are alike; None where nothing wins."""
    best = times(max((ratio for ratio in ratios if ratio is not None), default=0.0))
    return best if best != times(1.0) and float(best.replace(",", "")) > 1 else None


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [heads, ["---", *("---:" for _ in heads[1:])], *rows]
    return ["| " + " | ".join(line) + " |" for line in lines] + [""]

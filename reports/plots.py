"""Plots of sweeps and results, written whole as .png, .svg or .pdf.

Colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..simulator.result import LayerResult, Result
from ..simulator.sweep import Outcome
from ..workloads.errors import InputError
from ..workloads.files.container import write_beside
from .rows import Row, sweep_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#999999",
)  # fmt: skip
FILLS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW, GREY)
LINES = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY, "black", GREY)
MARKERS = "osD^vPX"  # one fewer than colours: 56 lines differ in one or the other
LEGEND_CHARACTERS = 36  # longer names stand one below the other
CAUSES = {
    "busy": BLUE, "compute": BLUE, "padding": ORANGE, "empty": YELLOW, "starved": RED, "drained": PURPLE,
    "act_sram": GREEN, "load": ORANGE, "fill_drain": SKY, "memory": RED,
}  # fmt: skip
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "hatch.color": "white",
    "svg.hashsalt": "gossamer",
}


def plot_sweep(outcomes: Sequence[Outcome], x: str, path: str | Path) -> Path:
    """Return ``path``, which now shows what the setting ``x`` does: speed-up, balance, padding and energy.

    One line a trace, machine and combination of the other settings. Speed-ups are over the first finished case of the
    line; over ``pe_count`` the ideal is drawn as well. Raises InputError where no finished case has the setting.
    """
    path = plot_path(path)
    lines = _lines(outcomes, x)
    if not lines:
        known = ", ".join(dict.fromkeys(name for outcome in outcomes for name in outcome.case.settings)) or "none"
        raise InputError(f"{path}: a plot over {x!r} needs a finished case with that setting; settings: {known}")
    panels = [
        ("speedup", "speed-up", 1.0),
        ("load_balance", "load balance, %", 100.0),
        ("padding_ratio", "padding of entries, %", 100.0),
        ("energy_uj", "energy, uJ", 1.0),
    ]
    rows = [row for line in lines.values() for row in line]
    panels = [panel for panel in panels if any(row.get(panel[0]) for row in rows)]
    values = list(dict.fromkeys(row[x] for row in rows))
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    legend_columns = 2 if max(map(len, lines)) <= LEGEND_CHARACTERS else 1
    height = 2.7 * -(-len(panels) // 2) + 0.22 * -(-(len(lines) + 1) // legend_columns)
    with drawing(path, 3.3 * min(2, len(panels)), height) as figure:
        axes = np.ravel(figure.subplots(-(-len(panels) // 2), min(2, len(panels)), squeeze=False))
        for ax, (column, title, scale) in zip(axes, panels, strict=False):
            if column == "speedup" and x == "pe_count":
                ends = np.array([min(values), max(values)], float)
                ax.plot(ends, ends / values[0], color=GREY, linestyle="--", linewidth=1, label="ideal")
            for index, (name, line) in enumerate(lines.items()):
                shown = [row for row in line if row.get(column) is not None]
                if numeric:
                    shown.sort(key=lambda row: row[x])
                ax.plot(
                    [row[x] if numeric else str(row[x]) for row in shown],
                    [scale * row[column] for row in shown],
                    color=LINES[index % len(LINES)],
                    marker=MARKERS[index % len(MARKERS)],
                    markersize=4,
                    clip_on=False,
                    label=name,
                )
            ax.set_title(title, loc="left")
            ax.set_xlabel(x)
            if numeric:
                _scale_x(ax, values)
            if column == "speedup" and numeric and max(row[column] for row in rows) > 8:
                _powers(ax.yaxis, ax.set_yscale)
            else:
                ax.set_ylim(0, 100 if column == "load_balance" else None)
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=legend_columns)
    return path


def plot_causes(results: Sequence[Result], path: str | Path) -> Path:
    """Return ``path``, which now shows where the cycles and the energy of ``results`` went: one bar each, stacked.

    Cycles are those of the machine's computing units, per unit: the length of a bar is the result's time in cycles.
    """
    path = plot_path(path)
    _demand(results, path)
    alike = len({result.machine.name for result in results}) == 1
    names = [result.trace.name if alike else f"{result.trace.name}\n{result.machine.name}" for result in results]
    cycles = [_cycles_by_cause(result) for result in results]
    energies = [
        {} if result.total.energy_j is None else {k: v * 1e6 for k, v in result.total.energy_j.by_part.items()}
        for result in results
    ]
    tables = list(dict.fromkeys(r.total.energy_j.table for r in results if r.total.energy_j is not None))
    labels = max(len(_labels(cycles)), len(_labels(energies)))
    with drawing(path, 11, 0.9 + max(0.55 * len(results), 0.2 * labels)) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        _stack(left, names, cycles, CAUSES, "cycles a unit, by cause")
        _stack(right, names, energies, {}, "energy by part, uJ")
        left.set_title(f"on {results[0].machine.name}" if alike else "", loc="left")
        right.set_title(" and ".join(tables) + " (do not compare)" * (len(tables) > 1), loc="left")
        left.invert_yaxis()
    return path


def plot_load(result: Result | Sequence[Result], path: str | Path) -> Path:
    """Return ``path``, which now shows the cycles in which each unit works; several results stand below one another.

    Work is useful, padding, or an empty column; the line is the mean, and what lies above it others wait for.
    """
    path = plot_path(path)
    results = [result] if isinstance(result, Result) else list(result)
    _demand(results, path)
    with drawing(path, 7.5, 0.5 + 1.9 * len(results)) as figure:
        axes = np.ravel(figure.subplots(len(results), 1, sharey=True, squeeze=False))
        for ax, one in zip(axes, results, strict=True):
            kind, loads = _loads(one.layers)
            total = sum(loads.values(), np.zeros(1))
            base = np.zeros(len(total))
            for cause, cycles in loads.items():
                ax.bar(np.arange(len(total)), cycles, 0.85, bottom=base, color=CAUSES.get(cause, GREY), label=cause)
                base = base + cycles
            mean, most = float(total.mean()), float(total.max())
            ax.axhline(mean, color="black", linewidth=1)
            over = f", fullest {100 * (most / mean - 1):.1f} % above the mean" if mean else ""
            ax.set_title(f"{one.trace.name} on {one.machine.name}: mean {mean:,.0f} cycles{over}", loc="left")
            ax.set_ylabel("working cycles")
            ax.grid(axis="x", visible=False)
            ax.set_xlim(-0.7, len(total) - 0.3)
            ax.yaxis.set_major_formatter("{x:,.0f}")
        axes[-1].set_xlabel({"pe": "PE"}.get(kind, kind))
        found = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=4)
    return path


def plot_path(path: str | Path) -> Path:
    """Return ``path``, whose suffix is that of a kind of plot. Raises InputError for any other."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: a plot's name must end in {', '.join(SUFFIXES)}, not {path.suffix!r}; rename it")
    return path


def _demand(results: Sequence[Result], path: Path) -> None:
    if not results:
        raise InputError(f"{path}: a plot needs at least one result, not 0")


@contextmanager
def drawing(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Yield a figure of ``width`` x ``height`` inches; write it to ``path`` when all is drawn."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        kind = path.suffix.lower()[1:]
        dateless: dict[str, Any] = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
        data = io.BytesIO()
        figure.savefig(data, format=kind, metadata=dateless[kind])
    write_beside(path, data.getvalue())


def _lines(outcomes: Sequence[Outcome], x: str) -> dict[str, list[Row]]:
    """Return the rows of finished cases that have the setting ``x`` by the name of their line, speed-ups per line."""
    rows = [
        row | {"case": outcome.case}
        for row, outcome in zip(sweep_rows(outcomes), outcomes, strict=True)
        if outcome.result is not None and x in outcome.case.settings
    ]
    names = [name for name in ("trace", "machine") if len({row[name] for row in rows}) > 1]
    settings = dict.fromkeys(name for row in rows for name in row["case"].settings if name != x)
    others = [name for name in settings if len({str(row.get(name)) for row in rows}) > 1]
    lines: dict[str, list[Row]] = {}
    for row in rows:
        plain = [str(row[name]) for name in names] + [f"{name}={row.get(name)}" for name in others]
        line = lines.setdefault(", ".join(plain) or f"{row['trace']} on {row['machine']}", [])
        first = line[0] if line else row
        line.append(row | {"speedup": first["latency_us"] / row["latency_us"] if row["latency_us"] else None})
    return lines


def _scale_x(ax: Axes, values: Sequence[float]) -> None:
    low, high = min(values), max(values)
    if low > 0 and high / low >= 8:
        _powers(ax.xaxis, ax.set_xscale)
    if len(values) <= 10:
        ax.set_xticks(list(values), [f"{value:g}" for value in values])


def _powers(axis: Any, set_scale: Any) -> None:
    """Show an axis in powers of two, written as numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    set_scale("log", base=2)
    low, high = axis.get_view_interval()
    steps = math.log2(high / low)
    axis.set_major_locator(LogLocator(base=2 if steps <= 9 else 4, numticks=20))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))


def _labels(bars: Sequence[dict[str, float]]) -> list[str]:
    """Return the names of the parts that any of the ``bars`` has, in order."""
    return [label for label in dict.fromkeys(key for bar in bars for key in bar) if any(bar.get(label) for bar in bars)]


def _stack(
    ax: Axes, names: Sequence[str], bars: Sequence[dict[str, float]], colours: dict[str, str], unit: str
) -> None:
    """Draw stacked bars with their totals; where a bar would be too small to see, all are shares of their own total."""
    totals = np.array([sum(bar.values()) for bar in bars])
    seen = totals[totals > 0]
    shares = bool(seen.size) and bool(seen.max() > 20 * seen.min())
    scale = np.divide(100.0, totals, out=np.zeros(len(totals)), where=totals > 0) if shares else np.ones(len(totals))
    left = np.zeros(len(names))
    for index, label in enumerate(_labels(bars)):
        widths = scale * [bar.get(label, 0.0) for bar in bars]
        ax.barh(
            np.arange(len(names)),
            widths,
            0.7,
            left=left,
            color=colours.get(label, FILLS[index % len(FILLS)]),
            hatch=None if label in colours or index < len(FILLS) else "///",
            edgecolor="white",
            linewidth=0.4,
            label=label.replace("_", " "),
        )
        left = left + widths
    for at, (end, total) in enumerate(zip(left, totals, strict=True)):
        if total:
            ax.text(end, at, f" {total:,.0f}" if total >= 1000 else f" {total:.4g}", va="center")
    ax.set_yticks(np.arange(len(names)), names)
    ax.grid(axis="y", visible=False)
    ax.set_xlim(0, 1.2 * max(float(left.max()), 1e-12))  # room for the totals
    ax.set_xlabel(f"{unit}; % of the total beside each bar" if shares else unit)
    ax.locator_params(axis="x", nbins=5)
    ax.xaxis.set_major_formatter("{x:,.5g}")
    if left.any():
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def _cycles_by_cause(result: Result) -> dict[str, float]:
    """Return the cycles of the computing units by cause, per unit."""
    for causes in result.total.cycles_by_cause.values():
        spent = sum(causes.values())
        return {cause: result.total.cycles * cycles / spent for cause, cycles in causes.items()} if spent else {}
    return {}


def _loads(layers: Sequence[LayerResult]) -> tuple[str, dict[str, np.ndarray]]:
    """Return the kind of computing unit, and the cycles each one works, by cause."""
    idle = ("starved", "drained", "memory", "act_sram")
    for kind in layers[0].cycles_per_unit:
        causes = [cause for cause in layers[0].cycles_per_unit[kind] if cause not in idle]
        return kind, {c: np.sum([layer.cycles_per_unit[kind][c] for layer in layers], axis=0) for c in causes}
    return "machine", {}

"""Tables of a training run's diagnostics, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from .cells import figures, new_table, percent, whole

if TYPE_CHECKING:
    from ..workloads.pruning.sparsity import LayerBalance, LayerGroups, LayerSparsity
    from ..workloads.training.diagnostics import Eigenvalue, Line, Scan, TraceEstimate


def lines_table(lines: Sequence[Line], title: str = "") -> RenderableType:
    """Return the losses of both ends and of the highest place of each line, its barrier and its instability."""
    from ..workloads.training.diagnostics import STABLE

    table = new_table(title)
    table.add_column("from")
    table.add_column("to")
    for heading in ("first\nnats", "second\nnats", "highest\nnats", "barrier\nnats", "instability\n%"):
        table.add_column(heading, justify="right", no_wrap=True)
    for line in lines:
        table.add_row(
            escape(line.start),
            escape(line.end),
            figures(float(line.loss[0])),
            figures(float(line.loss[-1])),
            figures(float(line.loss.max())),
            f"{line.barrier:.3f}",
            f"{100 * line.instability:.2f}",
        )
    stable = sum(line.instability < STABLE for line in lines)
    return Group(table, Text(f"{stable} of {len(lines)} are stable: instability below {100 * STABLE:g} %."))


def curvature_table(found: Mapping[str, tuple[TraceEstimate, Eigenvalue]]) -> RenderableType:
    """Return the Hessian's trace and its largest eigenvalue of each solution."""
    table = new_table("Hessian of the training loss")
    table.add_column("solution")
    for heading in ("trace", "standard\nerror", "probes", "largest\neigenvalue", "residual\n%", "products"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, (trace, top) in found.items():
        table.add_row(
            escape(name),
            figures(trace.mean),
            figures(trace.standard_error),
            whole(trace.samples),
            figures(top.value),
            f"{100 * top.residual:.2g}",
            whole(top.iterations) + ("" if top.converged else ", not converged"),
        )
    return table


def scan_table(scan: Scan, chosen: Mapping[str, float] | None = None) -> RenderableType:
    """Return the accuracy, in percent, with each layer alone pruned to each sparsity; ``chosen`` stand last."""
    table = new_table("Accuracy, %, with one layer pruned")
    table.add_column("layer", overflow="fold")
    for sparsity in scan.sparsities:
        table.add_column(f"{100 * sparsity:g} %", justify="right", no_wrap=True)
    if chosen is not None:
        table.add_column("chosen", justify="right", no_wrap=True, style="bold")
    for name, accuracy in scan.accuracy.items():
        cells = [percent(value) for value in accuracy]
        table.add_row(escape(name), *cells, *([] if chosen is None else [f"{100 * chosen[name]:g} %"]))
    return Group(table, Text(f"Nothing pruned: {percent(scan.base_accuracy)} %."))


def sparsity_table(report: Sequence[LayerSparsity]) -> RenderableType:
    """Return what the masks keep, by layer and in all."""
    table = new_table("Sparsity")
    table.add_column("layer", overflow="fold")
    table.add_column("weight", no_wrap=True)
    for heading in ("weights", "kept", "nonzeros", "sparsity\n%"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in report:
        if row.shape == ():
            table.add_section()
        shape = "x".join(map(str, row.shape))
        cells = (whole(row.size), whole(row.kept), whole(row.nonzeros), f"{100 * row.sparsity:.2f}")
        table.add_row(escape(row.name), shape, *cells, style="bold" if row.shape == () else None)
    return table


def groups_table(report: Sequence[LayerGroups]) -> RenderableType:
    """Return how many N:M groups each layer has, and how many hold more than n nonzeros."""
    first = report[0] if report else None
    table = new_table(f"{first.n}:{first.m} groups" if first else "")
    table.add_column("layer", overflow="fold")
    table.add_column("weight", no_wrap=True)
    for heading in ("groups", "over", "padding", "mean nonzeros\na group"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in report:
        mean = sum(count * groups for count, groups in enumerate(row.histogram)) / row.groups
        cells = (whole(row.groups), whole(row.violations), whole(row.padding), f"{mean:.3f}")
        table.add_row(escape(row.name), "x".join(map(str, row.shape)), *cells)
    return table


def balance_table(report: Sequence[LayerBalance]) -> RenderableType:
    """Return the nonzeros of the emptiest, the mean and the fullest PE of each layer."""
    table = new_table(f"Nonzeros over {len(report[0].nonzeros)} PEs" if report else "")
    table.add_column("layer", overflow="fold")
    table.add_column("weight", no_wrap=True)
    for heading in ("least", "mean", "most", "mean / most\n%"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in report:
        cells = (whole(row.least), f"{row.mean:,.1f}", whole(row.most), percent(row.balance))
        table.add_row(escape(row.name), "x".join(map(str, row.shape)), *cells)
    return table

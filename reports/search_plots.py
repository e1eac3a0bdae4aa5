"""Plots of searches: the way from the dense network to the target, and what each layer was left."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .plots_style import BLUE, LINES, MARKERS, REFERENCE, SMALL, drawing, plot_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..workloads.search.sensitivity import CostScan
    from .search import Job, Pair


def plot_search(job: Job, pairs: list[Pair], path: str | Path) -> Path:
    """Return ``path``, which now shows accuracy over cost on the way of each seed, and the share that layers kept.

    Left: validation accuracy after each step, of the search filled, and of both networks at the end, on the test
    samples, with marks. Right: the choices of both, mean over seeds.
    """
    path = plot_path(path)
    layers = pairs[0].found.candidate.space.layers
    with drawing(path, 8.5, 3.4 + 0.12 * max(0, len(layers) - 8)) as figure:
        left, right = figure.subplots(1, 2)
        for at, pair in enumerate(pairs):
            colour = LINES[at % len(LINES)]
            steps = [(step.cost / pair.found.dense_cost, step.accuracy) for step in pair.found.steps]
            way = np.array([(1.0, pair.found.candidate.space.dense.accuracy()), *steps])
            left.plot(
                100 * way[:, 0], 100 * way[:, 1], color=colour, linewidth=1.0, label=f"seed {pair.seed}, validation"
            )
            for found, marker, name in ((pair.found, "o", pair.found.method), (pair.even, "s", "even")):
                left.plot(
                    100 * found.ratio,
                    100 * found.candidate.test_accuracy(),
                    marker,
                    color=colour,
                    markerfacecolor=colour if found is pair.found else "white",
                    label=f"{name}, test" if at == 0 else None,
                    linestyle="none",
                )
        if job.share is not None:
            left.axvline(100 * job.share, color=REFERENCE, linewidth=0.8, linestyle="--")
        left.set_xlabel(f"{job.quantity}, % of the dense network's")
        left.set_ylabel("accuracy, %")
        left.invert_xaxis()
        left.legend(fontsize=SMALL)
        left.set_title(f"{job.name} on {job.machine.name}", loc="left")
        _choices(right, pairs)
    return path


def plot_cost_scan(scan: CostScan, path: str | Path, quantity: str = "cost") -> Path:
    """Return ``path``, which now shows accuracy, left, and cost, right, with each layer alone pruned."""
    path = plot_path(path)
    with drawing(path, 8.5, 3.4) as figure:
        left, right = figure.subplots(1, 2)
        for at, (name, kept) in enumerate(scan.kept.items()):
            look = {"color": LINES[at % len(LINES)], "marker": MARKERS[at % len(MARKERS)], "markersize": 4}
            left.plot(100 * (1 - kept), 100 * scan.accuracy[name], label=name, **look)
            right.plot(100 * (1 - kept), 100 * scan.cost[name] / scan.base_cost, label=name, **look)
        left.set_title("accuracy, %", loc="left")
        right.set_title(f"{quantity}, % of the dense network's", loc="left")
        for ax in (left, right):
            ax.set_xlabel("pruned of one layer, %")
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return path


def _choices(ax: Axes, pairs: list[Pair]) -> None:
    layers = pairs[0].found.candidate.space.layers
    places = np.arange(len(layers))
    for shift, name, colour, networks in (
        (-0.2, pairs[0].found.method, BLUE, [pair.found for pair in pairs]),
        (0.2, "even", REFERENCE, [pair.even for pair in pairs]),
    ):
        shares = 100 * np.array([each.candidate.choices for each in networks])
        ax.barh(places + shift, shares.mean(axis=0), 0.36, color=colour, label=name)
    ax.set_yticks(places, [layer.name for layer in layers])
    ax.invert_yaxis()
    ax.set_xlabel("kept, %")
    ax.grid(axis="y", visible=False)
    ax.legend(fontsize=SMALL)
    ax.set_title("what layers keep, mean over seeds", loc="left")

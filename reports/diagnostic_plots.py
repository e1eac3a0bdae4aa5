"""Plots of a training run's diagnostics, one style with `gossamer.reports.plots`, written whole.

What they show is defined in `gossamer.workloads.training.diagnostics`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..workloads.errors import InputError
from .plots_style import BLUE, HEAT, LINES, MARKERS, ORANGE, RED, REFERENCE, SCALE, SMALL, drawing, plot_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..workloads.pruning.sparsity import LayerBalance, LayerGroups, LayerSparsity
    from ..workloads.training.diagnostics import Eigenvalue, Line, Scan, Surface, TraceEstimate


def plot_lines(lines: Sequence[Line], path: str | Path, *, title: str = "") -> Path:
    """Return ``path``, which now shows loss and error along ``lines``; the legend has their instability.

    More lines than there are colours become a sequence from dark to light, in their order.
    """
    path = plot_path(path)
    _demand(lines, "line", path)
    many = len(lines) > len(LINES)
    with drawing(path, 7.5, 3.0 + (0 if many else 0.2 * -(-len(lines) // 2))) as figure:
        left, right = figure.subplots(1, 2)
        colours = _sequence(len(lines)) if many else LINES
        for index, line in enumerate(lines):
            drawn: dict[str, Any] = {
                "color": colours[index],
                "marker": None if many else MARKERS[index],
                "markevery": (3 * index % 10, 10),
                "markersize": 4,
                "linewidth": 1.3,
                "label": f"{line.start} to {line.end}: instability {100 * line.instability:.2f} %",
            }
            left.plot(line.position, np.where(np.isfinite(line.loss), line.loss, np.nan), **drawn)
            right.plot(line.position, 100 * (1 - line.accuracy), **drawn)
        for ax, what in ((left, "loss, nats"), (right, "error, %")):
            ax.set_title(what, loc="left")
            ax.set_xlabel("position between the two solutions (0: first, 1: second)")
            ax.set_ylim(0, 1.05 * ax.get_ylim()[1])
        left.xaxis.label.set_size(SMALL)
        right.xaxis.label.set_size(SMALL)
        if title:
            figure.suptitle(title)
        if many:
            from matplotlib.cm import ScalarMappable
            from matplotlib.colors import ListedColormap, Normalize

            scale = ScalarMappable(Normalize(1, len(lines)), ListedColormap(_sequence(256)))
            figure.colorbar(scale, ax=[left, right], label="line, in order")
        else:
            figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return path


def plot_surface(surface: Surface, path: str | Path, *, title: str = "") -> Path:
    """Return ``path``, which now shows the loss on the plane through three solutions, and where these lie."""
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.ticker import FuncFormatter

    path = plot_path(path)
    loss = np.ma.masked_invalid(surface.loss)
    if loss.count() == 0:
        raise InputError(f"{path}: a surface needs a finite loss to be drawn, and has none")
    low, high = float(loss.min()), float(loss.max())
    if high <= low:
        high = low + 1e-6
    wide = low > 0 and high > 8 * low
    levels = np.geomspace(low, high, 15) if wide else np.linspace(low, high, 15)
    extent = np.ptp(surface.x), np.ptp(surface.y)
    with drawing(path, 6.0, float(np.clip(1.0 + 4.3 * extent[1] / extent[0], 3.0, 7.0))) as figure:
        ax = figure.subplots()
        norm = (LogNorm if wide else Normalize)(low, high)
        filled = ax.contourf(surface.x, surface.y, loss, levels, cmap=SCALE, norm=norm)
        ax.contour(surface.x, surface.y, loss, levels, colors="white", linewidths=0.4)
        bar = figure.colorbar(filled, ax=ax, label="loss, nats", format=FuncFormatter(lambda v, _: f"{v:.3g}"))
        bar.set_ticks(levels[::2].tolist())
        bar.ax.minorticks_off()
        for index, (name, (x, y)) in enumerate(zip(surface.names, surface.corners, strict=True)):
            ax.plot(x, y, MARKERS[index], color="white", markeredgecolor="black", markersize=8)
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
            ax.annotate(name, (x, y), (0, 9), textcoords="offset points", ha="center", bbox=box)
        ax.set_aspect("equal")
        ax.grid(visible=False)
        ax.set_xlabel("distance in weight space, first to second")
        ax.set_ylabel("distance at right angles to it")
        ax.set_title(title or "loss on the plane through three solutions", loc="left")
    return path


def plot_curvature(found: Mapping[str, tuple[TraceEstimate, Eigenvalue]], path: str | Path) -> Path:
    """Return ``path``, which now shows the Hessian's trace, with its standard error, and its largest eigenvalue."""
    path = plot_path(path)
    _demand(found, "solution", path)
    places = np.arange(len(found))
    with drawing(path, 7.5, 1.2 + 0.35 * len(found)) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        means, errors = np.array([(trace.mean, trace.standard_error) for trace, _ in found.values()]).T
        left.barh(places, means, 0.6, xerr=errors, color=BLUE, error_kw={"capsize": 3, "elinewidth": 1})
        sure = np.array([top.converged for _, top in found.values()])
        values = np.array([top.value for _, top in found.values()])
        right.barh(places, values, 0.6, color=np.where(sure, ORANGE, REFERENCE).tolist())
        for at, (value, converged) in enumerate(zip(values, sure, strict=True)):
            right.text(max(value, 0), at, f" {value:.4g}" + ("" if converged else " not converged"), va="center")
        for at, (mean, error) in enumerate(zip(means, errors, strict=True)):
            left.text(max(mean + error, 0), at, f"  {mean:.4g} \u00b1 {error:.3g}", va="center")
        for ax, what in ((left, "trace of the Hessian"), (right, "largest eigenvalue")):
            ax.set_title(what, loc="left")
            ax.set_xlabel("curvature, nats per squared weight")
            ax.grid(axis="y", visible=False)
            low, high = ax.get_xlim()
            ax.set_xlim(low, high + 0.45 * (high - low))  # room for the numbers
            ax.locator_params(axis="x", nbins=5)
        left.set_yticks(places, list(found))
        left.invert_yaxis()
    return path


def plot_scan(scan: Scan, path: str | Path, *, chosen: Mapping[str, float] | None = None) -> Path:
    """Return ``path``, which now shows accuracy over the sparsity of one layer at a time, a line each.

    ``chosen``, the sparsities of `choose_sparsities`, are marked by rings.
    """
    path = plot_path(path)
    _demand(scan.accuracy, "layer", path)
    names = list(scan.accuracy)
    many = len(names) > len(LINES)
    with drawing(path, 6.5, 3.4 + 0.2 * -(-(len(names) + 1) // 2)) as figure:
        ax = figure.subplots()
        ax.axhline(100 * scan.base_accuracy, color=REFERENCE, linestyle="--", linewidth=1, label="nothing pruned")
        for index, name in enumerate(names):
            colour = _sequence(len(names))[index] if many else LINES[index]
            marker = MARKERS[index % len(MARKERS)]
            accuracy = 100 * scan.accuracy[name]
            ax.plot(100 * scan.sparsities, accuracy, color=colour, marker=marker, markersize=4, label=name)
            if chosen is not None:
                at = int(np.argmin(np.abs(scan.sparsities - chosen[name])))
                ax.plot(100 * scan.sparsities[at], accuracy[at], "o", markersize=10, fillstyle="none", color=colour)
        ax.set_xlabel("sparsity of this layer alone, %")
        ax.set_ylabel("accuracy, %")
        ax.set_title("sensitivity to pruning, by layer" + (" (rings: chosen)" if chosen else ""), loc="left")
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return path


def plot_sparsity(report: Sequence[LayerSparsity], path: str | Path) -> Path:
    """Return ``path``, which now shows the share of its weights that each layer keeps, with how many these are."""
    path = plot_path(path)
    _demand(report, "layer", path)
    places = np.arange(len(report))
    with drawing(path, 6.5, 0.9 + 0.26 * len(report)) as figure:
        ax = figure.subplots()
        colours = [REFERENCE if row.shape == () else BLUE for row in report]
        ax.barh(places, [100 * row.kept / row.size for row in report], 0.7, color=colours)
        for at, row in enumerate(report):
            ax.text(100 * row.kept / row.size, at, f" {row.kept:,} of {row.size:,}", va="center", fontsize=SMALL)
        ax.set_yticks(places, [_labelled(row) for row in report])
        ax.set_xlim(0, 1.35 * max(100 * row.kept / row.size for row in report) or 1)
        ax.set_xlabel("weights kept, %")
        ax.grid(axis="y", visible=False)
        ax.invert_yaxis()
    return path


def plot_groups(report: Sequence[LayerGroups], path: str | Path) -> Path:
    """Return ``path``, which now shows how many nonzeros the groups of each layer have, and how many too many."""
    path = plot_path(path)
    _demand(report, "layer", path)
    n, m = report[0].n, report[0].m
    shares = np.array([[100 * count / row.groups for count in row.histogram] for row in report])
    with drawing(path, 2.9 + min(6.0, 0.45 * (m + 1)) + 1.0, 1.3 + 0.3 * len(report)) as figure:
        ax = figure.subplots()
        image = ax.imshow(np.ma.masked_equal(shares, 0), cmap=HEAT, vmin=0, vmax=100, aspect="auto")
        figure.colorbar(image, ax=ax, label="groups, %")
        if m <= 8:
            for (at, count), share in np.ndenumerate(shares):
                if share:
                    text = f"{share:.0f}" if share >= 0.5 else "<1"
                    ax.text(count, at, text, ha="center", va="center", color="white" if share > 50 else "black")
        ax.axvline(n + 0.5, color=RED, linewidth=2)
        ax.set_xticks(range(0, m + 1, max(1, m // 8)))
        ax.set_yticks(range(len(report)), [f"{row.name}: {row.violations:,} over" for row in report])
        ax.set_xlabel(f"nonzeros in a group of {m}")
        ax.set_title(f"{n}:{m} groups; right of the red line they hold too many", loc="left")
        ax.grid(visible=False)
    return path


def plot_balance(report: Sequence[LayerBalance], path: str | Path) -> Path:
    """Return ``path``, which now shows the nonzeros of every PE beside the mean of its layer."""
    path = plot_path(path)
    _demand(report, "layer", path)
    with drawing(path, 6.5, 1.0 + 0.4 * len(report)) as figure:
        ax = figure.subplots()
        for at, row in enumerate(report):
            share = np.array(row.nonzeros) * 100 / row.mean if row.mean else np.full(len(row.nonzeros), 100.0)
            ax.hlines(at, share.min(), share.max(), color=REFERENCE, linewidth=1.2)
            spread = at + np.linspace(-0.22, 0.22, len(share))
            ax.plot(share, spread, "o", color=BLUE, markersize=2.5, alpha=0.5)
            ax.plot(share.max(), at, "D", color=RED, markersize=5)
        ax.axvline(100, color="black", linewidth=1)
        names = [f"{row.name}\nmean {row.mean:,.1f}, most {row.most:,}" for row in report]
        ax.set_yticks(range(len(report)), names)
        ax.set_ylim(len(report) - 0.5, -0.5)
        ax.set_xlim(left=-0.02 * ax.get_xlim()[1])  # room for the dots of PEs that have nothing
        ax.set_xlabel("nonzeros of a PE, % of the layer's mean (red: the fullest, for which all wait)")
        ax.set_title(f"balance over {len(report[0].nonzeros)} PEs", loc="left")
        ax.grid(axis="y", visible=False)
        _wide_labels(ax)
    return path


def _labelled(row: LayerSparsity) -> str:
    return f"{row.name}  {'x'.join(map(str, row.shape))}".strip()


def _wide_labels(ax: Axes) -> None:
    for label in ax.get_yticklabels():
        label.set_fontsize(SMALL)


def _sequence(count: int) -> list[Any]:
    """Return ``count`` colours from dark to light, none of them too light for white paper."""
    import matplotlib

    return list(matplotlib.colormaps[SCALE](np.linspace(0, 0.9, count)))


def _demand(shown: Any, what: str, path: Path) -> None:
    if not shown:
        raise InputError(f"{path}: a plot needs at least one {what}, not 0")

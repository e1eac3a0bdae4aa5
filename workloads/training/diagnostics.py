"""Diagnostics of solutions and masks, as numbers; `gossamer.reports.diagnostics` draws them.

Each works on a module, weights by name and a loader (a re-iterable of (inputs, labels) batches), and leaves the module
as it was.
"""

from ..pruning.sparsity import (
    LayerBalance,
    LayerGroups,
    LayerSparsity,
    balance_report,
    nm_report,
    sparsity_report,
)
from .curvature import Eigenvalue, TraceEstimate, hessian_trace, top_eigenvalue
from .landscape import STABLE, Line, Surface, instability, lines_between, loss_along_line, loss_surface
from .sensitivity import Scan, choose_sparsities, sensitivity_scan

__all__ = [
    "STABLE",
    "Eigenvalue",
    "LayerBalance",
    "LayerGroups",
    "LayerSparsity",
    "Line",
    "Scan",
    "Surface",
    "TraceEstimate",
    "balance_report",
    "choose_sparsities",
    "hessian_trace",
    "instability",
    "lines_between",
    "loss_along_line",
    "loss_surface",
    "nm_report",
    "sensitivity_scan",
    "sparsity_report",
    "top_eigenvalue",
]

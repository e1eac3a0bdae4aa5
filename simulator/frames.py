"""A layer's figures as a row of plain numbers; rows as a pandas frame, and as a table that a notebook shows."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from ..workloads.extras import need
from .figures import LayerResult, Totals

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]
SHOWN = (  # column, its heading, factor, format
    ("cycles", "cycles", 1, ",.0f"),
    ("latency_us", "time, us", 1, ",.4g"),
    ("utilization", "utilization, %", 100, ".1f"),
    ("load_balance", "load balance, %", 100, ".1f"),
    ("macs", "useful MACs", 1, ",.0f"),
    ("energy_uj", "energy, uJ", 1, ",.4g"),
)


def data_frame(rows: list[Row]) -> pd.DataFrame:
    """Return ``rows`` as a pandas frame. Raises InputError where pandas is not installed."""
    need("notebook", "pandas")
    import pandas as pd

    return pd.DataFrame(rows)


def html_table(caption: str, rows: list[Row], sums: Row) -> str:
    """Return ``rows``, a layer each, and their ``sums`` as an HTML table; all text is escaped."""
    shown = [column for column in SHOWN if sums[column[0]] is not None]
    heads = "".join(f"<th>{head}</th>" for head in ("layer", "weight", *(column[1] for column in shown)))

    def line(name: str, shape: str, row: Row) -> str:
        figures = ("" if row[key] is None else f"{factor * row[key]:{form}}" for key, _, factor, form in shown)
        return "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in (name, shape, *figures)) + "</tr>"

    lines = [line(row["layer"], row["shape"], row) for row in rows]
    return (
        f"<table><caption>{html.escape(caption)}</caption><thead><tr>{heads}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody><tfoot>{line('total', '', sums)}</tfoot></table>"
    )


def padding_ratio(figures: Totals | LayerResult) -> float | None:
    """Return padding / entries, None where a machine stores no padding or processed nothing."""
    entries = figures.counts.get("entries", 0)
    return figures.counts["padding"] / entries if entries and "padding" in figures.counts else None


def relative_error(layer: LayerResult) -> float | None:
    """Return the rms error of the layer's outputs / their rms, None where the arithmetic is not simulated."""
    if layer.arithmetic is None:
        return None
    error, reference = layer.arithmetic["rms_error"], layer.arithmetic["rms_reference"]
    return error / reference if reference else (0.0 if error == 0 else None)


def sums_row(total: Totals) -> Row:
    """Return ``total`` under those columns of `layer_row` that have a sum."""
    return {
        "cycles": total.cycles,
        "latency_us": total.latency_s * 1e6,
        "utilization": total.utilization,
        "load_balance": total.load_balance,
        "padding_ratio": padding_ratio(total),
        "macs": total.macs,
        "energy_uj": None if total.energy_j is None else total.energy_j.total * 1e6,
    }


def layer_row(layer: LayerResult) -> Row:
    """Return everything known of ``layer``; columns as in CSV."""
    energy, arithmetic = layer.energy_j, layer.arithmetic or {}
    return {
        "layer": layer.name,
        "op": layer.op,
        "shape": "x".join(map(str, layer.shape)),
        "samples": layer.samples,
        "vectors": layer.vectors,
        "cycles": layer.cycles,
        "latency_us": layer.latency_s * 1e6,
        "theoretical_cycles": layer.theoretical_cycles,
        "utilization": layer.utilization,
        "load_balance": layer.load_balance,
        "padding_ratio": padding_ratio(layer),
        "macs": layer.macs,
        **layer.counts,
        **{
            f"{unit}_{cause}": cycles
            for unit, causes in layer.cycles_by_cause.items()
            for cause, cycles in causes.items()
        },
        "energy_uj": None if energy is None else energy.total * 1e6,
        **({} if energy is None else {f"{part}_uj": joules * 1e6 for part, joules in energy.by_part.items()}),
        "energy_table": None if energy is None else energy.table,
        **{f"{level}_bytes": count for level, count in layer.traffic_bytes.items()},
        "storage_bits": sum(layer.storage_bits.values()),
        **{f"{part}_stored_bits": bits for part, bits in layer.storage_bits.items()},
        "output_error": relative_error(layer),
        "max_abs_error": arithmetic.get("max_abs_error"),
        "same_argmax": arithmetic.get("same_argmax"),
        **(layer.roofline or {}),
    }

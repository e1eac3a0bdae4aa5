"""A result: what a machine did with a trace, in numbers that add up.

The JSON form is ``gossamer.result/1``; the field names here are its keys and keep their meaning.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..workloads.errors import InputError, shown
from ..workloads.files.container import one_line, read_bytes
from .figures import Energy, LayerResult, OverTime, Queue, Totals
from .frames import Row, data_frame, html_table, layer_row, relative_error, sums_row

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Energy", "LayerResult", "MachineId", "OverTime", "Queue", "Result", "Totals", "TraceId",
    "layer_rows", "output_error", "read_result", "total_row",
]  # fmt: skip

SCHEMA = "gossamer.result/1"


class TraceId(msgspec.Struct, frozen=True, kw_only=True):
    """Which trace was simulated, and the provenance it carries."""

    name: str
    sha256: str
    sparsity: float
    provenance: dict[str, Any] = {}


class MachineId(msgspec.Struct, frozen=True, kw_only=True):
    """Which machine it was, with its full configuration."""

    name: str
    model: str
    config: dict[str, Any]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One simulation: trace, machine, engine, version, and the figures for each layer and in all."""

    schema: str = SCHEMA
    version: str
    engine: str
    trace: TraceId
    machine: MachineId
    samples: int
    layers: list[LayerResult]
    total: Totals
    warnings: list[str] = []

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        data: dict[str, Any] = msgspec.to_builtins(self)
        return data

    def to_json(self) -> str:
        """Return the JSON text, indented, ending in a newline."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1).decode() + "\n"

    def to_frame(self) -> pd.DataFrame:
        """Return the layers as a pandas frame, one row a layer, columns as in CSV. Raises InputError without pandas."""
        return data_frame(layer_rows(self))

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the layers and their total as a table."""
        caption = f"{self.trace.name} on {self.machine.name}"
        if self.warnings:
            caption += f" ({len(self.warnings)} warning{'s' if len(self.warnings) > 1 else ''}: see warnings)"
        return html_table(caption, layer_rows(self), total_row(self))


def layer_rows(result: Result) -> list[Row]:
    """Return everything known of each layer: one row a layer, in order; columns as in CSV."""
    about = {"trace": result.trace.name, "machine": result.machine.name, "engine": result.engine}
    return [about | layer_row(layer) for layer in result.layers]


def total_row(result: Result) -> Row:
    """Return the figures of all layers together, under those columns of `layer_rows` that have one."""
    return sums_row(result.total) | {"output_error": output_error(result)}


def output_error(result: Result) -> float | None:
    """Return the largest relative rms error of any layer's outputs, None where the arithmetic is not simulated."""
    errors = [error for layer in result.layers if (error := relative_error(layer)) is not None]
    return max(errors, default=None)


def read_result(path: str | Path) -> Result:
    """Return the result stored in the JSON file at ``path``. Raises InputError naming the file and the broken rule."""
    return parse_result(read_bytes(Path(path), "a result file"), path)


def parse_result(data: bytes, path: str | Path) -> Result:
    """Return the result in ``data``, the content of the file at ``path``. Raises InputError as `read_result` does."""
    try:
        head = msgspec.json.decode(data, type=dict[str, Any])
        schema = head.get("schema")
        if schema != SCHEMA:
            raise InputError(
                f"{path}: schema must be {SCHEMA}, not {shown(schema)}; write it again with gossamer simulate"
            )
        return msgspec.json.decode(data, type=Result)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InputError(
            f"{path}: not a {SCHEMA} file: {one_line(error)}; write it again with gossamer simulate"
        ) from None

"""JSON schemas of the files that Gossamer reads and writes, made from the types that read and write them."""

from __future__ import annotations

from inspect import cleandoc
from typing import Any

import msgspec

from ..simulator.energy import EnergyTable
from ..simulator.result import Result
from ..workloads.errors import InputError
from ..workloads.files.trace_file import Header

SCHEMAS: dict[str, tuple[str, type[msgspec.Struct]]] = {
    "result": ("What `--json` of `simulate` writes", Result),
    "trace": ("The JSON under the key `gossamer.trace` of a trace's `.safetensors`", Header),
    "energy-table": ("An energy table's TOML, as JSON would have it", EnergyTable),
}


def schema_of(what: str) -> dict[str, Any]:
    """Return the JSON schema of the file ``what``, one of `SCHEMAS`. Raises InputError for any other."""
    if what not in SCHEMAS:
        raise InputError(f"what to describe must be one of {', '.join(SCHEMAS)}, not {what!r}")
    title, kind = SCHEMAS[what]
    schema = msgspec.json.schema(kind)
    for about in schema["$defs"].values():  # from 3.13 on, Python takes the indentation out of docstrings by itself
        if "description" in about:
            about["description"] = cleandoc(about["description"])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **schema}


def schema_text(what: str) -> str:
    """Return that schema as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(schema_of(what)), indent=2).decode() + "\n"

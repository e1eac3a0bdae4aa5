"""Where each constant of a machine and of its energies comes from: published, derived, fitted, assumed, remembered."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from .. import models
from ..models import list_energy_tables, list_machines, load_machine
from ..models.loader import load_energy_table
from ..workloads.files.settings import parse_toml, read_toml
from .cells import new_table
from .markdown import table_lines

KINDS = {
    "published": "a publication, a data sheet or somebody's code gives it",
    "secondary": "a publication gives it, read as others cite it",
    "derived": "worked out from such figures",
    "fitted": "chosen so that published figures come out; the source says which",
    "assumed": "ours, where nothing was found",
    "memory": "remembered of a publication, and not confirmed by reading it",
    "choice": "a setting, what follows from other values, or a statement without a reference",
    "none": "no source is given",
}
HEAD = """# Where every number comes from

Each value of a bundled machine or energy table, with the words that stand beside it in its file. The page is written by

    gossamer sources --out provenance.md

from those files. The kind of a source is read from its words:
"""
AFTER_KINDS = """What is from memory or assumed is no measurement: sweep it before you conclude anything from it. Which
published figures come out, and which do not, is [another page](validation.md).
"""
_DERIVED = re.compile(
    r"^(?:derived|half of|a quarter of|an eighth of|twice|\w+ times|as )|(?:W|mm2);? (?:x [\d.]+ )?/ \d"
)
_SECONDARY = re.compile(r"secondary source|as summed up by others|as a review cites it")
_MEMORY = re.compile(r"provenance = memory|\bfrom memory\b|^memory\b|[,(] ?memory\b")
_CITES = re.compile(
    r"\b(?:19|20)\d\d\b|whitepaper|CUTLASS|documentation|guide|artifact|repository|data sheet|authors'|WikiChip|"
    r"CACTI|Hot Chips|ARMv8|\bISA\b|Sputnik|TorchSparse|SpAttenConfig|\bcode\b"
)


@dataclass(frozen=True)
class Constant:
    """A value of a machine or an energy table, with the words that say where it is from; ``kind`` is one of `KINDS`."""

    name: str
    value: str
    kind: str
    source: str


def kind_of(source: str) -> str:
    """Return which of `KINDS` the words of a source are, by how they begin, or by what they cite."""
    words = source.strip()
    for kind in ("assumed", "fitted"):
        if words.startswith(kind):
            return kind
    if not words:
        return "none"
    if _MEMORY.search(words):
        return "memory"
    if _DERIVED.search(words) and _CITES.search(words) and not words.startswith("CACTI"):
        return "derived"
    if _SECONDARY.search(words):
        return "secondary"
    return "published" if _CITES.search(words) else "derived" if words.startswith("derived") else "choice"


def machine_constants(name: str) -> tuple[str | None, list[Constant]]:
    """Return the machine that ``name`` is a variant of, if it is one, and each value that its own file gives.

    ``name`` is a bundled machine or the path of a TOML file. Raises InputError for neither.
    """
    config = msgspec.to_builtins(load_machine(name).config)
    bundled = resources.files(models) / "configs" / f"{name}.toml"
    is_path = name.endswith(".toml") or "/" in name or "\\" in name
    settings = read_toml(Path(name), "a machine file") if is_path else parse_toml(bundled.read_text("utf-8"))
    sources, base = settings.pop("sources", {}), settings.pop("base", None)
    names = [field for field in config if base is None or field in settings or field in sources]
    if "energy" in names:  # a table's values have sources of their own
        sources = {"energy": "see that table" if config["energy"] else "none: no energy is given"} | sources
    return base, [_constant(field, _word(config[field]), str(sources.get(field, ""))) for field in names]


def table_constants(name: str) -> list[Constant]:
    """Return each energy and area of a bundled table."""
    table = load_energy_table(name, "", name)
    return [
        *(_constant(f"{e.part}, each cycle of a {e.unit}", f"{e.pj:g} pJ", e.source) for e in table.per_cycle),
        *(_constant(f"{e.part}, each of {e.count}", f"{e.pj:g} pJ", e.source) for e in table.per_event),
        *(_constant(f"{a.part}, area in a {a.unit}", f"{a.um2:g} um2", a.source) for a in table.area),
    ]


def sources_table(name: str) -> RenderableType:
    """Return each value of the machine or energy table ``name`` with its kind and source."""
    base, constants = (None, table_constants(name)) if name in list_energy_tables() else machine_constants(name)
    table = new_table(name if base is None else f"{name}, where it differs from {base}")
    for heading in ("name", "value", "kind", "source"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "value" else "left")
    for each in constants:
        table.add_row(*(escape(cell) for cell in (each.name, each.value, each.kind, each.source)))
    return Group(table, Text(_counted(constants), style="bold"))


def sources_summary() -> RenderableType:
    """Return how many values of each kind each bundled machine and energy table has."""
    parts: list[RenderableType] = []
    for title, rows in (("Machines", _machine_rows()), ("Energy tables", _table_rows())):
        table = new_table(title)
        table.add_column("name")
        for kind in KINDS:
            table.add_column(kind, justify="right")
        for name, _, constants in rows:
            table.add_row(name, *(str(number or "") for number in _counts(constants)))
        parts += [table, Text("")]
    return Group(*parts, "gossamer sources NAME shows each value.")


def provenance_page() -> str:
    """Return where every value of every bundled machine and energy table is from, as a page of Markdown.

    The same files give the same text.
    """
    lines = [HEAD, *(f"- **{kind}**: {meaning}." for kind, meaning in KINDS.items()), "", AFTER_KINDS]
    for title, rows in (("Machines", _machine_rows()), ("Energy tables", _table_rows())):
        lines += [f"## {title}", ""]
        heads = ("name", "variant of", *KINDS) if title == "Machines" else ("name", *KINDS)
        counts = [
            (f"[{name}](#{name})", *([base or ""] if title == "Machines" else []), *_counts(of_one))
            for name, base, of_one in rows
        ]
        lines += table_lines(heads, counts, right=range(len(heads) - len(KINDS), len(heads)))
        for name, base, of_one in rows:
            lines += [f"### {name}", ""]
            lines += [f"What differs from [{base}](#{base}):", ""] if base else []
            cells = ((f"`{each.name}`", each.value, each.kind, each.source) for each in of_one)
            lines += table_lines(("name", "value", "kind", "source"), cells, right=(1,))
    return "\n".join(lines).rstrip("\n") + "\n"


def _machine_rows() -> list[tuple[str, str | None, list[Constant]]]:
    return [(name, *machine_constants(name)) for name in list_machines()]


def _table_rows() -> list[tuple[str, str | None, list[Constant]]]:
    return [(name, None, table_constants(name)) for name in list_energy_tables()]


def _counts(constants: Sequence[Constant]) -> list[int]:
    kinds = [each.kind for each in constants]
    return [kinds.count(kind) for kind in KINDS]


def _counted(constants: Sequence[Constant]) -> str:
    shown = [f"{number} {kind}" for kind, number in zip(KINDS, _counts(constants), strict=True) if number]
    return f"{len(constants)} values: {', '.join(shown)}."


def _constant(name: str, value: str, source: str) -> Constant:
    return Constant(name=name, value=value, kind=kind_of(source), source=source)


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value >= 1e6:
        return f"{value / 1e9:g}e9" if value >= 1e9 else f"{value / 1e6:g}e6"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)

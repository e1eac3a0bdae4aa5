"""Energy and area: tables of sourced values, applied to cycles or to counts, never to both at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..workloads.errors import InputError
from ..workloads.files.container import one_line
from ..workloads.files.settings import read_text, read_toml
from .result import Energy

MODES = ("calibrated", "event")
DEEPEST = 32  # levels of an ERT, which has 6
MOST = 1e24  # pJ or square micrometres: no hardware has more, and sums of such stay finite


class PerCycle(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Energy of one ``part`` of one ``unit`` in every cycle, busy or not (published power / clock)."""

    unit: str
    part: str
    pj: float
    source: str

    def __post_init__(self) -> None:
        _check_value("pj", self.pj, self.part, self.source)


class PerEvent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Energy of one event: the name of a count, the part it is booked under, and its name in an Accelergy ERT."""

    count: str
    part: str
    pj: float
    source: str
    component: str | None = None
    action: str | None = None

    def __post_init__(self) -> None:
        _check_value("pj", self.pj, self.part, self.source)
        if (self.component is None) != (self.action is None):
            raise ValueError(f"component and action must be given together, and {self.part} has one of them")


class Area(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Area of one ``part`` of one ``unit``."""

    unit: str
    part: str
    um2: float
    source: str

    def __post_init__(self) -> None:
        _check_value("um2", self.um2, self.part, self.source)


class EnergyTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Energies and areas of one technology; every value has a source, or says ``assumed``.

    ``node_nm``: None where the source does not tell. ``word_bits``, ``row_bits``: the width of the words that counts
    count, and of the rows of the weight SRAM, where values hold for one width only. ``description``: what the table can
    and cannot tell.
    """

    name: str
    mode: str
    node_nm: int | None = None
    word_bits: int | None = None
    row_bits: int | None = None
    description: str = ""
    per_cycle: list[PerCycle] = []
    per_event: list[PerEvent] = []
    area: list[Area] = []

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode must be {' or '.join(MODES)}, not {self.mode!r}")
        wrong = self.per_event if self.mode == "calibrated" else self.per_cycle
        right = self.per_cycle if self.mode == "calibrated" else self.per_event
        if wrong or not right:
            need, leave = ("per_cycle", "per_event") if self.mode == "calibrated" else ("per_event", "per_cycle")
            raise ValueError(f"a table of mode {self.mode} must have {need} and no {leave}: the two are never mixed")
        for name in ("node_nm", "word_bits", "row_bits"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")

    def misfit(self, **bits: int) -> str | None:
        """Say why the table has no values for a machine of these ``word_bits`` or ``row_bits``, None where it has."""
        for name, width in bits.items():
            wanted = getattr(self, name)
            if wanted not in (None, width):
                what = name.replace("_bits", "s")
                return f"energy table {self.name} is for {what} of {wanted} bits, not {width}: no energy given"
        return None

    def energy(self, cycles: int, units: Mapping[str, int], counts: Mapping[str, int]) -> Energy:
        """Return the energy of ``cycles`` on a machine of ``units`` that counted ``counts``.

        Raises InputError for a unit or count that the table names and the machine has not.
        """
        parts: dict[str, float] = {}
        for cell in self.per_cycle:
            unit_cycles = cycles * self._known(cell.unit, units, "unit")
            parts[cell.part] = parts.get(cell.part, 0.0) + cell.pj * 1e-12 * unit_cycles
        for event in self.per_event:
            count = self._known(event.count, counts, "count")
            parts[event.part] = parts.get(event.part, 0.0) + event.pj * 1e-12 * count
        return Energy(total=math.fsum(parts.values()), by_part=parts, table=self.name, mode=self.mode)

    def area_mm2(self, units: Mapping[str, int]) -> float | None:
        """Return the area of a machine of ``units`` in square millimetres, None where the table lists none."""
        if not self.area:
            return None
        return math.fsum(cell.um2 * self._known(cell.unit, units, "unit") for cell in self.area) / 1e6

    def _known(self, name: str, have: Mapping[str, int], what: str) -> int:
        if name not in have:
            raise InputError(f"energy table {self.name}: unknown {what} {name!r}; the machine has {', '.join(have)}")
        return have[name]


def read_energy_table(path: Path, base: EnergyTable | None = None) -> EnergyTable:
    """Return the table in the file at ``path``: our own TOML, or an Accelergy energy reference table (YAML).

    An energy reference table knows components and actions, not our counts: it replaces the energies of ``base``, a
    table of mode event. Raises InputError naming file, rule and value.
    """
    if path.suffix == ".toml":
        return _read_toml(path)
    if path.suffix in (".yaml", ".yml"):
        return _read_ert(path, base)
    raise InputError(
        f"{path}: an energy table must be .toml, or an Accelergy ERT .yaml, not {path.suffix!r}; rename it"
    )


def _read_toml(path: Path) -> EnergyTable:
    try:
        return msgspec.convert(read_toml(path, "an energy table"), EnergyTable)
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: {one_line(error)}; see docs/reference/energy.md") from None


class _Action(msgspec.Struct):
    name: str
    energy: float


class _Component(msgspec.Struct):
    name: str
    actions: list[_Action]


class _Ert(msgspec.Struct):
    """What we read of an ERT of versions 0.3 and 0.4; other keys (arguments, estimators) are left alone."""

    tables: list[_Component]
    version: float = 0.4


class _ErtFile(msgspec.Struct):
    ERT: _Ert


def _read_ert(path: Path, base: EnergyTable | None) -> EnergyTable:
    """Return ``base`` with the energies of the ERT at ``path``.

    An entry is found under its component, the end of a table's dotted name without its [first..last] indices, and its
    action. Of several lines of one action, which differ in their arguments (data_delta, address_delta), the largest
    energy counts: that of an access whose address and data change.
    """
    if base is None or base.mode != "event":
        raise InputError(
            f"{path}: an Accelergy ERT replaces the energies of a table of mode event, and this machine has none; "
            "give a TOML table"
        )
    ert = _parse_ert(path)
    known: dict[tuple[str, str], float] = {}
    for table in ert.tables:
        component = _without_indices(table.name)
        for action in table.actions:
            if not (0 <= action.energy < math.inf):
                raise InputError(
                    f"{path}: energy of {table.name} {action.name} must be a finite number of pJ, at least 0, "
                    f"not {action.energy}; run accelergy again"
                )
            key = (component, action.name)
            known[key] = max(known.get(key, 0.0), action.energy)
    found = [_matches(known, entry) for entry in base.per_event]
    missing = [_label(entry) for entry, matches in zip(base.per_event, found, strict=True) if not matches]
    if missing:
        have = [f"{component}.{action}" for component, action in known]
        raise InputError(
            f"{path}: the ERT must give {_shorten(missing, 40)}, and has {_shorten(have, 12)}; "
            f"name its components and actions as table {base.name} does"
        )
    for entry, matches in zip(base.per_event, found, strict=True):
        if len({known[match] for match in matches}) > 1:
            names = " and ".join(component for component, _ in matches)
            raise InputError(f"{path}: {_label(entry)} must have one energy, and {names} differ; keep one of them")
    try:
        events = [
            msgspec.structs.replace(entry, pj=known[matches[0]], source=f"Accelergy ERT {path.name}")
            for entry, matches in zip(base.per_event, found, strict=True)
        ]
    except ValueError as error:
        raise InputError(f"{path}: {error}; run accelergy again") from None
    # Node and area of the base belong to the base's technology: an ERT tells neither.
    return EnergyTable(name=path.name, mode="event", word_bits=base.word_bits, per_event=events)


def _parse_ert(path: Path) -> _Ert:
    text = read_text(path, "an energy table")
    try:
        import yaml
    except ImportError:
        raise InputError(f"{path}: reading an Accelergy ERT needs PyYAML: pip install gossamer[accelergy]") from None
    try:
        # strict=False: YAML 1.1 takes 1e-09, without a point, for a string.
        ert = msgspec.convert(_load_yaml(text), _ErtFile, strict=False).ERT
    except msgspec.ValidationError as error:
        raise InputError(
            f"{path}: not an Accelergy ERT of version 0.3 or 0.4: {one_line(error)}; run accelergy again"
        ) from None
    # The parser raises what a tag leads it into: KeyError of a !!bool that is none, IndexError of an empty !!int.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise InputError(f"{path}: an Accelergy ERT must be YAML: {one_line(error)}") from None
    if ert.version not in (0.3, 0.4):
        raise InputError(f"{path}: ERT version must be 0.3 or 0.4, not {ert.version:g}; run a newer accelergy")
    return ert


def _load_yaml(text: str) -> object:
    """Return what ``text`` holds.

    It has no aliases: a few lines of them can stand for more than memory holds. Nor is it nested deep, which YAML's
    reader takes ages for.
    """
    import yaml

    class Plain(yaml.SafeLoader):
        depth = 0

        def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("without aliases (*name), and has some; write them out")
            if self.depth >= DEEPEST:
                raise yaml.YAMLError(f"of at most {DEEPEST} levels, and has more; write less of it")
            self.depth += 1
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

    return yaml.load(text, Plain)


def _matches(known: Iterable[tuple[str, str]], entry: PerEvent) -> list[tuple[str, str]]:
    if entry.component is None:
        return []
    return [
        (component, action)
        for component, action in known
        if action == entry.action and f".{component}".endswith(f".{entry.component}")
    ]


def _label(entry: PerEvent) -> str:
    return f"{entry.component}.{entry.action}" if entry.component else f"a component for count {entry.count}"


def _without_indices(name: str) -> str:
    """Return ``name`` without the [first..last] index of any of its dotted parts."""
    kept = [piece.partition("]")[2] if index else piece for index, piece in enumerate(name.split("["))]
    return "".join(kept)


def _shorten(names: Sequence[str], most: int) -> str:
    if not names:
        return "none"
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _check_value(name: str, value: float, part: str, source: str) -> None:
    if not (0 <= value < math.inf):
        raise ValueError(f"{name} must be a finite number of at least 0, not {value} ({part})")
    if value > MOST:
        raise ValueError(f"{name} must be at most {MOST:g}, not {value:g} ({part})")
    if not source.strip():
        raise ValueError(f"every value must name its source, or say assumed, and {part} is silent")

"""What a store holds, chosen by conditions on any column and written as CSV, JSON or Parquet."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..simulator.store import Store, Stored
from ..workloads.errors import InputError, nearest
from ..workloads.extras import need
from ..workloads.names import fits
from .rows import Row, case_rows
from .tables import cases_table

if TYPE_CHECKING:
    from rich.console import RenderableType

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le, ">=": operator.ge, "!=": operator.ne, "<": operator.lt, ">": operator.gt, "=": operator.eq,
}  # fmt: skip
_CONDITION = re.compile(r"\s*([^\s<>=!]+)\s*(<=|>=|!=|<|>|=)(.*)", re.DOTALL)


@dataclass(frozen=True)
class Condition:
    """A rule on one column: numbers compare as numbers; words are equal where they fit ``value``, a shell pattern."""

    column: str
    sign: str
    value: str

    @classmethod
    def of(cls, text: str) -> Condition:
        """Return the condition that ``text`` states, as in pe_count>=16. Raises InputError."""
        met = _CONDITION.fullmatch(text)
        if met is None:
            raise InputError(
                f"--where must be COLUMN=VALUE, or have !=, <, <=, > or >=, not {text!r}; as in pe_count>=16"
            )
        return cls(met[1], met[2], met[3].strip())

    def holds(self, row: Row) -> bool:
        """Tell whether ``row`` keeps the rule; one without a figure in the column only keeps != ."""
        met = row.get(self.column)
        if isinstance(met, bool):
            met = str(met).lower()
        if met is None:
            return self.sign == "!="
        number = _number(self.value)
        if isinstance(met, int | float) and number is not None:
            return _OPERATORS[self.sign](met, number)
        if self.sign in ("=", "!="):
            return fits(str(met), self.value) == (self.sign == "=")
        raise InputError(
            f"--where {self.column}{self.sign}{self.value}: {self.sign} compares numbers, not "
            f"{(self.value if number is None else met)!r}; use ="
        )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


@dataclass(frozen=True)
class Chosen:
    """The cases of a store that keep every condition: rows as in `COLUMNS`, and what the store says of each."""

    rows: list[Row]
    cases: list[Stored]

    def table(self) -> RenderableType:
        """Return the cases as a table for a terminal."""
        warned = [case.result.warnings for case in self.cases if case.result is not None]
        return cases_table(self.rows, [case.settings for case in self.cases], warned)


def choose(store: Store, where: Sequence[str] = ()) -> Chosen:
    """Return the cases of ``store`` that keep all of ``where``, by trace, machine and settings.

    Speed-ups are over the first case of the same trace and machine in that order, chosen or not.
    Raises InputError for a condition that cannot be read, or on a column that no case has.
    """
    conditions = [Condition.of(text) for text in where]
    cases = list(store.cases())
    rows = case_rows(cases)
    for row, case in zip(rows, cases, strict=True):
        if case.result is not None:
            row |= {"engine": case.result.engine, "version": case.result.version}
    known = columns_of(rows)
    for condition in conditions:
        if rows and condition.column not in known:
            raise InputError(
                f"--where {condition.column}: the store must have that column, and has not"
                f"{nearest(condition.column, known)}; it has {', '.join(known)}"
            )
    kept = [i for i, row in enumerate(rows) if all(condition.holds(row) for condition in conditions)]
    return Chosen([rows[i] for i in kept], [cases[i] for i in kept])


def columns_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the columns of ``rows`` in the order in which they first occur."""
    return list(dict.fromkeys(column for row in rows for column in row))


def parquet_bytes(rows: Sequence[Row]) -> bytes:
    """Return ``rows`` as a Parquet file (needs the extra parquet); a column of several kinds becomes one of strings."""
    need("parquet", "pyarrow")
    import io

    import pyarrow
    import pyarrow.parquet

    arrays = {}
    for column in columns_of(rows):
        values = [row.get(column) for row in rows]
        try:
            arrays[column] = pyarrow.array(values)
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, OverflowError):
            arrays[column] = pyarrow.array([None if value is None else str(value) for value in values])
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(arrays), file)
    return file.getvalue()

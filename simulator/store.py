"""A store of results: one SQLite file, one row a case, safe to interrupt and to share."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import msgspec

from ..workloads.errors import InputError
from .result import Result

SCHEMA_VERSION = 1
COLUMNS = ["key", "trace", "machine", "settings", "result", "error"]
_TABLE = """
create table if not exists cases (
    key text primary key,          -- sha256 of trace, machine, engine and version
    trace text not null,           -- the trace's name
    machine text not null,         -- the machine's name
    settings text not null,        -- what the sweep varied, as JSON
    result text,                   -- gossamer.result/1 as JSON, null where the case failed
    error text                     -- why it failed, null where it did not
) without rowid
"""


class Stored(NamedTuple):
    """One case as the store has it: its result, or the error that it ended in."""

    trace: str
    machine: str
    settings: dict[str, Any]
    result: Result | None
    error: str | None


class Store:
    """The results of a sweep, kept in the SQLite file at ``path``, or in memory where that is None.

    Every case is committed when it is saved (write-ahead log): an interrupted sweep loses nothing that it finished.
    ``must_exist``: whoever only reads makes no file. Raises InputError where the file is not a store, is of a newer
    version, or cannot be written.
    """

    def __init__(self, path: str | Path | None, *, must_exist: bool = False) -> None:
        self._name = ":memory:" if path is None else str(path)
        if must_exist and (path is None or not Path(path).is_file() or Path(path).stat().st_size == 0):
            raise InputError(
                f"{self._name}: a store must be a file that gossamer sweep --store made, and none is there; "
                "check the path"
            )
        try:
            self._db = sqlite3.connect(self._name, timeout=60, isolation_level=None)
        except sqlite3.Error as error:
            raise self._unusable(error) from None
        try:
            self._prepare()
        except sqlite3.Error as error:
            self.close()
            raise self._unusable(error) from None
        except InputError:
            self.close()
            raise

    def _prepare(self) -> None:
        version = self._db.execute("pragma user_version").fetchone()[0]
        tables = {name for (name,) in self._db.execute("select name from sqlite_master where type = 'table'")}
        columns = [name for (_, name, *_) in self._db.execute("pragma table_info(cases)")]
        if version > SCHEMA_VERSION:
            raise InputError(
                f"{self._name}: store version must be at most {SCHEMA_VERSION}, not {version}; upgrade gossamer"
            )
        if (version == 0 and tables) or (version != 0 and columns != COLUMNS):
            raise InputError(
                f"{self._name}: a store must be a file that gossamer made, and this database has other tables; "
                "choose another"
            )
        self._db.execute("pragma journal_mode = wal")
        self._db.execute("pragma synchronous = normal")
        if version == 0:
            self._db.execute(_TABLE)
            self._db.execute(f"pragma user_version = {SCHEMA_VERSION}")

    def _unusable(self, error: sqlite3.Error) -> InputError:
        return InputError(f"{self._name}: a store must be a writable SQLite file: {error}; choose another")

    def finished(self, keys: Iterable[str]) -> set[str]:
        """Return those of ``keys`` whose case is done; a case that failed is not."""
        done = {key for (key,) in self._db.execute("select key from cases where result is not null")}
        return done.intersection(keys)

    def save(self, key: str, trace: str, machine: str, settings: str, result: str | None, error: str | None) -> None:
        """Store a case, in place of an earlier one of the same key."""
        row = (key, trace, machine, settings, result, error)
        try:
            self._db.execute("insert or replace into cases values (?, ?, ?, ?, ?, ?)", row)
        except sqlite3.Error as problem:
            raise InputError(f"{self._name}: a case could not be stored: {problem}; make room, then resume") from None

    def load(self, keys: Iterable[str]) -> Iterator[tuple[str | None, str | None]]:
        """Yield (result, error) of each case in the order of ``keys``; (None, None) for one that was never run."""
        for key in keys:
            row = self._db.execute("select result, error from cases where key = ?", (key,)).fetchone()
            yield (None, None) if row is None else (row[0], row[1])

    def cases(self) -> Iterator[Stored]:
        """Yield every case of the store by trace, machine and settings. Raises InputError where a row is damaged."""
        try:
            rows = self._db.execute("select trace, machine, settings, result, error from cases").fetchall()
        except sqlite3.Error as problem:
            raise InputError(f"{self._name}: a store must be a whole SQLite file: {problem}; delete it") from None
        made = []
        for trace, machine, settings, text, error in rows:
            try:
                varied = msgspec.json.decode(settings, type=dict[str, Any])
            except msgspec.MsgspecError as problem:
                raise InputError(f"{self._name}: stored settings are damaged: {problem}; delete the store") from None
            made.append(Stored(trace, machine, varied, None if text is None else self.read(text), error))
        return iter(sorted(made, key=_place))

    def read(self, text: str) -> Result:
        """Return the result that ``text``, of a row of this store, holds. Raises InputError where it is damaged."""
        try:
            return msgspec.json.decode(text, type=Result)
        except msgspec.MsgspecError as error:
            raise InputError(f"{self._name}: a stored result is damaged: {error}; delete the store") from None

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _place(case: Stored) -> tuple[Any, ...]:
    """Return what a case is sorted by; values of different kinds do not compare, their kinds do."""
    kinds = [(name, isinstance(v, str), v if isinstance(v, (int, float, str)) else 0) for name, v in
             case.settings.items()]  # fmt: skip
    made_by = ("", "") if case.result is None else (case.result.version, case.result.engine)
    return case.trace, case.machine, kinds, made_by

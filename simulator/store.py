"""A store of results: one SQLite file, one row a case, safe to interrupt and to share."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import msgspec

from ..workloads.errors import InputError
from .result import Result

SCHEMA_VERSION = 1
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
        found = None if path is None else Path(path)
        if found is not None and found.exists() and not (found.is_file() or found.is_dir()):
            # SQLite would put its journal beside a device.
            raise InputError(f"{self._name}: a store must be a regular file, not a pipe or a device; choose another")
        if not must_exist:
            self._open(self._name)
            return
        place = Path(self._name).absolute().as_uri()
        try:
            self._open(f"{place}?mode=ro")
        except InputError:
            # In a folder that cannot be written SQLite reads only what it is told that nobody writes to.
            log = Path(f"{self._name}-wal")
            if os.access(Path(self._name).parent, os.W_OK) or (log.exists() and log.stat().st_size):
                raise
            self._open(f"{place}?immutable=1")

    def _open(self, name: str) -> None:
        is_link = name.startswith("file:")
        try:
            self._db = sqlite3.connect(name, timeout=60, isolation_level=None, uri=is_link)
        except sqlite3.Error as error:
            raise self._unusable(error) from None
        try:
            self._db.execute("pragma trusted_schema = off")  # what a file defines is not to be run
            self._db.execute("begin")
            is_new = self._is_new()
            self._db.execute("commit")
            if not is_link:
                self._prepare(is_new)
        except (sqlite3.Error, UnicodeDecodeError) as error:  # SQLite quotes in its errors what it cannot read
            self.close()
            raise self._unusable(error) from None
        except InputError:
            self.close()
            raise

    def _prepare(self, is_new: bool) -> None:
        until = time.monotonic() + 60
        while True:  # SQLite waits for others by itself, but not to change the journal
            try:
                self._db.execute("pragma journal_mode = wal")
                break
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
                time.sleep(0.01)
        self._db.execute("pragma synchronous = normal")
        if is_new:
            self._db.execute("begin immediate")
            if self._is_new():  # and nobody else has made it since
                self._db.execute(_TABLE)
                self._db.execute(f"pragma user_version = {SCHEMA_VERSION}")
            self._db.execute("commit")

    def _is_new(self) -> bool:
        """Tell whether the file is empty yet. Raises InputError where it is not, and no store."""
        version = self._db.execute("pragma user_version").fetchone()[0]
        scheme = _scheme(self._db)
        if version > SCHEMA_VERSION:
            raise InputError(
                f"{self._name}: store version must be at most {SCHEMA_VERSION}, not {version}; upgrade gossamer"
            )
        # Nothing but the one table as it was made: a view or a trigger would run when the table is read or written.
        if scheme != (_own_scheme() if version == SCHEMA_VERSION else []):
            raise InputError(
                f"{self._name}: a store must be a file that gossamer made, and this database has other tables; "
                "choose another"
            )
        return bool(version == 0)

    def _unusable(self, error: Exception) -> InputError:
        return InputError(f"{self._name}: a store must be a writable SQLite file: {error}; choose another")

    def finished(self, keys: Iterable[str]) -> set[str]:
        """Return those of ``keys`` whose case is done; a case that failed is not."""
        done = {key for (key,) in self._rows("select key from cases where result is not null")}
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
            rows = self._rows("select result, error from cases where key = ?", key)
            yield (rows[0][0], rows[0][1]) if rows else (None, None)

    def cases(self) -> Iterator[Stored]:
        """Yield every case of the store by trace, machine and settings. Raises InputError where a row is damaged."""
        made = []
        for trace, machine, settings, text, error in self._rows(
            "select trace, machine, settings, result, error from cases"
        ):
            try:
                varied = msgspec.json.decode(settings, type=dict[str, Any])
            except (msgspec.MsgspecError, RecursionError) as problem:
                raise InputError(f"{self._name}: stored settings are damaged: {problem}; delete the store") from None
            made.append(Stored(trace, machine, varied, None if text is None else self.read(text), error))
        return iter(sorted(made, key=_place))

    def _rows(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        """Return the rows of ``query``, text or null each. Raises InputError where the file is damaged."""
        try:
            rows = self._db.execute(query, values).fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as problem:
            raise InputError(f"{self._name}: a store must be a whole SQLite file: {problem}; delete it") from None
        # SQLite keeps whatever it is given, whichever type its column has. The last two may be null: result and error.
        if any(not isinstance(item, str | None) for row in rows for item in row) or any(
            None in row[:-2] for row in rows
        ):
            raise InputError(f"{self._name}: a store must hold text, and has a row that does not; delete the store")
        return rows

    def read(self, text: str) -> Result:
        """Return the result that ``text``, of a row of this store, holds. Raises InputError where it is damaged."""
        try:
            return msgspec.json.decode(text, type=Result)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise InputError(f"{self._name}: a stored result is damaged: {error}; delete the store") from None

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _scheme(database: sqlite3.Connection) -> list[tuple[str, str, str]]:
    """Return kind, name and definition of all that ``database`` defines, comments and white space left out."""
    rows = database.execute("select type, name, sql from sqlite_master").fetchall()
    return sorted((str(kind), str(name), _plain(str(sql))) for kind, name, sql in rows)


def _plain(sql: str) -> str:
    return " ".join(re.sub(r"--.*", "", sql).split())


@cache
def _own_scheme() -> list[tuple[str, str, str]]:
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute(_TABLE)
        return _scheme(database)


def _place(case: Stored) -> tuple[Any, ...]:
    """Return what a case is sorted by; values of different kinds do not compare, their kinds do."""
    kinds = [(name, isinstance(v, str), v if isinstance(v, (int, float, str)) else 0) for name, v in
             case.settings.items()]  # fmt: skip
    made_by = ("", "") if case.result is None else (case.result.version, case.result.engine)
    return case.trace, case.machine, kinds, made_by

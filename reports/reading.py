"""Results from the files that commands write, checked, each with a name of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ..simulator.result import SCHEMA, LayerResult, Result, Totals, parse_result
from ..simulator.store import Store
from ..workloads.errors import InputError, shown
from ..workloads.files.container import one_line, read_bytes
from .stored import choose

LEAST, MOST = 1e-30, 2.0**63  # no figure of a simulation but 0 comes near
ARITHMETIC = {"rms_error", "rms_reference", "same_argmax", "saturated", "max_abs_error"}
SQLITE = b"SQLite format 3\0"


@dataclass(frozen=True)
class Inputs:
    """What files hold: ``results``, and a sentence for each case of a store that ``failed``."""

    results: list[Result]
    failed: list[str]


def read_inputs(paths: Iterable[str | Path], where: Sequence[str] = ()) -> Inputs:
    """Return what the files at ``paths`` hold, JSON and stores of sweeps alike.

    ``where``: conditions, as in pe_count>=16, that a case of a store must keep. Raises InputError.
    """
    results: list[Result] = []
    failed: list[str] = []
    for path in map(Path, paths):
        if is_store(path):
            one = read_store(path, where)
            results += one.results
            failed += one.failed
        elif where:
            raise InputError(f"{path}: --where chooses cases of a sweep's store, and this is none; leave it out")
        else:
            results += read_results(path)
    return Inputs(results, failed)


def is_store(path: str | Path) -> bool:
    """Tell whether the file at ``path`` is an SQLite database, as a sweep's store is."""
    try:
        if not Path(path).is_file():  # what is read of a pipe is gone
            return False
        with Path(path).open("rb") as file:
            return file.read(len(SQLITE)) == SQLITE
    except (OSError, ValueError):
        return False


def read_store(path: str | Path, where: Sequence[str] = ()) -> Inputs:
    """Return the cases of a sweep's store that keep ``where``, those that failed as sentences. Raises InputError."""
    with Store(path, must_exist=True) as store:
        cases = choose(store, where).cases
    found = [case.result for case in cases if case.result is not None]
    if not found:
        nothing = f"none that keeps --where {' and '.join(where)}" if where else "none at all"
        met = f"{len(cases):,} that failed" if cases else nothing
        raise InputError(f"{path}: a store must hold a finished case to be shown, and holds {met}; choose others")
    for result in found:
        check_result(result, str(path))
    failed = [
        ", ".join([f"{case.trace} on {case.machine}", *(f"{k}={v}" for k, v in case.settings.items())])
        + f": {case.error or 'not run'}"
        for case in cases
        if case.result is None
    ]
    return Inputs(found, failed)


def read_results(path: str | Path) -> list[Result]:
    """Return the results in the file at ``path``: of a simulation, a comparison or a store. Raises InputError."""
    if is_store(path):
        return read_store(path).results
    path = Path(path)
    data = read_bytes(path, "a result file")
    if not data.lstrip().startswith(b"["):
        found = [parse_result(data, path)]
    else:
        try:
            found = msgspec.json.decode(data, type=list[Result])
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise InputError(
                f"{path}: not a list of {SCHEMA}: {one_line(error)}; write it with gossamer compare"
            ) from None
        if not found or any(result.schema != SCHEMA for result in found):
            met = "an empty list" if not found else shown(next(r.schema for r in found if r.schema != SCHEMA))
            raise InputError(f"{path}: results must be of schema {SCHEMA}, not {met}; write it with gossamer compare")
    for result in found:
        check_result(result, str(path))
    return found


def check_result(result: Result, where: str) -> None:
    """Raise InputError, beginning with ``where``, for numbers that no simulation gives and no page can show."""
    remedy = "write it again with gossamer simulate"
    if result.samples < 1:
        raise InputError(f"{where}: samples must be at least 1, not {result.samples}; {remedy}")
    if not result.layers:
        raise InputError(f"{where}: layers must be at least one, and there is none; {remedy}")
    parts: list[tuple[str, Totals | LayerResult]] = [("total", result.total), *((x.name, x) for x in result.layers)]
    for place, figures_ in parts:
        data = msgspec.to_builtins(figures_)
        for name in ("warnings", "tiling", "name", "op"):
            data.pop(name, None)
        arithmetic = data.pop("arithmetic", None)
        for name, value in _numbers(data):
            if value != 0 and not LEAST <= value < MOST:
                limits = f"0, or from {LEAST:g} to 2^63"
                raise InputError(f"{where}: {place}: {name} must be {limits}, not {_short(value)}; {remedy}")
        energy = figures_.energy_j
        if energy is not None and energy.total and not any(energy.by_part.values()):
            raise InputError(f"{where}: {place}: energy_j.by_part must add up to the total, and is nothing; {remedy}")
        if arithmetic is not None and not set(arithmetic) >= ARITHMETIC:
            raise InputError(f"{where}: {place}: arithmetic must have {', '.join(sorted(ARITHMETIC))}; {remedy}")
        roof = {"macs_per_byte", "ridge_macs_per_byte", "bound_macs_per_s", "achieved_macs_per_s"}
        for queue in figures_.queues.values():
            seen = queue.over_time
            if seen is not None and (seen.step < 1 or not len(seen.mean) == len(seen.least) == len(seen.most)):
                raise InputError(
                    f"{where}: {place}: a queue over time must have as many mean, least and most; {remedy}"
                )
        if data.get("roofline") is not None and not roof <= set(data["roofline"]):
            raise InputError(f"{where}: {place}: roofline must have {', '.join(sorted(roof))}; {remedy}")


def result_names(results: Sequence[Result]) -> list[str]:
    """Return a name a result that tells it from the others: trace, machine, and the config fields that differ."""
    plain = [f"{result.trace.name} on {result.machine.name}" for result in results]
    twins: dict[str, list[Result]] = {}
    for result, name in zip(results, plain, strict=True):
        twins.setdefault(name, []).append(result)
    varied = {name: _varied([result.machine.config for result in members]) for name, members in twins.items()}
    names: dict[str, None] = {}
    for place, (result, name) in enumerate(zip(results, plain, strict=True)):
        config = result.machine.config
        full = ", ".join([name, *(f"{key}={config[key]}" for key in varied[name] if key in config)])
        names[full if full not in names else f"{full} ({place + 1})"] = None
    return list(names)


def _varied(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the fields in which ``configs`` differ, in order."""
    keys = dict.fromkeys(key for config in configs for key in config)
    return [key for key in keys if any(config.get(key) != configs[0].get(key) for config in configs)]


def _short(value: float) -> str:
    return f"{value:g}" if abs(value) < 1e300 else "a number beyond 1e300"


def _numbers(data: Any, name: str = "") -> Iterable[tuple[str, float]]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _numbers(value, f"{name}.{key}" if name else str(key))
    elif isinstance(data, list | tuple):
        for value in (min(data), max(data)) if set(map(type, data)) == {int} else data:
            yield from _numbers(value, name)
    elif isinstance(data, int | float) and not isinstance(data, bool):
        yield name, data

"""Machines by name or from a file: TOML in, a checked `Machine` out."""

from __future__ import annotations

import importlib
import math
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from ..simulator.energy import EnergyTable, read_energy_table
from ..simulator.machine import Machine
from ..workloads.errors import InputError, nearest, shown
from ..workloads.files.settings import parse_toml, read_toml

ENERGY_SUFFIXES = (".toml", ".yaml", ".yml")
BASES_LIMIT = 32  # above one another
LEAST, MOST = 1e-24, 1e24  # of a number that is not 0: no hardware has others, and their quotients stay finite
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}


def list_machines() -> dict[str, str]:
    """Return the bundled machines: name and description, by name."""
    folder = resources.files(__package__) / "configs"
    names = sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
    return {name: str(_read(folder / f"{name}.toml").get("description", "")) for name in names}


def list_energy_tables() -> list[str]:
    """Return the names of the bundled energy tables."""
    folder = resources.files(__package__) / "energy"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_machine(source: str | Path, **overrides: Any) -> Machine:
    """Return the machine that ``source`` names: a bundled configuration, or the path of a TOML file.

    ``overrides`` replace fields of its Config. Raises InputError naming the file, the rule, the value and the remedy
    for a missing file, an unknown key or model, or a value of the wrong kind or out of range.
    """
    settings, where = _settings(str(source), ())
    model = settings.pop("model", None)
    config_type = _config_type(model, where)
    known = {field.name for field in msgspec.structs.fields(config_type)}
    sources = settings.pop("sources", {})
    settings.pop("description", None)
    if not isinstance(sources, dict):
        raise InputError(f"{where}: sources must be a table of strings, not {shown(sources)}")
    for key in (*sources, *settings):
        if key not in known:
            raise InputError(_unknown_key(where, key, model, known))
    config = _config(settings, config_type, where)
    table = _energy_table(config, _module_name(model), where)
    machine = Machine(name=_stem(where), model=model, module=_module_name(model), config=config, energy=table)
    return vary(machine, **overrides) if overrides else machine


def vary(machine: Machine, **overrides: Any) -> Machine:
    """Return ``machine`` with fields of its Config replaced; errors are those of `load_machine`."""
    config_type: Any = type(machine.config)
    known = _kinds_of(config_type)
    for key in overrides:
        if key not in known:
            raise InputError(_unknown_key(machine.name, key, machine.model, set(known)))
    settings = {**msgspec.structs.asdict(machine.config), **overrides}
    config = _config(settings, config_type, machine.name)
    table = machine.energy
    if getattr(config, "energy", None) != getattr(machine.config, "energy", None):
        table = _energy_table(config, machine.module, machine.name)
    return replace(machine, config=config, energy=table)


@cache  # msgspec works the annotations out anew each time, and a sweep asks for every point
def _kinds_of(config_type: Any) -> dict[str, Any]:
    return {field.name: field.type for field in msgspec.structs.fields(config_type)}


def _config(settings: dict[str, Any], config_type: type[msgspec.Struct], where: str) -> Any:
    kinds = _kinds_of(config_type)
    for key, value in settings.items():
        _check_kind(where, key, value, kinds[key])
    try:
        return msgspec.convert(settings, config_type)
    except msgspec.ValidationError as error:
        # A rule of the Config arrives as msgspec's wrapping of its message; a missing field as msgspec's own.
        message = str(error).split(" - at `$")[0].replace("Object missing required field", "missing key")
        raise InputError(f"{where}: {message}") from None


def _settings(source: str, chain: tuple[str, ...]) -> tuple[dict[str, Any], str]:
    """Return the keys of a configuration over those of its base, and the words that name it in errors."""
    if len(chain) > BASES_LIMIT:
        raise InputError(f"{chain[0]}: a base may have a base, but not {BASES_LIMIT} of them; state more in one file")
    if source in chain:
        raise InputError(f"{source}: a base must not lead back to itself, and {' -> '.join((*chain, source))} does")
    bundled = resources.files(__package__) / "configs"
    if source.endswith(".toml") or "/" in source or "\\" in source:
        path: Any = Path(source)
    else:
        path = bundled / f"{source}.toml"
        if f"{source}.toml" not in {entry.name for entry in bundled.iterdir()}:
            names = list_machines()
            raise InputError(
                f"unknown machine {source!r}{nearest(source, names)}; known: {', '.join(names)}, or the path of a .toml"
            )
    settings = _read(path)
    energy = settings.get("energy")
    if isinstance(path, Path) and isinstance(energy, str) and energy.endswith(ENERGY_SUFFIXES):
        settings["energy"] = str(path.parent / energy)  # beside the file that names it, as a base is
    base = settings.pop("base", None)
    if base is None:
        return settings, source
    if not isinstance(base, str):
        raise InputError(f"{source}: base must be a string, not {shown(base)}")
    if base.endswith(".toml") and not Path(base).is_absolute() and isinstance(path, Path):
        base = str(path.parent / base)
    under, _ = _settings(base, (*chain, source))
    merged = under | settings
    if isinstance(under.get("sources"), dict) and isinstance(settings.get("sources"), dict):
        merged["sources"] = under["sources"] | settings["sources"]
    return merged, source


def _read(path: Any) -> dict[str, Any]:
    # What is bundled may lie in an archive, and then has no path.
    return read_toml(path, "a machine file") if isinstance(path, Path) else parse_toml(path.read_text("utf-8"))


@cache
def _models() -> dict[str, str]:
    """Return the modules beside this one that have a bundled configuration: model name and full module name."""
    folder = resources.files(__package__) / "configs"
    models = {_read(entry).get("model") for entry in folder.iterdir() if entry.name.endswith(".toml")}
    return {str(model): f"{__package__}.{model}" for model in sorted(m for m in models if m)}


def _module_name(model: str) -> str:
    return f"{__package__}.{model}"


def _config_type(model: Any, where: str) -> type[msgspec.Struct]:
    known = _models()
    if not isinstance(model, str) or not (model in known or _is_model(model)):
        raise InputError(
            f"{where}: unknown model {shown(model)}{nearest(shown(model)[1:-1], known)}; known: {', '.join(known)}"
        )
    config_type: type[msgspec.Struct] = importlib.import_module(_module_name(model)).Config
    return config_type


def _is_model(model: str) -> bool:
    """Tell whether a module beside this one is a model, though no bundled configuration uses it yet."""
    beside = {entry.name for entry in resources.files(__package__).iterdir()}
    if not model.isidentifier() or f"{model}.py" not in beside:
        return False
    module = importlib.import_module(_module_name(model))
    return all(hasattr(module, name) for name in ("Config", "fast", "events"))


def _check_kind(where: str, key: str, value: Any, kind: Any) -> None:
    if kind not in _KINDS:
        return
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise InputError(f"{where}: {key} must be {_KINDS[kind]} of 64 bits, not {shown(value)}")
    if isinstance(value, float) and math.isfinite(value) and value != 0 and not LEAST <= abs(value) <= MOST:
        raise InputError(f"{where}: {key} must be 0 or from {LEAST:g} to {MOST:g}, not {value}")
    fits = isinstance(value, kind) or (kind is float and isinstance(value, int))
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{where}: {key} must be {_KINDS[kind]}, not {shown(value)}")
    if isinstance(value, str) and not value.isprintable():
        raise InputError(f"{where}: {key} must be text that can be printed, not {shown(value)}")


def _energy_table(config: Any, module: str, where: str) -> EnergyTable | None:
    name = getattr(config, "energy", "")
    return load_energy_table(name, module, where) if name else None


def load_energy_table(name: str, module: str, where: str) -> EnergyTable:
    """Return the energy table ``name``, a bundled one or the path of a file, for the model in ``module``.

    ``where`` names the machine in errors: InputError for a table that is unknown or cannot be read.
    """
    if not name.endswith(ENERGY_SUFFIXES):
        known = list_energy_tables()
        if name not in known:
            raise InputError(
                f"{where}: unknown energy table {name!r}{nearest(name, known)}; known: {', '.join(known)}, "
                "or the path of a .toml or of an Accelergy .yaml"
            )
        with resources.as_file(resources.files(__package__) / "energy" / f"{name}.toml") as path:
            return read_energy_table(path)
    if name.endswith(".toml"):
        return read_energy_table(Path(name))
    base = getattr(importlib.import_module(module), "ERT_BASE", None)
    if base is None:
        return read_energy_table(Path(name))
    with resources.as_file(resources.files(__package__) / "energy" / f"{base}.toml") as path:
        return read_energy_table(Path(name), base=read_energy_table(path))


def _unknown_key(where: str, key: str, model: str, known: set[str]) -> str:
    return f"{where}: unknown key {shown(key)}{nearest(key, known)}; model {model} knows {', '.join(sorted(known))}"


def _stem(source: str) -> str:
    return Path(source).stem if source.endswith(".toml") else source

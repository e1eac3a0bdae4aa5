"""The reference pages list every field, option, column and value that the code has, as the code has it."""

import importlib
import re
import tomllib
from pathlib import Path

import msgspec
import pytest
import typer

import gossamer
from gossamer.__main__ import app
from gossamer.models import list_energy_tables, load_machine
from gossamer.reports.rows import COLUMNS
from gossamer.simulator import energy, result
from gossamer.workloads import InputError
from gossamer.workloads.files import trace_file
from gossamer.workloads.training import Recipe

DOCS = Path(__file__).resolve().parents[1] / "docs"


def rows_of(page, heading):
    """Return the cells of each row of the first table under ``heading``, code marks removed."""
    text = (DOCS / page).read_text("utf-8")
    _, found, rest = text.partition(f"\n{heading}\n")
    assert found, f"{page} needs a heading {heading!r}"
    rows = []
    for line in rest.splitlines():
        if line.startswith("|"):
            rows.append([cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif rows or line.startswith("#"):
            break
    assert len(rows) > 2, f"{page} needs a table under {heading!r}"
    return rows[2:]


MACHINES = [
    ("eie", "eie-64pe"), ("ese", "ese"), ("systolic", "systolic-16x16"), ("tensorcore", "a100-sparse"),
    ("sparseloop_stc", "sparseloop-stc"), ("dstc", "dstc-a100"), ("patdnn", "patdnn-kryo485"), ("pointacc", "pointacc"),
    ("torchsparse", "torchsparse-2080ti"), ("spatten", "spatten"), ("csr_spmm", "a100-sputnik"),
    ("block_ell", "a100-block-ell"),
]  # fmt: skip


def fields_of(kind):
    return [field.encode_name for field in msgspec.structs.fields(kind)]


def test_the_reference_has_every_model():
    configs = (Path(gossamer.__file__).parent / "models" / "configs").glob("*.toml")
    models = {tomllib.loads(path.read_text("utf-8")).get("model") for path in configs} - {None}
    assert {model for model, _ in MACHINES} == models


@pytest.mark.parametrize("package", ["models", "simulator", "workloads"])
def test_the_reference_of_python_has_every_public_name(package):
    named = importlib.import_module(f"gossamer.{package}").__all__
    listed = re.findall(r"^::: gossamer\.(\S+)$", (DOCS / "reference" / "python.md").read_text("utf-8"), re.MULTILINE)
    assert set(named) <= {path.rpartition(".")[2] for path in listed if path.startswith(f"{package}.")}


@pytest.mark.parametrize(("model", "preset"), MACHINES)
def test_the_reference_lists_every_field_of_a_machine_with_its_value(model, preset):
    rows = rows_of("reference/machines.md", f"## {model}")
    config = msgspec.to_builtins(load_machine(preset).config)
    shown = {name: value for name, value, *_ in rows}
    assert shown == {name: toml_word(value) for name, value in config.items()}


@pytest.mark.parametrize(("model", "preset"), MACHINES)
def test_the_ranges_in_the_reference_are_those_that_are_enforced(model, preset):
    for name, _, _, span, _ in rows_of("reference/machines.md", f"## {model}"):
        ends = re.fullmatch(r"([\d,]+) to (?:2\^(\d+)|([\d,]+))", span)
        if ends is None:
            continue
        least = int(ends[1].replace(",", ""))
        greatest = 2 ** int(ends[2]) if ends[2] else int(ends[3].replace(",", ""))
        for value in (least, greatest):
            load_machine(preset, **{name: value})
        for value in (least - 1, greatest + 1):
            with pytest.raises(InputError, match=f"{name} must be at"):
                load_machine(preset, **{name: value})


def toml_word(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value >= 1e6:
        return f"{value / 1e9:g}e9" if value >= 1e9 else f"{value / 1e6:g}e6"
    return f"{value:,}" if isinstance(value, int) else str(value)


@pytest.mark.parametrize(
    "name", ["Result", "TraceId", "MachineId", "LayerResult", "Totals", "Queue", "OverTime", "Energy"]
)
def test_the_reference_lists_every_field_of_a_result(name):
    rows = rows_of("reference/results.md", f"### {name}")
    assert [row[0] for row in rows] == fields_of(getattr(result, name))


def test_the_reference_defines_every_column():
    rows = [tuple(row) for row in rows_of("reference/results.md", "## Columns")]
    assert rows == [(column, *meaning) for column, meaning in COLUMNS.items()]


@pytest.mark.parametrize("name", ["EnergyTable", "PerCycle", "PerEvent", "Area"])
def test_the_reference_lists_every_field_of_an_energy_table(name):
    rows = rows_of("reference/energy.md", f"### {name}")
    assert [row[0] for row in rows] == fields_of(getattr(energy, name))


def bundled_energy_table(name):
    return energy.read_energy_table(Path(gossamer.__file__).parent / "models" / "energy" / f"{name}.toml")


@pytest.mark.parametrize("name", list_energy_tables())
def test_the_reference_gives_every_value_of_an_energy_table(name):
    table = bundled_energy_table(name)
    values = [(e.part, e.unit, f"{e.pj:g}") for e in table.per_cycle]
    values += [(e.part, e.count, f"{e.pj:g}") for e in table.per_event]
    assert [tuple(row) for row in rows_of("reference/energy.md", f"### {name}")] == values


@pytest.mark.parametrize(("name", "kind"), [("Header", "Header"), ("Layer", "StoredLayer"), ("Pattern", "_Pattern")])
def test_the_reference_lists_every_key_of_a_trace_file(name, kind):
    rows = rows_of("reference/traces.md", f"### {name}")
    assert [row[0] for row in rows] == fields_of(getattr(trace_file, kind))


def test_the_how_to_lists_every_field_of_a_recipe_with_its_default():
    rows = rows_of("how-to/train.md", "## Every field")
    shown = {name: default for name, default, *_ in rows}
    wanted = {}
    for field in msgspec.structs.fields(Recipe):
        wanted[field.name] = "" if field.default in (msgspec.NODEFAULT, None) else recipe_word(field.default)
    assert shown == wanted


def recipe_word(value):
    return "[]" if value == () else toml_word(value) if isinstance(value, bool) else str(value)


def commands(group, path="gossamer"):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


COMMANDS = dict(commands(typer.main.get_command(app)))


def parameter_row(parameter):
    """Return name, default and meaning, as the reference shows them."""
    flags = [flag for flag in parameter.opts if flag.startswith("-")]
    name = " ".join([", ".join(flags), parameter.metavar or ""]).strip() or parameter.name.upper()
    default = parameter.default
    shown = "needed" if parameter.required else "" if default is None or default is False else str(default)
    return tuple(cell.replace("|", "\\|") for cell in (name, shown, parameter.help))


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_reference_lists_every_option_of_a_command(command):
    wanted = [parameter_row(parameter) for parameter in COMMANDS[command].params if parameter.name != "help"]
    assert [tuple(row) for row in rows_of("reference/command-line.md", f"## {command}")] == wanted


def test_the_reference_lists_no_command_that_is_not_there():
    text = (DOCS / "reference" / "command-line.md").read_text("utf-8")
    assert set(re.findall(r"^## (gossamer .+)$", text, re.MULTILINE)) == set(COMMANDS)

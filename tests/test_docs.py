"""The documentation: every command and every example is run, what is shown is what comes out, nothing is left out.

Blocks of a page run in order, in one empty folder. ```console: lines after ``$`` are run, must leave with status 0
unless ``$ echo $?`` follows, and print what is shown (``...`` stands for anything). ```python runs, in one namespace a
page; ```pycon is compared as doctest does. A block whose fence names a file (```toml wide.toml) is written there.
Blocks in any other language are only read.
"""

import contextlib
import doctest
import importlib.util
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
import typer

import gossamer
from gossamer.__main__ import app, main
from gossamer.models import list_energy_tables, load_machine
from gossamer.reports.rows import COLUMNS
from gossamer.simulator import energy, result
from gossamer.workloads import InputError
from gossamer.workloads.files import trace_file
from gossamer.workloads.training import Recipe

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.rglob("*.md")])
IN_A_COPY = DOCS / "how-to" / "add-an-accelerator.md"  # its module lies inside the package
FENCE = re.compile(r"^```(\w+)(?: +(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PICTURE = re.compile(r"!\[[^\]]*\]\(([^)\s]+\.svg)\)")
HAVE_TORCH = all(importlib.util.find_spec(name) for name in ("torch", "sklearn"))


@dataclass(frozen=True)
class Block:
    language: str
    file: str | None
    text: str
    line: int


def blocks_of(page):
    text = page.read_text("utf-8")
    for match in FENCE.finditer(text):
        yield Block(match[1], match[2], match[3], text.count("\n", 0, match.start()) + 1)


def commands_of(block):
    """Return (command, shown lines) for each ``$`` of a console block; a command may go on after a backslash."""
    commands = []
    for line in block.text.replace("\\\n", "").splitlines():
        if line.startswith("$ "):
            commands.append((line[2:], []))
        elif line.strip():
            commands[-1][1].append(line)
    return commands


def runs_here(command):
    return not command.startswith("python3 -m venv")  # an installation: CI runs it, in a fresh clone


def needs_torch(page):
    return any(
        re.search(r"^\$ gossamer (train|search)|import torch", block.text, re.MULTILINE) for block in blocks_of(page)
    )


def check_shown(shown, output, where):
    """Compare what a page shows with what came out, blanks aside; ``...`` stands for any text, alone for any lines."""
    if not shown:
        return
    pattern = r"\n".join(
        r"(?:.*\n)*?.*" if line.strip() == "..." else re.escape(" ".join(line.split())).replace(r"\.\.\.", ".*")
        for line in shown
    )
    lines = [" ".join(line.split()) for line in output.splitlines()]
    met = "\n".join(line for line in lines if line)
    assert re.fullmatch(pattern, met), f"{where} shows\n" + "\n".join(shown) + f"\nand this came out\n{output}"


def run_here(arguments):
    """Run a gossamer command in this process; return status and all that it printed."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            status = main(arguments)
        except SystemExit as left:
            status = left.code
    return status, output.getvalue()


def run_outside(words, folder):
    """Run a command on the package in ``folder``, which lies in a folder of its own."""
    if words[0] == "gossamer":
        words = ["python", "-m", *words]
    words = [sys.executable if word == "python" else word for word in words]
    environment = os.environ | {"PYTHONPATH": str(folder.parent), "NO_COLOR": "1", "COLUMNS": "120"}
    done = subprocess.run(
        words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.returncode, done.stdout


def run_console(block, page, run):
    status = 0
    for command, shown in commands_of(block):
        where = f"{page.relative_to(ROOT)}, line {block.line}: {command}"
        if command == "echo $?":
            check_shown(shown, str(status), where)
            status = 0
            continue
        assert status == 0, f"before {where}, a command left with status {status}"
        if not runs_here(command):
            continue
        status, output = run(shlex.split(command))
        assert status in (0, 1, 2), f"{where}\n{output}"
        check_shown(shown, output, where)
        if status and shown == []:
            raise AssertionError(f"{where} left with status {status}\n{output}")
    assert status == 0, f"{page.name}, line {block.line}: the last command left with status {status}"


def run_page(page, folder, run):
    names = {"__name__": "page"}
    for block in blocks_of(page):
        where = f"{page.relative_to(ROOT)}, line {block.line}"
        if block.file is not None:
            path = folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        elif block.language == "console":
            run_console(block, page, run)
        elif block.language == "python":
            exec(compile(block.text, where, "exec"), names)
        elif block.language == "pycon":
            example = doctest.DocTestParser().get_doctest(block.text, names, where, str(page), block.line)
            report = io.StringIO()
            runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
            runner.run(example, out=report.write, clear_globs=False)
            names.update(example.globs)
            assert not runner.failures, report.getvalue()
    check_pictures(page, folder)


def check_pictures(page, folder):
    """Hold each picture of a page against the file of that name which its commands left; or put it there, if asked."""
    for target in PICTURE.findall(page.read_text("utf-8")):
        stored, made = page.parent / target, folder / Path(target).name
        assert made.exists(), f"{page.relative_to(ROOT)}: no command of the page makes {made.name}"
        if os.environ.get("GOSSAMER_WRITE_PICTURES"):
            stored.parent.mkdir(exist_ok=True)
            shutil.copyfile(made, stored)
        shown, drawn = stored.read_text("utf-8"), made.read_text("utf-8")
        assert words_of(shown) == words_of(drawn), f"{stored.relative_to(ROOT)} is not what its command draws"
        if drawn_by(shown) == drawn_by(drawn):
            assert shown == drawn, f"{stored.relative_to(ROOT)} is not what its command draws"


def words_of(svg):
    """Return all that is written in a picture: matplotlib leaves it as comments where it draws letters as paths."""
    return re.findall(r"<!-- (.*?) -->|<text[^>]*>([^<]*)</text>", svg)


def drawn_by(svg):
    """Return the version of matplotlib that drew a picture; another one may place things otherwise."""
    return re.findall(r"Matplotlib v([\d.]+)", svg)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page != IN_A_COPY], ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_command_and_example_of_a_page_runs(page, tmp_path, monkeypatch):
    if needs_torch(page) and not HAVE_TORCH:
        pytest.skip("this page trains or uses PyTorch, which the extra train installs")
    for variable in ("FORCE_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)

    def run(words):
        assert words[0] == "gossamer", f"{page.name}: only gossamer's commands are run, not {words[0]}"
        return run_here(words[1:])

    run_page(page, tmp_path, run)


def test_the_accelerator_of_the_how_to_works(tmp_path):
    folder = tmp_path / "gossamer"
    shutil.copytree(
        Path(gossamer.__file__).parent,
        folder,
        ignore=lambda _, names: [name for name in names if name.startswith(".") or name in ("tests", "docs", "build")],
    )
    run_page(IN_A_COPY, folder, lambda words: run_outside(words, folder))


def test_every_block_of_a_page_is_in_a_known_language():
    known = {"console", "python", "pycon", "text", "toml", "yaml", "json"}
    met = {block.language for page in PAGES for block in blocks_of(page)}
    assert met <= known


def test_fences_are_closed_and_named():
    for page in PAGES:
        fences = [line for line in page.read_text("utf-8").splitlines() if line.startswith("```")]
        assert all(line != "```" for line in fences[::2]), page
        assert all(line == "```" for line in fences[1::2]), page
        assert len(fences) % 2 == 0, page


def test_every_link_leads_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
            if target.startswith("https://"):
                continue
            path, _, anchor = target.partition("#")
            goal = (page.parent / path).resolve() if path else page
            assert goal.exists(), f"{page}: {target}"
            if anchor:
                heads = re.findall(r"^#+ (.+)$", goal.read_text("utf-8"), re.MULTILINE)
                assert anchor in {anchor_of(head) for head in heads}, f"{page}: {target}"


def anchor_of(heading):
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def test_the_index_lists_every_page():
    index = (DOCS / "README.md").read_text("utf-8")
    for page in DOCS.rglob("*.md"):
        if page != DOCS / "README.md":
            assert f"({page.relative_to(DOCS)})" in index, page


def test_the_page_of_sparsities_and_hardware_is_what_its_command_writes(tmp_path, monkeypatch):
    page = DOCS / "background" / "which-sparsity.md"
    command = shlex.split(
        next(line for line in page.read_text("utf-8").splitlines() if line.startswith("    gossamer "))
    )
    monkeypatch.chdir(tmp_path)
    status, output = run_here(command[1:])
    assert status == 0, output
    assert (tmp_path / page.name).read_text("utf-8") == page.read_text("utf-8")


# What the reference pages must list, as the code has it.


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

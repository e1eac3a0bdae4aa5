"""Hostile settings: small files and few words that would take all memory or all day, and files that never end."""

import json
import os
import resource
import subprocess
import sys
import threading
import time
import tomllib
from functools import partial
from itertools import repeat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.__main__ import main
from gossamer.models import load_machine
from gossamer.models.loader import load_energy_table
from gossamer.reports.provenance import machine_constants
from gossamer.reports.reading import read_inputs
from gossamer.reports.stored import Condition
from gossamer.reports.terminal import parse_set
from gossamer.simulator import read_result
from gossamer.simulator.energy import read_energy_table
from gossamer.simulator.store import Store
from gossamer.simulator.sweep import Case, grid_points, sweep
from gossamer.workloads import InputError
from gossamer.workloads.files import container
from gossamer.workloads.files.container import read_bytes, size_of
from gossamer.workloads.files.settings import KEY_PARTS, SETTINGS_BYTES, parse_toml
from gossamer.workloads.importers.one_shot import parse_one_shot
from gossamer.workloads.names import LONGEST, fits
from gossamer.workloads.training import load_recipe

from .test_hostile_input import refused

GIB = 2**30
KINDS = {"a machine file": load_machine, "an energy table": read_energy_table, "a recipe": load_recipe}
LONG = "a." * 20_000 + "b"  # at which the parser of Python 3.11 takes 1.6 GB
TOO_LONG = f"a key must have at most {KEY_PARTS} parts, not 20,001 as '{'a.' * 20}'"
NO_DEVICE = "a readable file, and it must be a regular file, not a device; check the path"


@pytest.fixture(autouse=True)
def guarded():
    """Let no test here take more memory than would be noticed."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + 3 * GIB, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "text",
    [
        f"{LONG} = 1",
        f"[{LONG}]",
        f"[[ {LONG} ]]",
        f"x = {{ {LONG} = 1 }}",
        f"x = [1, {{ y = {{ {LONG} = 1 }} }}]",
        f'"a.b" = "#" # it\'s\n{LONG} = 1',
        f'x = """a"""" # "\n{LONG} = 1',
        f"x = ['''a''''', {{ {LONG} = 1 }}, 'b']",
        f"x = [\"\"\"a\"\"\"\", {{ {LONG} = 1 }}, \"b\"]",
        f'x = """\\\\"""\n{LONG} = 1 # """',
        f"x = ''\n{LONG} = 1 # '''",
    ],
    ids=range(11),
)  # fmt: skip
def test_keys_of_many_parts_are_refused_before_the_parser_sees_them(tmp_path, kind, text):
    path, start = tmp_path / "f.toml", time.monotonic()
    path.write_text(text)
    assert refused(lambda: KINDS[kind](path)) == f"{path}: {kind} must be TOML: {TOO_LONG}; correct the file"
    assert time.monotonic() - start < 2


def test_keys_of_quoted_parts_and_with_spaces_are_counted_too():
    key = " . ".join(['"a.b"', "'c'", "d"] * 6)
    with pytest.raises(ValueError, match=r"a key must have at most 16 parts, not 18 as "):
        parse_toml(f"{key} = 1")
    assert parse_toml(".".join("a" * KEY_PARTS) + " = 1")
    with pytest.raises(ValueError, match="parts, not 17"):
        parse_toml(".".join("a" * (KEY_PARTS + 1)) + " = 1")


def test_points_in_text_comments_and_numbers_make_no_key():
    dots = "see https://www.a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p/q.html ... and so on. " * 3
    lines = [
        f"# {dots}", f'a = "{dots}" # {dots}', f"b = '{dots}'", f'"{dots}" = 1', f'c = """{dots}\n{dots}"""',
        f"d = '''\n{dots} '' '\n{dots}''''", f'e = "\\"{dots}"', f"f = [{'1.5, ' * 99}]", f"g = '\\' # '{dots}",
        "h = 1979-05-27T07:32:00.999999-07:00", f'i = ["{dots}", \'{dots}\']', f'j = """\\"""{dots}"""',
    ]  # fmt: skip
    text = "\n".join(lines)
    assert parse_toml(text) == tomllib.loads(text)


PIECES = ["'", '"', "'''", '"""', "\\", "#", "\n", "\r\n", " ", "=", "a", "a=", "[", "]", "{", "}", ",", ".", "a.b.c.d"]


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_a_short_text_is_what_it_is_to_the_parser(text):
    try:
        expected = tomllib.loads(text)
    except ValueError:
        expected = None
    many = max((run.count(".") for run in text.replace("\n", "=").split("=")), default=0)
    try:
        assert parse_toml(text) == expected
    except ValueError:
        assert expected is None or many >= KEY_PARTS


STATEMENTS = ["a=1\n", 'b="""a"""', "c='a'\n", "d='''a''''", "#c\n"]


@given(st.lists(st.sampled_from(PIECES + STATEMENTS), max_size=12).map("".join))
def test_no_text_before_a_long_key_hides_it(text):
    text = f"{text}\n{'.'.join(['zz', *'k' * 39])} = 1\n"
    try:
        is_key = "'zz': {'k'" in str(tomllib.loads(text))
    except ValueError:
        return
    if is_key:
        with pytest.raises(ValueError, match="parts, not 40"):
            parse_toml(text)


def test_the_search_for_long_keys_takes_time_in_proportion():
    size, start = SETTINGS_BYTES, time.monotonic()
    for text in ('x = "' + '\\"' * (size // 2), '"""' + '\\"""' * (size // 4), '"' * size, "'" * (size - 1),
                 '""\\' * (size // 3), "a" * size, "'''" + "''x" * (size // 3), "= " * (size // 2)):  # fmt: skip
        with pytest.raises(ValueError):
            parse_toml(text)
    assert time.monotonic() - start < 4


@pytest.mark.parametrize("kind", KINDS)
def test_settings_have_a_size(tmp_path, kind):
    path = tmp_path / "f.toml"
    path.write_text("x" * SETTINGS_BYTES)
    assert f"{kind} must be TOML: " in refused(lambda: KINDS[kind](path))
    with path.open("r+b") as file:
        file.truncate(100 * GIB)
    assert refused(lambda: KINDS[kind](path)) == (
        f"{path}: {kind} must have at most 262,144 bytes, not 107,374,182,400; write less of it"
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "[" * 9999, "lists and tables must not be nested so deep"),
        ("a = " + "{a=" * 9999, "lists and tables must not be nested so deep"),
        ("a = " + "1" * 5000, "Exceeds the limit (4300 digits) for integer string conversion"),
        ("a = 1 " + "x" * 5000, "Expected newline or end of document after a statement"),
    ],
)
def test_what_the_parser_gives_up_is_said_in_one_line(tmp_path, kind, text, message):
    path = tmp_path / "f.toml"
    path.write_text(text)
    assert refused(lambda: KINDS[kind](path)).startswith(f"{path}: {kind} must be TOML: {message}")


def test_a_message_stays_short_whatever_a_key_is_called(tmp_path):
    path, key = tmp_path / "f.toml", "k" * 200_000
    path.write_text(f'base = "eie-64pe"\n{key} = 1')
    assert len(refused(lambda: load_machine(path))) < 3000
    path.write_text(f'name = "x"\n{key} = 1')
    assert len(refused(lambda: load_recipe(path))) < 3000
    assert len(refused(lambda: read_energy_table(path))) < 3000


def test_a_message_is_cut_where_a_name_goes_on_and_on(tmp_path):
    path = tmp_path / "f.toml"
    path.write_text(f'base = "{"b" * 200_000}"')
    for load in (load_machine, load_recipe):
        assert len(refused(partial(load, path))) < 8000
    assert str(InputError("a" * 8000)) == "a" * 8000
    assert str(InputError("a" * 5000 + "b" * 5000)) == "a" * 5000 + "b" * 2000 + " ... " + "b" * 900


@pytest.mark.parametrize(
    "text",
    ["!!int ''", "!!float ''", "!!bool x", "!!timestamp x", '"\\UFFFFFFFF"', "1" + ":59" * 999 + ".5", "2001-99-99"],
    ids=range(7),
)
def test_what_a_tag_of_yaml_leads_its_parser_into_is_said_in_one_line(tmp_path, text):
    path, base = tmp_path / "ert.yaml", load_energy_table("eie-45nm-event", "gossamer.models.eie", "here")
    path.write_text(f"ERT: {text}\n")
    assert refused(lambda: read_energy_table(path, base)).startswith(f"{path}: an Accelergy ERT must be YAML: ")


@pytest.mark.parametrize("kind", ["/dev/full", "pipe"])
def test_a_store_is_a_regular_file_beside_which_a_journal_can_lie(tmp_path, kind):
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / "s.sqlite"
    path.symlink_to(kind)
    message = "a store must be a regular file, not a pipe or a device; choose another"
    assert refused(lambda: Store(path)) == f"{path}: {message}"
    assert refused(lambda: Store(path, must_exist=True)).startswith(f"{path}: a store must be a file that gossamer ")
    assert not Path("/dev/full-journal").exists()


def test_a_value_on_the_command_line_is_held_to_the_same_limits():
    for text in (f"{{{LONG} = 1}}", "[" * 9999):
        assert parse_set(f"k={text}") == ("k", text)
        assert refused(lambda text=text: load_recipe("lenet-digits-imp", seed=text)).startswith(
            "recipe lenet-digits-imp: seed must be a whole number of at least 0"
        )


ENDLESS = """
import json, os, resource
from pathlib import Path
from gossamer.models import load_machine
from gossamer.reports.reading import read_inputs
from gossamer.simulator.energy import read_energy_table
from gossamer.workloads import InputError, load_trace
from gossamer.workloads.importers.samples import read_samples
from gossamer.workloads.points import read_cloud
from gossamer.workloads.training import load_checkpoint, load_recipe
used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (used + 3 * 2**30,) * 2)
def report(name): return read_inputs([name])
def energy(name): return read_energy_table(Path(name))
def samples(name): return read_samples(Path(name))
def machine(name): return load_machine("eie-64pe", energy=name)
for act, names in (
    (load_machine, ("z.toml", "full.toml", "base.toml", "/dev/zero")),
    (energy, ("z.toml", "full.toml")), (machine, ("z.toml", "z.yaml")),
    (load_recipe, ("z.toml", "full.toml", "recipe.toml")), (report, ("z.json", "full.json", "/dev/zero")),
    (load_trace, ("z.npz", "z.mtx", "z.smtx", "z.safetensors", "full.npz", "full.safetensors", "dump")),
    (read_cloud, ("z.npy", "z.npz", "z.bin", "z.ply", "z.off", "full.ply")),
    (samples, ("z.npy", "z.npz", "z.safetensors")), (load_checkpoint, ("z.safetensors",)),
):
    for name in names:
        try:
            act(name)
            print(json.dumps([act.__name__, name, "read"]))
        except InputError as error:
            print(json.dumps([act.__name__, name, str(error)]))
"""


def test_a_device_that_never_ends_is_no_file_to_any_reader(tmp_path):
    for suffix in ("toml", "yaml", "json", "npz", "npy", "mtx", "smtx", "safetensors", "bin", "ply", "off"):
        (tmp_path / f"z.{suffix}").symlink_to("/dev/zero")
        (tmp_path / f"full.{suffix}").symlink_to("/dev/full")
    (tmp_path / "base.toml").write_text('base = "/dev/zero"')
    (tmp_path / "recipe.toml").write_text('base = "z.toml"')
    for part in ("ptr", "spm"):
        (tmp_path / "dump" / part).mkdir(parents=True)
        (tmp_path / "dump" / part / f"{part}0.dat").symlink_to("/dev/zero")
    for part in ("act", "arithm"):
        (tmp_path / "dump" / f"{part}.dat").symlink_to("/dev/zero")
    ran = subprocess.run(
        [sys.executable, "-c", ENDLESS], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    said = [json.loads(line) for line in ran.stdout.splitlines()]
    assert ran.returncode == 0, ran.stderr
    assert len(said) == 31
    assert [line for line in said if not line[2].endswith(NO_DEVICE)] == []


def test_what_can_be_read_a_part_at_a_time_is_a_file_of_its_own(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("pipe", "a pipe"), ("/dev/zero", "a device")):
        path = tmp_path / name
        assert refused(lambda path=path: size_of(path, "a thing")) == (
            f"{path}: a thing must be a readable file, and it must be a regular file, not {reason}; check the path"
        )
    assert refused(lambda: size_of(tmp_path, "a thing")).endswith("and Is a directory; check the path")
    assert refused(lambda: read_bytes(tmp_path, "a thing")).endswith("and Is a directory; check the path")
    (tmp_path / "f").write_bytes(b"abc")
    assert size_of(tmp_path / "f", "a thing") == 3


def piped(tmp_path, data):
    """Return a pipe through which ``data`` come."""
    path = tmp_path / f"pipe{len(list(tmp_path.iterdir()))}"
    os.mkfifo(path)

    def write():
        try:
            with path.open("wb", buffering=0) as file:
                for part in data:
                    file.write(part)
        except BrokenPipeError:
            pass

    threading.Thread(target=write, daemon=True).start()
    return path


def test_a_pipe_is_read_up_to_a_limit(tmp_path, monkeypatch):
    assert read_bytes(piped(tmp_path, [b"ab", b"cd"]), "a thing") == b"abcd"
    assert load_machine(str(piped(tmp_path, [b'base = "eie-64pe"\n', b"pe_count = 4"]))).config.pe_count == 4
    path = piped(tmp_path, repeat(bytes(2**16)))
    assert refused(lambda: load_machine(str(path))) == (
        f"{path}: a machine file must have at most 262,144 bytes, and has more; write less of it"
    )
    monkeypatch.setattr(container, "PIPE_BYTES", 2**20)
    path = piped(tmp_path, repeat(bytes(2**16)))
    assert refused(lambda: read_inputs([path])) == (
        f"{path}: a result file must have at most 1,048,576 bytes, and has more; write less of it"
    )


def test_results_come_through_a_pipe_whole(tmp_path):
    text = tmp_path / "r.json"
    assert main(["simulate", "lenet-digits-imp", "--layer", "fc3", "--json", str(text)]) == 0
    data = text.read_bytes()
    (found,) = read_inputs([piped(tmp_path, [data])]).results
    assert found == read_result(text) == read_result(piped(tmp_path, [data]))


def test_a_file_of_the_kernels_that_has_no_size_is_read():
    assert b"Linux" in read_bytes(Path("/proc/version"), "a thing", 10_000)


def test_constants_are_told_of_a_machine_file_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text('base = "eie-64pe"\npe_count = 4\n[sources]\npe_count = "assumed"\n')
    base, constants = machine_constants("./mine")
    assert (base, [each.value for each in constants]) == ("eie-64pe", ["4"])


def test_a_sweep_has_as_many_cases_as_an_exploration(capsys, monkeypatch):
    start, grid = time.monotonic(), {"pe_count": range(20_000), "queue_depth": range(20_000)}
    message = (
        "at most 1,000,000 cases can all be simulated, not {}; give fewer values, or search among them with "
        "explore --trials"
    )
    assert refused(lambda: grid_points(grid)) == message.format("400,000,000")
    assert len(grid_points({"a": [1, 2], "b": range(3)})) == 6
    values = ",".join(map(str, range(1, 1001)))
    grids = ["--grid", f"pe_count={values}", "--grid", f"queue_depth={values}"]
    assert main(["sweep", "lenet-digits-imp", "lenet-digits-dense", *grids]) == 2
    assert capsys.readouterr().err == f"gossamer: error: {message.format('2,000,000')}\n"
    assert time.monotonic() - start < 5
    monkeypatch.setattr("gossamer.simulator.sweep.MOST_CASES", 3)
    assert refused(lambda: sweep(repeat(None))) == (
        "at most 3 cases can all be simulated, and there are more; sweep a part of them"
    )


def test_patterns_of_names_have_a_length(capsys):
    pattern, start = "[" * 20_000, time.monotonic()
    message = (
        f"a pattern of names must have at most {LONGEST:,} characters, not 20,000 as {'[' * 40!r}; shorten it with *"
    )
    assert fits("conv1", "conv*" + "*" * (LONGEST - 5))
    for act in (
        partial(fits, "fc", pattern),
        partial(Case, None, None, layers=pattern),
        partial(parse_one_shot("0.5").left_out, {"fc": (2, 2)}, [pattern]),
        partial(Condition("trace", "=", pattern).holds, {"trace": "fc"}),
    ):
        assert refused(act) == message
    for command in (["simulate"], ["compare"], ["sweep", "--grid", "pe_count=1"]):
        assert main([*command, "lenet-digits-imp", "--layer", pattern]) == 2
        assert capsys.readouterr().err == f"gossamer: error: {message}\n"
    name = "a" * 100_000
    assert not fits(name, "*a" * 499 + "b")
    assert time.monotonic() - start < 6


def test_the_limits_are_those_that_the_reference_states():
    text = (Path(__file__).resolve().parents[1] / "docs/reference/traces.md").read_text("utf-8")
    assert f"2^{SETTINGS_BYTES.bit_length() - 1} bytes" in text
    assert f"{KEY_PARTS} parts" in text
    assert f"{LONGEST:,} characters" in text
    assert f"2^{container.PIPE_BYTES.bit_length() - 1} bytes" in text

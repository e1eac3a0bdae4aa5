"""The help of the commands: each ends with an example, and the examples do what they say."""

import inspect
import shlex

import pytest
import typer

from gossamer.__main__ import app, main


def commands(group, path=""):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path}{name} ")
        else:
            yield path + name, command


HELPED = dict(commands(typer.main.get_command(app)))
QUICK = [  # in an order in which each finds what those before it wrote
    "simulate", "compare", "check", "sweep", "explore", "results", "report", "plot", "list", "sources", "schema",
    "synth eie", "synth ese", "synth random", "synth gemm", "synth room", "synth cad",
    "transform temporal", "transform spatial", "transform roll", "transform unroll",
]  # fmt: skip


def example_of(command):
    """Return the words of the example that the help of ``command`` ends with."""
    (line,) = [line for line in inspect.cleandoc(command.help).splitlines() if line.startswith("Example: ")]
    return shlex.split(line)[1:]


@pytest.mark.parametrize("name", sorted(HELPED))
def test_the_help_of_a_command_ends_with_an_example_of_it(name):
    words = example_of(HELPED[name])
    assert words[: 1 + len(name.split())] == ["gossamer", *name.split()]


def test_the_examples_of_help_do_what_they_say(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in QUICK:
        assert main(example_of(HELPED[name])[1:]) == 0, capsys.readouterr().err
        assert capsys.readouterr().out

"""The documentation: every command and every example is run, and what is shown is what comes out.

Blocks of a page run in order, in one empty folder. ```console: lines after ``$`` are run, must leave with status 0
unless ``$ echo $?`` follows, and print what is shown (``...`` stands for anything). ```python runs, in one namespace a
page; ```pycon is compared as doctest does. A block whose fence names a file (```toml wide.toml) is written there.
Blocks in any other language are only read: `test_docs_links` holds the commands in them to what there is.
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
from pathlib import Path

import pytest

import gossamer
from gossamer.__main__ import main

from .pages import DOCS, PAGES, ROOT, blocks_of, commands_of

IN_A_COPY = DOCS / "how-to" / "add-an-accelerator.md"  # its module lies inside the package
PICTURE = re.compile(r"!\[[^\]]*\]\(([^)\s]+\.svg)\)")
HAVE_TORCH = all(importlib.util.find_spec(name) for name in ("torch", "sklearn"))


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


def test_the_page_of_sparsities_and_hardware_is_what_its_command_writes(tmp_path, monkeypatch):
    page = DOCS / "background" / "which-sparsity.md"
    command = shlex.split(
        next(line for line in page.read_text("utf-8").splitlines() if line.startswith("    gossamer "))
    )
    monkeypatch.chdir(tmp_path)
    status, output = run_here(command[1:])
    assert status == 0, output
    assert (tmp_path / page.name).read_text("utf-8") == page.read_text("utf-8")

"""What the documentation names is there: pages, headings, files, functions, commands and their options."""

import importlib
import re
import shlex
from urllib.parse import urlsplit

import pytest
import typer

from gossamer.__main__ import app

from .pages import DOCS, FENCE, PAGES, ROOT, blocks_of

WRITTEN = [*PAGES, ROOT / "CONTRIBUTING.md"]
KNOWN_SITES = {
    "distributed.dask.org", "docs.dask.org", "github.com", "helm.dask.org", "jobqueue.dask.org", "json-schema.org",
    "kubernetes.dask.org", "ui.perfetto.dev",
}  # fmt: skip
NO_PYTHON = {"gossamer.trace", "gossamer.PE", "gossamer.queue"}  # a key of a file, scopes of a waveform
COMMANDS = typer.main.get_command(app)


def inline_code(page):
    """Return what stands between single backticks, line breaks as blanks."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", FENCE.sub("", page.read_text("utf-8")))]


def links_of(page):
    return re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text("utf-8")))


def anchor_of(heading):
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


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


@pytest.mark.parametrize("page", [*WRITTEN, ROOT / "CHANGELOG.md"], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    for target in links_of(page):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        goal = (page.parent / path).resolve() if path else page
        assert goal.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.+)$", FENCE.sub("", goal.read_text("utf-8")), re.MULTILINE)
            assert anchor in {anchor_of(head) for head in heads}, target


def test_what_lies_outside_is_named_by_https_on_a_site_that_is_known():
    for page in WRITTEN:
        for address in re.findall(r"\b\w+://[^\s)>`\"]+", page.read_text("utf-8")):
            parts = urlsplit(address.rstrip(".,"))
            if parts.scheme in ("tcp", "tls", "chrome"):  # a Dask scheduler's address, a page of the browser
                continue
            assert parts.scheme == "https", f"{page}: {address}"
            assert parts.hostname in KNOWN_SITES, f"{page}: {address}"


def test_the_index_lists_every_page():
    index = (DOCS / "README.md").read_text("utf-8")
    for page in DOCS.rglob("*.md"):
        if page != DOCS / "README.md":
            assert f"({page.relative_to(DOCS)})" in index, page


def test_every_file_of_the_checkout_that_is_named_is_there():
    folders = "benchmarks|docs|models|reports|simulator|tests|workloads"
    for page in WRITTEN:
        made = {block.file for block in blocks_of(page)}
        for code in inline_code(page):
            for path in re.findall(rf"(?<![\w/.-])(?:{folders})/[\w./-]*[\w/]", code):
                assert path in made or (ROOT / path).exists(), f"{page}: {path}"


def test_every_script_of_the_benchmark_page_is_there_and_every_benchmark_is_on_it():
    listed = set(re.findall(r"`(\w+\.py)`", (DOCS / "background" / "benchmarks.md").read_text("utf-8")))
    parts = {"fuzz_"}  # modules of fuzz.py
    there = {path.name for path in (ROOT / "benchmarks").glob("*.py")}
    assert listed <= there
    assert {name for name in there if not name.startswith(tuple(parts))} <= listed


def test_every_name_in_the_package_that_is_mentioned_is_there():
    for page in WRITTEN:
        for code in inline_code(page):
            if re.fullmatch(r"gossamer(\.\w+)+", code) and code not in NO_PYTHON:
                assert is_there(code), f"{page}: {code}"


def is_there(dotted):
    words = dotted.split(".")
    for count in range(len(words), 0, -1):
        try:
            thing = importlib.import_module(".".join(words[:count]))
        except ModuleNotFoundError:
            continue
        for word in words[count:]:
            if not hasattr(thing, word):
                return False
            thing = getattr(thing, word)
        return True
    return False


def commands_in(page):
    """Return the commands that a page shows and does not run: of ```text, of indented lines, and of a sentence."""
    rest = FENCE.sub("", page.read_text("utf-8"))
    lines = [line for block in blocks_of(page) if block.language == "text" for line in block.text.splitlines()]
    joined = re.sub(r" *\\\n\s*", " ", "\n".join(lines)).splitlines()
    indented = [line.strip().partition("    #")[0] for line in rest.splitlines() if line.startswith("    gossamer ")]
    return [line for line in [*joined, *indented] if line.startswith("gossamer ")]


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_are_not_run_would_be_understood(page):
    for line in commands_in(page):
        words = shlex.split(line)
        if words[1] == "COMMAND":
            continue
        context, command = None, COMMANDS
        rest = words[1:]
        while True:
            context = command.make_context(command.name, list(rest), parent=context)  # a usage error is a test's too
            if not hasattr(command, "commands"):
                break
            _, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])


def test_programs_that_are_not_run_are_at_least_python():
    for page in PAGES:
        for block in blocks_of(page):
            if block.language == "text" and (block.file or "").endswith(".py"):
                compile(block.text, f"{page}: {block.file}", "exec")


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_are_mentioned_have_the_options_named_with_them(page):
    for code in inline_code(page):
        words = code.split()
        if words[0] != "gossamer" or len(words) < 2 or words[1] in ("COMMAND", "--help", "--version"):
            continue
        command, rest = COMMANDS, words[1:]
        while hasattr(command, "commands") and rest:
            assert rest[0] in command.commands, f"{page}: {code}"
            command, rest = command.commands[rest[0]], rest[1:]
        known = {"--help"} | {option for parameter in command.params for option in parameter.opts}
        for word in rest:
            if word.startswith("--"):
                assert word.partition("=")[0].rstrip(",.;:") in known, f"{page}: {code}"

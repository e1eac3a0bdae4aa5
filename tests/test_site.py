"""The site and the pages that commands write: it builds with every link whole, and no page is left behind."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gossamer.__main__ import main
from gossamer.models import load_machine
from gossamer.reports.markdown import plain, table_lines
from gossamer.reports.provenance import KINDS, kind_of, machine_constants, provenance_page, table_constants
from gossamer.reports.published import Check, read_paper
from gossamer.reports.schemas import SCHEMAS, schema_of, schema_text
from gossamer.reports.validate import VALIDATIONS, validations
from gossamer.reports.validation_page import validation_page
from gossamer.reports.verdicts import VERDICT_STYLES
from gossamer.simulator import simulate
from gossamer.workloads import InputError, load_trace

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
VALIDATION = DOCS / "background" / "validation.md"
EIE_DATA = ROOT.parent / "shared" / "data" / "eie-alex8"  # has no licence to be bundled
HAVE_MKDOCS = all(importlib.util.find_spec(name) for name in ("mkdocs", "material", "mkdocstrings"))


# The site


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if not HAVE_MKDOCS:
        pytest.skip("the extra docs, which builds the site, is not installed")
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(DOCS, folder / "docs")
    for name in ("mkdocs.yml", "models", "reports", "simulator", "workloads", "__init__.py", "__main__.py", "py.typed"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "mkdocs.yml").unlink()
    shutil.copy(ROOT / "mkdocs.yml", folder)  # its folder is the one that paths in it start from
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict"], cwd=folder, capture_output=True, text=True, check=False,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "build" / "site"


def test_the_site_builds_with_every_link_whole_and_every_page_in_it(site):
    pages = {page.relative_to(DOCS).with_suffix(".html") for page in DOCS.rglob("*.md")}
    pages = {page.with_name("index.html") if page.name == "README.html" else page for page in pages}
    assert pages == {page.relative_to(site) for page in site.rglob("*.html")} - {Path("404.html")}


def test_no_page_of_the_site_shows_a_fence_or_lacks_a_picture(site):
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        assert "```" not in text, page
        for source in re.findall(r'<img[^>]* src="([^"]+)"', text):
            assert (page.parent / source).exists(), f"{page}: {source}"


def test_prompts_are_not_offered_for_copying(site):
    shown = re.findall(r'<div class="([^"]*)highlight">', (site / "tutorial.html").read_text("utf-8"))
    assert "language-console " in shown  # which the style sheet knows
    assert ".language-console .md-code__nav" in (site / "assets" / "site.css").read_text("utf-8")


def test_the_site_asks_nobody_else_for_anything(site):
    for page in site.rglob("*.html"):
        asked = re.findall(r'<(?:script|img|link)[^>]* (?:src|href)="(https?://[^"]+)"', page.read_text("utf-8"))
        assert asked == [], page


def test_public_functions_are_described_from_their_docstrings(site):
    text = (site / "reference" / "python.html").read_text("utf-8")
    for name in re.findall(r"^::: (\S+)$", (DOCS / "reference" / "python.md").read_text("utf-8"), re.MULTILINE):
        assert f'id="{name}"' in text, name
    assert "Return cycles, energy and the reasons for them" in text


def test_every_page_is_in_the_navigation():
    nav = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:\n")[2]
    listed = re.findall(r": (\S+\.md)$", nav, re.MULTILINE)
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


# Where every number comes from


def test_the_page_of_sources_is_what_its_command_writes():
    assert (DOCS / "background" / "provenance.md").read_text("utf-8") == provenance_page()


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("Han et al., ISCA 2016, section IV: 32 KB", "published"),
        ("NVIDIA PTX ISA, mma.sp: 2:4", "published"),
        ("half of fp16 (A100 whitepaper, 2020)", "derived"),
        ("derived: three coordinates of 21 bits", "derived"),
        ("Han et al., ISCA 2016, Table II: 0.112 mW / 0.8 GHz", "derived"),
        ("NVIDIA A100 whitepaper, 2020: 5120 bytes a clock (secondary source)", "secondary"),
        ("fitted on Sun et al., TPDS 2023, tables 3 and 6", "fitted"),
        ("assumed: a share of the 776 KB (provenance = memory, unconfirmed)", "assumed"),
        ("provenance = memory, unconfirmed: Lin et al., PointAcc, MICRO 2021: 1 GHz", "memory"),
        ("from memory, unconfirmed: 132 SMs", "memory"),
        ("Horowitz, ISSCC 2014 (45 nm, memory)", "memory"),
        ("off, to compare with", "choice"),
        ("the memory is off", "choice"),
        ("", "none"),
    ],
)
def test_the_kind_of_a_source_is_read_from_its_words(source, kind):
    assert kind_of(source) == kind
    assert kind in KINDS


def test_a_variant_shows_what_it_states_and_no_more():
    base, constants = machine_constants("eie-256pe")
    assert base == "eie-64pe"
    assert [each.name for each in constants] == ["pe_count", "clock_hz", "energy"]
    assert [each.value for each in constants] == ["256", "1.2e9", "eie-28nm-calibrated"]


def test_every_value_of_an_energy_table_has_a_kind():
    assert {each.kind for each in table_constants("pointacc-event")} == {"derived", "assumed"}


def test_a_machine_of_ones_own_shows_its_sources(tmp_path, capsys):
    path = tmp_path / "mine.toml"
    path.write_text('base = "eie-64pe"\npe_count = 16\n[sources]\npe_count = "assumed: enough"\n')
    assert main(["sources", str(path)]) == 0
    assert "assumed: enough" in capsys.readouterr().out


def test_sources_of_one_machine_are_not_written_as_the_page_of_all(capsys):
    assert main(["sources", "eie-64pe", "--out", "page.md"]) == 2
    assert capsys.readouterr().err == (
        "gossamer: error: --out writes all machines and energy tables, not 'eie-64pe' alone; leave one of the two out\n"
    )


# Published against simulated

HIT = Check(
    name="cycles", source="a table", published=100, simulated=100, unit="cycles", error=0.0, tolerance="exact",
    verdict="hit", group="A layer",
)  # fmt: skip
MISS = Check(
    name="time", source="a paper", published=2.5, simulated=2.0, unit="us", error=-0.2, tolerance="5 %",
    verdict="known miss", note="rows too much alike", group="A layer",
)  # fmt: skip
SKIPPED = Check(
    name="a|b", source="a paper", published=None, simulated=None, unit="ratio", error=None, tolerance="at least 2",
    verdict="skipped", note="needs <data>", group="Trends",
)  # fmt: skip


def test_the_page_of_checks_names_every_miss_with_its_cause_and_escapes_what_is_markdown():
    page = validation_page("eie", {"eie": [HIT, MISS, SKIPPED]})
    assert page.partition("nobody has published.\n")[2] == (
        "\n| accelerator | checks | hit | miss | known miss | information | skipped |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| eie | 3 | 1 | 0 | 1 | 0 | 1 |\n\n"
        "## Every miss, and its cause\n\n"
        "- **eie**: time -20.0 %. Rows too much alike.\n\n"
        "## eie\n\n`gossamer validate eie` prints these.\n\n"
        "**A layer**\n\n"
        "| figure | published | simulated | error | within | verdict | source |\n"
        "| --- | ---: | ---: | ---: | ---: | --- | --- |\n"
        "| cycles, cycles | 100 | 100 | 0 | exact | hit | [1] |\n"
        "| time, us | 2.5 | 2.000 | -20.0 % | 5 % | known miss | [2] |\n\n"
        "**Trends**\n\n"
        "| figure | published | simulated | error | within | verdict | source |\n"
        "| --- | ---: | ---: | ---: | ---: | --- | --- |\n"
        "| a\\|b | at least 2 |  |  |  | skipped | [2] |\n\n"
        "- a\\|b: Needs &lt;data&gt;.\n\n"
        "Sources:\n\n1. A table.\n2. A paper.\n"
    )


def test_without_a_miss_the_page_says_so():
    assert "## Every miss, and its cause\n\nThere is none.\n" in validation_page("eie", {"eie": [HIT]})


def section_of(page, name):
    return re.search(rf"^## {name}$.*?(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)[0].rstrip()


@pytest.mark.parametrize("what", ["eie", "tensor-core", "spatten"])  # the quick ones; each paper has tests of its own
def test_the_page_of_checks_is_what_its_command_writes(what):
    has_data = what != "eie" or EIE_DATA.is_dir()
    stored = section_of(VALIDATION.read_text("utf-8"), what)
    written = validation_page("all", {what: validations(what)(EIE_DATA if what == "eie" and has_data else None)})
    if not has_data:
        stored, written = without_the_real_layer(stored), without_the_real_layer(written)
    assert section_of(written, what) == stored


def without_the_real_layer(page):
    before, found, after = page.partition("**Alex-8, real weights**")
    assert found
    return before + after[after.index("**Nine layers") :]


def test_the_page_of_checks_says_how_it_was_made_and_what_data_it_needs():
    head = VALIDATION.read_text("utf-8").partition("\n| accelerator |")[0]
    assert head == validation_page("all", {}, data=True).partition("\n| accelerator |")[0]
    assert "gossamer validate all EIE-simulator/data --out validation.md" in head
    assert "https://github.com/RalphMao/EIE-simulator" in head


def test_the_summary_of_the_page_of_checks_counts_its_rows():
    page = VALIDATION.read_text("utf-8")
    rows = re.findall(r"^\| ([\w-]+) \| (\d+) \| (.*) \|$", page.partition("\n## ")[0], re.MULTILINE)
    assert [name for name, *_ in rows] == [*VALIDATIONS, "all"]
    for name, count, by_verdict in rows:
        part = page if name == "all" else section_of(page, name)
        verdicts = re.findall(r"^\|.*\| ([a-z ]+) \| \[\d+\] \|$", part, re.MULTILINE)
        assert [str(verdicts.count(verdict)) for verdict in VERDICT_STYLES] == by_verdict.split(" | "), name
        assert len(verdicts) == int(count), name


def test_without_their_data_the_skipped_checks_say_where_it_is_to_be_had():
    notes = {check.note for check in validations("eie")(None) if check.verdict == "skipped"}
    assert notes == {
        "needs the data of the authors' simulator, which has no licence to be bundled: git clone "
        "https://github.com/RalphMao/EIE-simulator, then gossamer validate eie EIE-simulator/data"
    }


def checks_in(section):
    if isinstance(section, dict):
        if {"name", "source", "unit"} <= set(section):
            yield section
        for part in section.values():
            yield from checks_in(part)
    elif isinstance(section, list):
        for part in section:
            yield from checks_in(part)


@pytest.mark.parametrize("what", VALIDATIONS)
def test_the_page_of_checks_lists_every_check_of_a_paper(what):
    section = section_of(VALIDATION.read_text("utf-8"), what)
    found = list(checks_in(read_paper(what)))
    assert len(found) > 5
    for check in found:
        assert plain(check["name"]) in section, check["name"]


def test_a_page_of_checks_must_be_markdown(capsys):
    assert main(["validate", "eie", "--out", "page.html"]) == 2
    assert "page.html" in capsys.readouterr().err


def test_an_unknown_accelerator_is_told_before_anything_runs(capsys):
    assert main(["validate", "eyeriss", "--out", "page.md"]) == 2
    assert capsys.readouterr().err.startswith(
        "gossamer: error: unknown accelerator 'eyeriss' to validate; known: eie, "
    )


# Schemas


@pytest.mark.parametrize(("number", "what"), list(enumerate(SCHEMAS)))
def test_the_page_of_schemas_shows_what_the_command_prints(number, what, capsys):
    page = DOCS / "reference" / "schemas.md"
    shown = re.findall(r"^```json\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(shown) == len(SCHEMAS)
    if os.environ.get("GOSSAMER_WRITE_PICTURES"):
        page.write_text(page.read_text("utf-8").replace(shown[number], schema_text(what)), "utf-8")
    else:
        assert shown[number] == schema_text(what)
    assert main(["schema", what]) == 0
    assert capsys.readouterr().out == schema_text(what)


def test_a_result_has_the_keys_that_its_schema_asks_for():
    schema = schema_of("result")["$defs"]["Result"]
    result = json.loads(simulate(load_machine("eie-64pe"), load_trace("lenet-digits-imp"), layers="fc3").to_json())
    assert set(schema["required"]) <= set(result) <= set(schema["properties"])


def test_a_bundled_energy_table_has_the_keys_that_its_schema_knows():
    schema = schema_of("energy-table")["$defs"]["EnergyTable"]
    table = tomllib.loads((ROOT / "models" / "energy" / "eie-45nm-event.toml").read_text("utf-8"))
    assert set(schema["required"]) <= set(table) <= set(schema["properties"])


def test_only_files_that_there_are_have_a_schema():
    with pytest.raises(InputError) as error:
        schema_of("machine")
    assert str(error.value) == "what to describe must be one of result, trace, energy-table, not 'machine'"


# Markdown


def test_a_table_lines_numbers_up_on_the_right_and_keeps_links_and_code():
    lines = table_lines(("name", "n"), [("[a](#a)", 1), ("`b_c`", 2), ("d*e|f", 3)], right=[1])
    assert lines == [
        "| name | n |", "| --- | ---: |", "| [a](#a) | 1 |", "| `b_c` | 2 |", "| d\\*e\\|f | 3 |", "",
    ]  # fmt: skip
